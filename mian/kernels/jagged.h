// Where the real positions of histories lie.

#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <tuple>

namespace mian {

// lengths int64 (B,), each at most `longest`. Gives int64: the offsets (B + 1,), and of each of the P real positions its place among all
// B * longest, its sample, and its number in the history.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> pack(const at::Tensor& lengths, int64_t longest) {
  const int64_t B = lengths.numel();
  const int64_t* length = lengths.const_data_ptr<int64_t>();
  auto offsets = at::empty({B + 1}, lengths.options());
  int64_t* offset = offsets.mutable_data_ptr<int64_t>();
  offset[0] = 0;
  for (int64_t b = 0; b < B; b++) offset[b + 1] = offset[b] + length[b];
  auto places = at::empty({offset[B]}, lengths.options()), samples = at::empty_like(places), steps = at::empty_like(places);
  int64_t* place = places.mutable_data_ptr<int64_t>();
  int64_t* sample = samples.mutable_data_ptr<int64_t>();
  int64_t* step = steps.mutable_data_ptr<int64_t>();
  for (int64_t b = 0; b < B; b++) {
    for (int64_t t = 0; t < length[b]; t++, place++, sample++, step++) {
      *place = b * longest + t;
      *sample = b;
      *step = t;
    }
  }
  return {offsets, places, samples, steps};
}

}  // namespace mian
