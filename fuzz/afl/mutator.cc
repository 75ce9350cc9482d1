// SPDX-License-Identifier: GPL-2.0-or-later
//
// Our mutator as AFL++ loads it: programs are mutated, crossed and trimmed as programs.
//
// Thread safety: as afl-fuzz calls it, from one thread.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "fuzz/afl/step_trimmer.h"
#include "harness/campaign/platforms.h"
#include "harness/campaign/worker.h"
#include "harness/files/files.h"
#include "harness/program/breed.h"
#include "harness/program/codec.h"
#include "harness/trace/trace.h"

namespace {

using namespace fpswap;
using Bytes = std::vector<uint8_t>;

struct Mutator {
  explicit Mutator(uint64_t seed) : rng(seed) {}
  program::Rng rng;
  bool asked = false;  // for the platform, which the target has written before the first mutation
  trace::Platform platform;
  program::Profile profile;
  Bytes out;
  std::optional<fuzz::StepTrimmer> trimmer;

  void AskForPlatform() {
    if (std::exchange(asked, true)) return;
    const char* path = std::getenv(campaign::kAflPlatformVariable);
    const auto text = files::ReadFile(path == nullptr ? "" : path, 16u << 20);
    const auto read =
        text ? trace::PlatformFromJson(*text)
             : std::expected<trace::Platform, std::string>(std::unexpected(text.error()));
    if (!read) return;  // what is drawn for no platform is only trimmed more
    platform = *read;
    profile = campaign::ProfileFor(platform);
  }
};

}  // namespace

extern "C" {

void* afl_custom_init(void* /*afl*/, unsigned seed) { return new Mutator(seed); }
void afl_custom_deinit(void* data) { delete static_cast<Mutator*>(data); }

size_t afl_custom_fuzz(void* data, uint8_t* bytes, size_t size, uint8_t** out, uint8_t* other,
                       size_t other_size, size_t limit) {
  Mutator& m = *static_cast<Mutator*>(data);
  m.AskForPlatform();
  limit = std::min(limit, program::kMaxEncodedSize);
  // As often as the plain engine crosses.
  const bool cross = other != nullptr && other_size > 0 && m.rng.OneIn(8);
  m.out = cross ? program::CrossEncoded({bytes, size}, {other, other_size}, m.rng, limit)
                : program::MutateEncoded({bytes, size}, m.rng, m.profile, limit);
  *out = m.out.data();
  return m.out.size();
}

// How many rounds there are: one, which ends when nothing more can be left out.
int32_t afl_custom_init_trim(void* data, uint8_t* bytes, size_t size) {
  Mutator& m = *static_cast<Mutator*>(data);
  m.trimmer.emplace(program::Decode({bytes, size}));
  // Bytes that mean less than their canonical form is long can't become shorter.
  return m.trimmer->Done() || m.trimmer->Try().size() > size ? 0 : 1;
}

size_t afl_custom_trim(void* data, uint8_t** out) {
  Mutator& m = *static_cast<Mutator*>(data);
  m.out = m.trimmer->Try();
  *out = m.out.data();
  return m.out.size();
}

int32_t afl_custom_post_trim(void* data, uint8_t success) {
  Mutator& m = *static_cast<Mutator*>(data);
  m.trimmer->Tell(success != 0);
  return m.trimmer->Done() ? 1 : 0;
}

}  // extern "C"
