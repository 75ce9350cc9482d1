// SPDX-License-Identifier: GPL-2.0-or-later
//
// What an agent saw: a flat sequence of records, the byte form of observations.
//
//   record: u8 kind, u8 vcpu, u16 step, u32 length, then `length` bytes
//
// Depends on the standard library only: agents include it.
#pragma once

#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <vector>

namespace fpswap::trace {

enum class RecordKind : uint8_t {
  kJournal = 1,    // bytes of a completed guest step's journal place
  kFault = 2,      // FaultRecord: the step took an exception
  kExit = 3,       // ExitRecord: a KVM_RUN came back for a step
  kIoctl = 4,      // IoctlRecord, then the data a GET gave
  kHost = 5,       // HostRecord: a host step was done
  kCanary = 6,     // CanaryRecord + bytes: the VMM's own registers changed across a KVM_RUN
  kEnd = 7,        // EndRecord: last record of every program
  kKernelLog = 8,  // text: what the kernel logged meanwhile, if it has complained (kernel_log.h)
};

// All little-endian, packed by hand below in this order.
struct FaultRecord {
  uint8_t vector;
  uint8_t pad[3];
  uint32_t error_code;
  uint64_t rip;
  uint64_t address;  // CR2 of a #PF
};

struct ExitRecord {
  uint32_t reason;    // KVM_EXIT_*
  uint32_t suberror;  // KVM_EXIT_INTERNAL_ERROR, FAIL_ENTRY's reason
  uint64_t where;     // port, physical address, MSR
  uint64_t data;      // what the guest wrote, low 8 bytes
  uint8_t size;       // bytes of access
  uint8_t is_write;
  uint8_t pad[6];
};

// Followed by what plan/vmm.h says for the step.
struct IoctlRecord {
  int32_t result;  // the ioctl's return value
  int32_t error;   // errno, 0 if it succeeded
};

struct HostRecord {
  // kHostCpu: the CPU now run on; kHostSignal: 1 if KVM_RUN saw EINTR; kHostPreempt: 1 if the other
  // thread ran between the last look before KVM_RUN and the first behind it (best effort: timing
  // is the machine's); kHostFork: errno that the child's ioctls gave, 0 if one succeeded;
  // kHostOnline: 0, or -1.
  int32_t result;
  int32_t error;
};

// Followed by the bytes of XSAVE (standard format) set before and seen after, of the same length.
struct CanaryRecord {
  uint64_t components;  // those that differ
};

enum class EndReason : uint8_t {
  kDone = 0,
  kHang = 1,         // stopped at the time limit, twice; `step` is the last one known
  kVcpuDead = 2,     // KVM_EXIT_INTERNAL_ERROR, SHUTDOWN, FAIL_ENTRY or a KVM_RUN error
  kSetupFailed = 3,  // the vCPU could not be brought to its starting state; text follows
  kAgentDied = 4,    // written by the harness
};
struct EndRecord {
  uint8_t reason;
  uint8_t hangs;  // how often the program was stopped at its time limit and begun again
  uint8_t pad[2];
  int32_t error;  // errno where there was one
  uint64_t micros;
};

struct RecordView {
  RecordKind kind;
  uint8_t vcpu;
  uint16_t step;
  std::span<const uint8_t> bytes;
};

inline constexpr size_t kRecordHeader = 8;
inline constexpr size_t kMaxKernelLog = 64u << 10;  // bytes of one program's
inline constexpr size_t kMaxRecordsBytes = 8u << 20;

void AppendRecord(std::vector<uint8_t>& out, RecordKind kind, uint8_t vcpu, uint16_t step,
                  std::span<const uint8_t> head, std::span<const uint8_t> tail = {});

// Steps through the records in `bytes`. Total.
class RecordReader {
 public:
  explicit RecordReader(std::span<const uint8_t> bytes) : rest_(bytes) {}
  // False at the end or at malformed bytes (see `malformed`).
  bool Next(RecordView& out);
  bool malformed() const { return malformed_; }

 private:
  std::span<const uint8_t> rest_;
  bool malformed_ = false;
};

// Reads a fixed struct from the front of a record's bytes; false if too short.
template <typename T>
bool ReadHead(std::span<const uint8_t> bytes, T& out) {
  if (bytes.size() < sizeof(T)) return false;
  __builtin_memcpy(&out, bytes.data(), sizeof(T));
  return true;
}

}  // namespace fpswap::trace
