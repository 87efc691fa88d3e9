// What the compiled operators share. All tensors are contiguous and on the CPU. Where work is shared out it is on torch's own threads, and no
// result depends on their number.

#pragma once

#include <cstdint>

// Compiled for several generations of processors; the loader takes the best that this one has.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif
#define INLINE inline __attribute__((always_inline))

// Samples of a task, so that a task is worth handing to a thread.
constexpr int64_t SAMPLES_PER_TASK = 16;
