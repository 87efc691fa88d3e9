// Dropout whose entries are computed from a seed and their places, on all threads.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdint>

#include "mian/kernels/cpu.h"

namespace mian {

// Mixes all bits of a number into each (Wellons' lowbias32).
INLINE uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352dU;
  x ^= x >> 15;
  x *= 0x846ca68bU;
  x ^= x >> 16;
  return x;
}

FOR_EACH_CPU
void drop(const float* x, float* kept, int64_t first, int64_t last, uint64_t seed, double probability) {
  const uint32_t before = static_cast<uint32_t>(seed), after = static_cast<uint32_t>(seed >> 32);
  const uint32_t threshold = static_cast<uint32_t>(probability * 4294967296.0);
  const float scale = static_cast<float>(1.0 / (1.0 - probability));
  for (int64_t i = first; i < last; i++) {
    const uint32_t drawn = mixed(mixed(static_cast<uint32_t>(i) ^ before) + after);
    kept[i] = x[i] * (drawn >= threshold ? scale : 0.0f);  // a product for each, dropped or not, so that there is no branch
  }
}

// Each entry is 0 with the probability, else scaled up; which ones, the seed and the entry's place say. Its own way back.
at::Tensor dropout(const at::Tensor& x, double probability, int64_t seed) {
  auto kept = at::empty_like(x);
  at::parallel_for(0, x.numel(), 16384, [&](int64_t first, int64_t last) {
    drop(x.const_data_ptr<float>(), kept.mutable_data_ptr<float>(), first, last, static_cast<uint64_t>(seed), probability);
  });
  return kept;
}

}  // namespace mian
