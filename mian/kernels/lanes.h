// Floats side by side in a register.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "mian/kernels/cpu.h"

// Defines `name` by the template `name##_by`, whose L says how many floats a register of the processor holds. Wider vectors than that the
// compiler takes apart, some operations into single floats.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_REGISTER(name, parameters, arguments)                                        \
  __attribute__((target("arch=x86-64-v4"))) void name parameters { name##_by<16> arguments; } \
  __attribute__((target("arch=x86-64-v3"))) void name parameters { name##_by<8> arguments; }  \
  __attribute__((target("default"))) void name parameters { name##_by<4> arguments; }
#else
#define FOR_EACH_REGISTER(name, parameters, arguments) \
  void name parameters { name##_by<4> arguments; }
#endif

namespace mian {

// L floats side by side.
template <int64_t L>
struct Vectors {
  typedef float Lanes __attribute__((vector_size(L * sizeof(float))));
  typedef int32_t IntLanes __attribute__((vector_size(L * sizeof(int32_t))));
};
template <int64_t L>
using Lanes = typename Vectors<L>::Lanes;

constexpr int64_t MOST_LANES = 16;
using Scratch = std::unique_ptr<float[], decltype(&std::free)>;

// For so many vectors of any L.
Scratch scratch(int64_t vectors) {
  constexpr size_t bytes = MOST_LANES * sizeof(float);
  return Scratch(static_cast<float*>(std::aligned_alloc(bytes, vectors * bytes)), &std::free);
}

// e^x to 2 units in the last place, for x <= 0: 2^n times a polynomial (Cephes, expf). Lanes that no one reads may hold more.
template <int64_t L>
INLINE Lanes<L> exp_lanes(Lanes<L> x) {
  using IntLanes = typename Vectors<L>::IntLanes;
  const Lanes<L> lowest = Lanes<L>{} - 87.0f;
  x = x < lowest ? lowest : x;
  const Lanes<L> shifted = x * 1.44269504088896341f + 12582912.0f;  // adding 1.5 * 2^23 rounds to a whole number, kept in the low bits
  const Lanes<L> n = shifted - 12582912.0f;
  const Lanes<L> r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Lanes<L> y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + (r + 1.0f);
  const IntLanes exponent = (reinterpret_cast<IntLanes>(shifted) - 0x4B400000 + 127) << 23;
  return y * reinterpret_cast<Lanes<L>>(exponent);
}

}  // namespace mian
