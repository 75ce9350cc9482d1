// SPDX-License-Identifier: GPL-2.0-or-later
//
// Each entry of corpus/known beside its near misses: records of the defect it describes, which it
// must know, and of another bug at the same place of the same program or one like it, which must
// stay new. An entry without any is an error.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <concepts>
#include <functional>

#include "harness/judge/simulator.h"
#include "harness/triage/known.h"
#include "oracle/xstate/image.h"
#include "tests/judge/judge_testing.h"

namespace fpswap::triage {
namespace {

using judge::PatternBytes;
using trace::RecordKind;
using xstate::Bit;
using xstate::Component;

constexpr uint64_t kAvxBit = Bit(Component::kAvx), kSseBit = Bit(Component::kSse);
constexpr uint64_t kPkruBit = Bit(Component::kPkru);

// The records of one run, to be changed.
class Edit {
 public:
  explicit Edit(std::vector<uint8_t> records) : records_(std::move(records)) {}

  // Of a call's data or a journal.
  template <std::integral T>
  Edit& Set(unsigned step, size_t offset, T value) {
    const auto bytes = DataOf(step);
    EXPECT_LE(offset + sizeof(value), bytes.size());
    if (offset + sizeof(value) <= bytes.size()) std::memcpy(&bytes[offset], &value, sizeof(value));
    return *this;
  }
  Edit& Set(unsigned step, size_t offset, std::span<const uint8_t> value) {
    for (const uint8_t b : value) Set(step, offset++, b);
    return *this;
  }
  // XSTATE_BV of a call's image.
  Edit& XstateBv(unsigned step, uint64_t set, uint64_t clear) {
    uint64_t bv = xstate::ReadAt<uint64_t>(DataOf(step), xstate::kHeaderOffset);
    return Set(step, xstate::kHeaderOffset, (bv | set) & ~clear);
  }
  // The step has no fault but a journal of zeros, or another fault.
  Edit& Succeeds(unsigned step, size_t journal) {
    return Replace(step, RecordKind::kJournal, std::vector<uint8_t>(journal));
  }
  Edit& Faults(unsigned step, uint8_t vector, uint64_t rip, uint32_t error = 0,
               uint64_t address = 0) {
    const trace::FaultRecord fault{vector, {}, error, rip, address};
    const auto* bytes = reinterpret_cast<const uint8_t*>(&fault);
    return Replace(step, RecordKind::kFault, {bytes, bytes + sizeof(fault)});
  }
  Edit& Returns(unsigned step, int result) {
    const trace::IoctlRecord record{result, 0};
    const auto* bytes = reinterpret_cast<const uint8_t*>(&record);
    return Replace(step, RecordKind::kIoctl, {bytes, bytes + sizeof(record)});
  }
  // The step just goes on.
  Edit& NoFault(unsigned step) { return Replace(step, RecordKind::kEnd, {}); }
  // The agent is lost, and all records with it.
  Edit& Dies(const std::string& console) {
    records_.clear();
    const trace::EndRecord end{.reason = static_cast<uint8_t>(trace::EndReason::kAgentDied)};
    const auto bytes = [](const auto& x, size_t n) {
      return std::span(reinterpret_cast<const uint8_t*>(x), n);
    };
    trace::AppendRecord(records_, RecordKind::kEnd, 0, 0, bytes(&end, sizeof(end)),
                        bytes(console.data(), console.size()));
    return *this;
  }

  const std::vector<uint8_t>& records() const { return records_; }

 private:
  std::span<uint8_t> DataOf(unsigned step) {
    trace::RecordReader reader(records_);
    trace::RecordView view{};
    while (reader.Next(view)) {
      const bool call = view.kind == RecordKind::kIoctl;
      if (view.step != step || (!call && view.kind != RecordKind::kJournal)) continue;
      const auto at = static_cast<size_t>(view.bytes.data() - records_.data());
      const std::span<uint8_t> bytes = std::span(records_).subspan(at, view.bytes.size());
      return call ? bytes.subspan(sizeof(trace::IoctlRecord)) : bytes;
    }
    ADD_FAILURE() << "step " << step << " has no bytes";
    return {};
  }
  Edit& Replace(unsigned step, RecordKind kind, const std::vector<uint8_t>& bytes) {
    std::vector<uint8_t> out;
    trace::RecordReader reader(records_);
    trace::RecordView view{};
    while (reader.Next(view)) {
      if (view.step == step && view.kind != RecordKind::kEnd) continue;
      if (view.kind == RecordKind::kEnd && kind != RecordKind::kEnd) {
        trace::AppendRecord(out, kind, 0, static_cast<uint16_t>(step), bytes);
      }
      trace::AppendRecord(out, view.kind, view.vcpu, view.step, view.bytes);
    }
    records_ = std::move(out);
    return *this;
  }

  std::vector<uint8_t> records_;
};

struct Case {
  const char* entry;
  const char* what;  // the near miss; "" for the defect itself
  const char* steps;
  std::function<void(Edit&, const plan::Plan&)> edit;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.entry << ": " << c.what; }

// Of a YMM register.
std::vector<uint8_t> HighHalf(uint16_t pattern) {
  const auto whole = PatternBytes(pattern, 32);
  return {whole.begin() + 16, whole.end()};
}

uint64_t RipOf(const plan::Plan& plan, unsigned step) {
  return plan::kCodeBase + plan.rows[step].instruction;
}

// The platform that an entry is of.
trace::Platform PlatformOf(std::string_view entry) {
  constexpr uint64_t kAmx = Bit(Component::kTilecfg) | Bit(Component::kTiledata);
  const bool amx = entry == "kvm-set-msr-xfd-host-nm" || entry == "kvm-set-cpuid-loses-state";
  const bool standard = entry == "kvm-get-xsave-mxcsr-left-out";
  trace::Platform p = judge::TestPlatform(judge::kTestComponents | (amx ? kAmx : 0), !standard);
  if (entry == "kvm-cet-bitmap-base") {
    p.kernel = "7.3.4";
    p.guest.cet_ss = p.guest.cet_ibt = true;
  }
  p.xcr0_loaded = true;
  if (amx) p.host.xsave.xfd = p.guest.xsave.xfd = true;
  if (entry == "amd-avx-initial-under-zmm") {
    p.host.amd = p.guest.amd = true;
    p.cpu_family = 25;
  }
  if (entry == "getregset-stale-mxcsr") p.target = "native";
  if (entry.starts_with("kvm-pvm-")) {
    p.vendor_module = "kvm_pvm";
    p.xcr0_loaded = false;
  }
  if (entry == "kvm-pvm-host-pke") p.guest.pku = false;
  return p;
}

// What a KVM_GET_XSAVE2 behind these finds: AVX in use, SSE and MXCSR initial. MXCSR was 0 once.
constexpr char kAvxAlone[] =
    "sse.ldmxcsr value=0\n"
    "vex.load256 ymm=0 pattern=0x3370\n"
    "mem.header slot=0 xstate_bv=0 xcomp_bv=0\n"
    "xrstor slot=0 rfbm=sse\n"
    "sse.ldmxcsr value=0x1f80\n"
    "vmm.get_xsave2 image=0\n";
constexpr char kAvxAloneNative[] =
    "sse.ldmxcsr value=0\n"
    "vex.load256 ymm=0 pattern=0x3370\n"
    "mem.header slot=0 xstate_bv=0 xcomp_bv=0\n"
    "xrstor slot=0 rfbm=sse\n"
    "sse.ldmxcsr value=0x1f80\n"
    "os.getregset image=0\n";
// An image with neither SSE nor AVX leaves MXCSR as it is.
constexpr char kMxcsrLeft[] =
    "sse.ldmxcsr value=0\n"
    "vmm.set_xsave image=0\n"
    "vmm.get_xsave image=0\n";
constexpr char kPkruUnset[] =
    "vmm.image_write image=1 offset=2688 value=0xc\n"
    "vmm.image_write image=1 offset=512 value=0x200\n"
    "vmm.set_xsave image=1\n"
    "vmm.set_xsave image=0\n"
    "vmm.get_xsave image=0\n";
constexpr char kPkruUnsetAvx[] =
    "vmm.image_write image=1 offset=2688 value=0xc\n"
    "vmm.image_write image=1 offset=512 value=0x200\n"
    "vmm.set_xsave image=1\n"
    "vmm.image_write image=2 offset=576 value=0x1234\n"
    "vmm.image_write image=2 offset=512 value=4\n"
    "vmm.set_xsave image=2\n"
    "vmm.get_xsave image=0\n";
constexpr char kPkruSet[] =
    "vmm.image_write image=1 offset=2688 value=0xc\n"
    "vmm.image_write image=1 offset=512 value=0x200\n"
    "vmm.set_xsave image=1\n"
    "vmm.get_xsave image=0\n";
constexpr char kPkruMoved[] =
    "pkru.write value=0x80000000\n"
    "vmm.set_xsave image=0\n"
    "vmm.migrate order=0\n"
    "pkru.read\n";
constexpr char kPkruMovedAccess[] =
    "pkru.write value=2\n"
    "vmm.set_xsave image=0\n"
    "vmm.migrate order=0\n"
    "sse.store xmm=0\n";
constexpr char kPkruWrittenSince[] =
    "pkru.write value=2\n"
    "vmm.set_xsave image=0\n"
    "vmm.migrate order=0\n"
    "pkru.write value=2\n"
    "sse.store xmm=0\n";
constexpr char kPkruReadSince[] =
    "pkru.write value=2\n"
    "vmm.set_xsave image=0\n"
    "vmm.migrate order=0\n"
    "pkru.read\n"
    "sse.store xmm=0\n";
constexpr char kPkruAccess[] =
    "pkru.write value=2\n"
    "vmm.set_xsave image=0\n"
    "sse.store xmm=0\n";
// The header lines are the program's.
constexpr char kGrown[] =
    "features x87+sse\nxcr0 x87+sse\n"
    "vmm.image_write image=0 offset=512 value=2\n"
    "vmm.image_write image=0 offset=160 value=0x77\n"
    "vmm.image_write image=0 offset=176 value=0x99\n"
    "vmm.set_xsave image=0\n"
    "vmm.set_cpuid features=x87+sse+tilecfg+tiledata\n"
    "vmm.get_xsave2 image=1\n";
constexpr char kGrownBefore[] =
    "features x87+sse+tilecfg+tiledata\nxcr0 x87+sse\n"
    "vmm.image_write image=0 offset=512 value=2\n"
    "vmm.image_write image=0 offset=160 value=0x77\n"
    "vmm.image_write image=0 offset=176 value=0x99\n"
    "vmm.set_xsave image=0\n"
    "vmm.set_cpuid features=x87+sse+tilecfg+tiledata\n"
    "vmm.get_xsave2 image=1\n";
constexpr char kPkruMovedWhole[] =
    "pkru.write value=0x80000000\n"
    "vmm.migrate order=0\n"
    "pkru.read\n";
constexpr char kYmmCleared[] =
    "vex.load256 ymm=3 pattern=0x1111\n"
    "evex.load512 reg=3 pattern=0x2222\n"
    "mem.header slot=0 xstate_bv=0 xcomp_bv=0\n"
    "xrstor slot=0 rfbm=avx\n"
    "exit.out\n"
    "vex.store256 ymm=3\n";
constexpr char kYmmClearedTwice[] =
    "evex.load512 reg=3 pattern=0x2222\n"
    "mem.header slot=0 xstate_bv=0 xcomp_bv=0\n"
    "xrstor slot=0 rfbm=avx\n"
    "exit.out\n"
    "vex.load256 ymm=3 pattern=0x1111\n"
    "vex.vzeroupper\n"
    "exit.out\n"
    "vex.store256 ymm=3\n";
constexpr char kXfdThenImage[] =
    "amx.ldtilecfg palette=1 tiles=0xff\n"
    "amx.tileloadd tile=0\n"
    "vmm.set_msr msr=xfd value=tiledata\n"
    "vmm.set_xsave image=0\n"
    "exit.out\n";
constexpr char kXfdOverTiles[] =
    "amx.ldtilecfg palette=1 tiles=0xff\n"
    "amx.tileloadd tile=0\n"
    "vmm.set_msr msr=xfd value=tiledata\n"
    "exit.out\n";
constexpr char kXfdBehindTilerelease[] =
    "amx.ldtilecfg palette=1 tiles=0xff\n"
    "amx.tileloadd tile=0\n"
    "amx.tilerelease\n"
    "vmm.set_msr msr=xfd value=tiledata\n"
    "exit.out\n";
constexpr char kPkruOfGuest[] =
    "vmm.image_write image=1 offset=2688 value=1\n"
    "vmm.image_write image=1 offset=512 value=0x2e7\n"
    "vmm.set_xsave image=1\n"
    "sse.ldmxcsr value=0x1f80\n";
constexpr char kNmInRestore[] =
    "the agent ended with status 3\n"
    "Oops: unexpected #NM exception: 0000 [#1] PREEMPT SMP NOPTI\n"
    "RIP: 0010:restore_fpregs_from_fpstate+0x49/0xa0\n";
constexpr char kNmElsewhere[] =
    "the agent ended with status 3\n"
    "Oops: unexpected #NM exception: 0000 [#1] PREEMPT SMP NOPTI\n"
    "RIP: 0010:save_fpregs_to_fpstate+0x49/0xa0\n";

const Case kCases[] = {
    {"kvm-get-fpu-no-mxcsr", "", "sse.stmxcsr\nvmm.get_fpu\n",
     [](Edit& e, const plan::Plan&) { e.Set(1, 408, uint32_t{0}); }},
    {"kvm-get-fpu-no-mxcsr", "MXCSR is another value than 0", "sse.stmxcsr\nvmm.get_fpu\n",
     [](Edit& e, const plan::Plan&) { e.Set(1, 408, uint32_t{0x1f00}); }},
    {"kvm-get-fpu-no-mxcsr", "FCW is 0 as well", "sse.stmxcsr\nvmm.get_fpu\n",
     [](Edit& e, const plan::Plan&) { e.Set(1, 408, uint32_t{0}).Set(1, 128, uint16_t{0}); }},

    {"kvm-get-fpu-ignores-xstate-bv", "",
     "sse.load xmm=3 pattern=7\nvmm.set_xsave image=0\nvmm.get_fpu\n",
     [](Edit& e, const plan::Plan&) { e.Set(2, 152 + 48, PatternBytes(7, 16)); }},
    {"kvm-get-fpu-ignores-xstate-bv", "XMM3 is old though SSE is in use",
     "sse.load xmm=3 pattern=7\nsse.load xmm=3 pattern=9\nvmm.get_fpu\n",
     [](Edit& e, const plan::Plan&) { e.Set(2, 152 + 48, PatternBytes(7, 16)); }},
    {"kvm-get-fpu-ignores-xstate-bv", "XMM4 shows what XMM3 held",
     "sse.load xmm=3 pattern=7\nvmm.set_xsave image=0\nvmm.get_fpu\n",
     [](Edit& e, const plan::Plan&) { e.Set(2, 152 + 64, PatternBytes(7, 16)); }},

    {"kvm-get-fpu-ignores-xstate-bv", "a KVM_SET_FPU right before has not written XMM3",
     "sse.load xmm=3 pattern=7\nvmm.set_xsave image=0\nvmm.set_fpu pattern=9\nvmm.get_fpu\n",
     [](Edit& e, const plan::Plan&) { e.Set(3, 152 + 48, PatternBytes(7, 16)); }},
    {"kvm-get-fpu-ignores-xstate-bv", "a KVM_SET_FPU right before has written no XMM register",
     "vmm.set_fpu pattern=9\nvmm.get_fpu\n",
     [](Edit& e, const plan::Plan&) { e.Set(1, 152, std::vector<uint8_t>(256)); }},

    {"kvm-get-fpu-no-mxcsr", "0 first, then another value", "vmm.get_fpu\nvmm.get_fpu\n",
     [](Edit& e, const plan::Plan&) {
       e.Set(0, 408, uint32_t{0}).Set(1, 408, uint32_t{0xdeadbeef});
     }},
    {"kvm-get-fpu-ignores-xstate-bv", "strange bytes behind old ones",
     "sse.load xmm=3 pattern=7\nvmm.set_xsave image=0\nvmm.get_fpu\n",
     [](Edit& e, const plan::Plan&) {
       e.Set(2, 152 + 48, PatternBytes(7, 16)).Set(2, 152 + 64, PatternBytes(0x99, 16));
     }},

    {"kvm-get-xsave-pkru-bit", "", kPkruUnset,
     [](Edit& e, const plan::Plan&) { e.XstateBv(4, 0, kPkruBit).Set(4, 2688, uint64_t{0}); }},
    {"kvm-get-xsave-pkru-bit", "the bit is lost though the last image had PKRU", kPkruSet,
     [](Edit& e, const plan::Plan&) { e.XstateBv(3, 0, kPkruBit).Set(3, 2688, uint64_t{0}); }},
    {"kvm-get-xsave-pkru-bit", "the bit is there and the value is another", kPkruUnset,
     [](Edit& e, const plan::Plan&) { e.XstateBv(4, kPkruBit, 0).Set(4, 2688, uint32_t{4}); }},

    {"kvm-get-xsave-pkru-bit", "XMM5 is strange, too", kPkruUnset,
     [](Edit& e, const plan::Plan&) {
       e.XstateBv(4, 0, kPkruBit).Set(4, 2688, uint64_t{0}).Set(4, 160 + 80, PatternBytes(9, 16));
     }},
    {"kvm-get-xsave-pkru-bit", "AVX's bit is lost with it", kPkruUnsetAvx,
     [](Edit& e, const plan::Plan&) {
       e.XstateBv(6, 0, kPkruBit | kAvxBit).Set(6, 2688, uint64_t{0});
     }},

    {"kvm-get-xsave-stale-mxcsr", "", kAvxAlone,
     [](Edit& e, const plan::Plan&) { e.XstateBv(5, kAvxBit, kSseBit).Set(5, 24, uint32_t{0}); }},
    {"kvm-get-xsave-stale-mxcsr", "MXCSR is old though the image has SSE", kAvxAlone,
     [](Edit& e, const plan::Plan&) {
       e.XstateBv(5, kAvxBit | kSseBit, 0).Set(5, 24, uint32_t{0});
     }},
    {"kvm-get-xsave-stale-mxcsr", "XMM1 is old, too", kAvxAlone,
     [](Edit& e, const plan::Plan&) {
       e.XstateBv(5, kAvxBit, kSseBit).Set(5, 160 + 16, PatternBytes(0x3370, 16));
     }},
    {"kvm-get-xsave-stale-mxcsr", "MXCSR is lost with SSE in use",
     "sse.ldmxcsr value=0\nvex.load256 ymm=0 pattern=0x3370\nvmm.get_xsave2 image=0\n",
     [](Edit& e, const plan::Plan&) {
       e.XstateBv(2, kAvxBit, kSseBit).Set(2, 24, uint32_t{0x1f80});
     }},

    {"kvm-get-xsave-mxcsr-left-out", "", kMxcsrLeft,
     [](Edit& e, const plan::Plan&) { e.XstateBv(2, 0, ~0ull).Set(2, 24, uint32_t{0x1f80}); }},
    {"kvm-get-xsave-mxcsr-left-out", "the image has SSE", kMxcsrLeft,
     [](Edit& e, const plan::Plan&) { e.XstateBv(2, kSseBit, 0).Set(2, 24, uint32_t{0x1f80}); }},
    {"kvm-get-xsave-mxcsr-left-out", "another value than the initial one", kMxcsrLeft,
     [](Edit& e, const plan::Plan&) { e.XstateBv(2, 0, ~0ull).Set(2, 24, uint32_t{0x3f80}); }},
    {"kvm-get-xsave-mxcsr-left-out", "XMM1 is not as it was, too", kMxcsrLeft,
     [](Edit& e, const plan::Plan&) {
       e.XstateBv(2, 0, ~0ull).Set(2, 24, uint32_t{0x1f80}).Set(2, 160 + 16, PatternBytes(7, 16));
     }},

    {"kvm-cet-bitmap-base", "", "vmm.set_msr msr=u_cet value=0x2000\n",
     [](Edit& e, const plan::Plan&) { e.Returns(0, 0); }},
    {"kvm-cet-bitmap-base", "the base is a multiple of 16 KiB",
     "vmm.set_msr msr=u_cet value=0x4000\n", [](Edit& e, const plan::Plan&) { e.Returns(0, 0); }},
    {"kvm-cet-bitmap-base", "what is refused is a shadow stack pointer",
     "vmm.set_msr msr=pl0_ssp value=0x2000\n", [](Edit& e, const plan::Plan&) { e.Returns(0, 0); }},

    {"kvm-get-xsave-stale-mxcsr", "and XMM4 is strange behind it", kAvxAlone,
     [](Edit& e, const plan::Plan&) {
       e.XstateBv(5, kAvxBit, kSseBit)
           .Set(5, 24, uint32_t{0})
           .Set(5, 160 + 64, PatternBytes(5, 16));
     }},

    {"getregset-stale-mxcsr", "", kAvxAloneNative,
     [](Edit& e, const plan::Plan&) { e.XstateBv(5, kAvxBit, kSseBit).Set(5, 24, uint32_t{0}); }},
    {"getregset-stale-mxcsr", "MXCSR is old though the image has SSE", kAvxAloneNative,
     [](Edit& e, const plan::Plan&) {
       e.XstateBv(5, kAvxBit | kSseBit, 0).Set(5, 24, uint32_t{0});
     }},

    {"kvm-migration-loses-pkru", "", kPkruMoved,
     [](Edit& e, const plan::Plan&) { e.Set(3, 0, uint32_t{0}); }},
    {"kvm-migration-loses-pkru", "", kPkruMovedAccess,
     [](Edit& e, const plan::Plan&) { e.Succeeds(3, 16); }},
    {"kvm-migration-loses-pkru", "PKRU was written since", kPkruWrittenSince,
     [](Edit& e, const plan::Plan&) { e.Succeeds(4, 16); }},
    {"kvm-migration-loses-pkru", "it was read since, and was there", kPkruReadSince,
     [](Edit& e, const plan::Plan&) { e.Succeeds(4, 16); }},
    {"kvm-migration-loses-pkru", "no migration before the access", kPkruAccess,
     [](Edit& e, const plan::Plan&) { e.Succeeds(2, 16); }},
    {"kvm-set-cpuid-loses-state", "", kGrown,
     [](Edit& e, const plan::Plan&) {
       e.XstateBv(5, 0, kSseBit).Set(5, 160, std::vector<uint8_t>(32));
     }},
    {"kvm-set-cpuid-loses-state", "XMM1 is still there", kGrown,
     [](Edit& e, const plan::Plan&) { e.Set(5, 160, std::vector<uint8_t>(8)); }},
    {"kvm-set-cpuid-loses-state", "there were tiles before", kGrownBefore,
     [](Edit& e, const plan::Plan&) {
       e.XstateBv(5, 0, kSseBit).Set(5, 160, std::vector<uint8_t>(32));
     }},
    {"kvm-migration-loses-pkru", "though KVM_GET_XSAVE had it", kPkruMovedWhole,
     [](Edit& e, const plan::Plan&) { e.Set(2, 0, uint32_t{0}); }},
    {"kvm-migration-loses-pkru", "a value that is not 0 comes back", kPkruMoved,
     [](Edit& e, const plan::Plan&) { e.Set(3, 0, uint32_t{0x55}); }},

    {"kvm-pvm-fxsave-misaligned", "", "fxsave slot=0 at=63\n",
     [](Edit& e, const plan::Plan&) { e.Succeeds(0, 512); }},
    {"kvm-pvm-fxsave-misaligned", "#NM of CR0.TS does not come", "cr0.ts ts=1\nfxsave slot=0\n",
     [](Edit& e, const plan::Plan&) { e.Succeeds(1, 512); }},

    {"kvm-pvm-fxsave-misaligned", "#GP of a reserved MXCSR bit does not come",
     "mem.write slot=0 offset=24 value=0x80000000\nfxrstor slot=0\nsse.stmxcsr\n",
     [](Edit& e, const plan::Plan&) { e.NoFault(1); }},

    {"kvm-pvm-ldmxcsr-ud", "", "sse.ldmxcsr value=0x40dfc0\n",
     [](Edit& e, const plan::Plan& p) { e.Faults(0, 6, RipOf(p, 0)); }},
    {"kvm-pvm-ldmxcsr-ud", "another fault", "sse.ldmxcsr value=0x40dfc0\n",
     [](Edit& e, const plan::Plan& p) { e.Faults(0, 16, RipOf(p, 0)); }},

    {"kvm-pvm-host-xcr0", "", "xcr0 x87+sse\nxgetbv ecx=0\n",
     [](Edit& e, const plan::Plan&) { e.Set(0, 0, uint32_t{judge::kTestComponents}); }},
    {"kvm-pvm-host-xcr0", "neither the guest's nor the host's", "xcr0 x87+sse\nxgetbv ecx=0\n",
     [](Edit& e, const plan::Plan&) { e.Set(0, 0, uint32_t{0x7}); }},

    {"kvm-pvm-ldmxcsr-ud", "#UD first, then another fault",
     "sse.ldmxcsr value=0x40dfc0\nsse.ldmxcsr value=0x40dfc0\n",
     [](Edit& e, const plan::Plan& p) { e.Faults(0, 6, RipOf(p, 0)).Faults(1, 16, RipOf(p, 1)); }},

    {"kvm-set-fpu-lost", "", "vmm.set_fpu pattern=0xf307 fcw=0x37f mxcsr=0x1f80\nsse.store xmm=0\n",
     [](Edit& e, const plan::Plan&) { e.Set(1, 0, std::vector<uint8_t>(16)); }},
    {"kvm-set-fpu-lost", "half of XMM0 alone",
     "vmm.set_fpu pattern=0xf307 fcw=0x37f mxcsr=0x1f80\nsse.store xmm=0\n",
     [](Edit& e, const plan::Plan&) { e.Set(1, 8, uint64_t{0}); }},

    {"kvm-set-fpu-no-mxcsr", "",
     "sse.load xmm=3 pattern=0x77\nvmm.set_fpu pattern=0xf307 fcw=0x37f "
     "mxcsr=0x9fc0\nsse.stmxcsr\n",
     [](Edit& e, const plan::Plan&) { e.Set(2, 0, uint32_t{0x1f80}); }},
    {"kvm-set-fpu-no-mxcsr", "MXCSR is a third value",
     "sse.load xmm=3 pattern=0x77\nvmm.set_fpu pattern=0xf307 fcw=0x37f "
     "mxcsr=0x9fc0\nsse.stmxcsr\n",
     [](Edit& e, const plan::Plan&) { e.Set(2, 0, uint32_t{0x5f80}); }},

    {"amd-avx-initial-under-zmm", "", kYmmCleared,
     [](Edit& e, const plan::Plan&) { e.Set(5, 16, HighHalf(0x1111)); }},
    {"amd-avx-initial-under-zmm", "bytes that nobody is known to have had", kYmmCleared,
     [](Edit& e, const plan::Plan&) { e.Set(5, 16, HighHalf(0x5678)); }},
    {"amd-avx-initial-under-zmm", "XMM3 is old, too", kYmmCleared,
     [](Edit& e, const plan::Plan&) { e.Set(5, 0, PatternBytes(0x1111, 32)); }},

    {"amd-avx-initial-under-zmm", "behind VZEROUPPER, which clears all of them", kYmmClearedTwice,
     [](Edit& e, const plan::Plan&) { e.Set(7, 16, HighHalf(0x1111)); }},

    {"kvm-set-msr-xfd-host-nm", "", kXfdOverTiles,
     [](Edit& e, const plan::Plan&) { e.Dies(kNmInRestore); }},
    {"kvm-set-msr-xfd-host-nm", "tiles were initial", kXfdBehindTilerelease,
     [](Edit& e, const plan::Plan&) { e.Dies(kNmInRestore); }},
    {"kvm-set-msr-xfd-host-nm", "an image has made tiles initial since", kXfdThenImage,
     [](Edit& e, const plan::Plan&) { e.Dies(kNmInRestore); }},
    {"kvm-set-msr-xfd-host-nm", "in another function", kXfdOverTiles,
     [](Edit& e, const plan::Plan&) { e.Dies(kNmElsewhere); }},

    {"kvm-pvm-host-pke", "", kPkruOfGuest,
     [](Edit& e, const plan::Plan& p) { e.Faults(3, 14, RipOf(p, 3), 0x25, plan::kLiteralBase); }},
    {"kvm-pvm-host-pke", "the fault is no protection key's", kPkruOfGuest,
     [](Edit& e, const plan::Plan& p) { e.Faults(3, 14, RipOf(p, 3), 0x5, plan::kLiteralBase); }},
};

class NearMiss : public testing::TestWithParam<Case> {};

// Runs it in a perfect vCPU and changes what was seen.
TEST_P(NearMiss, IsKnownOrNewAsItShould) {
  const Case& c = GetParam();
  const auto known = LoadKnown(FPSWAP_SOURCE_DIR "/corpus/known");
  ASSERT_TRUE(known) << known.error();
  const trace::Platform platform = PlatformOf(c.entry);
  const plan::Plan plan = judge::PlanOf(c.steps, platform);
  program::Rng rng(1);
  Edit edit(judge::Simulator(platform).Run(plan, rng));
  c.edit(edit, plan);
  const judge::Verdict verdict = judge::Judge(platform).Check(plan, edit.records());
  ASSERT_FALSE(verdict.ok()) << "nothing is seen of it";
  const Sorted sorted = Sort(verdict, platform, *known);
  if (*c.what != '\0') {
    EXPECT_TRUE(sorted.first_new) << "known as " << sorted.known[0]->name << ": "
                                  << judge::Told(verdict);
    return;
  }
  EXPECT_FALSE(sorted.first_new) << judge::Told(verdict);
  ASSERT_FALSE(sorted.known.empty());
  EXPECT_EQ(sorted.known[0]->name, c.entry);
}

INSTANTIATE_TEST_SUITE_P(Known, NearMiss, testing::ValuesIn(kCases));

TEST(NearMisses, EveryEntryHasSome) {
  const auto known = LoadKnown(FPSWAP_SOURCE_DIR "/corpus/known");
  ASSERT_TRUE(known) << known.error();
  for (const Known& entry : *known) {
    const auto of = [&](bool near) {
      return std::ranges::count_if(kCases, [&](const Case& c) {
        return entry.name == c.entry && (*c.what != '\0') == near;
      });
    };
    EXPECT_GE(of(false), 1) << entry.name << ": the defect itself";
    EXPECT_GE(of(true), 1) << entry.name << ": a near miss";
  }
}

}  // namespace
}  // namespace fpswap::triage
