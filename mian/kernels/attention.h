// Multi-head self-attention over histories that lie packed: those of all samples one after the other, no padding.
//
// Sample b's positions are offsets[b] to offsets[b + 1]. Tensors are float32, offsets int64.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <tuple>

#include "mian/kernels/cpu.h"

namespace mian {

constexpr int64_t LANES = 16;
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t IntLanes __attribute__((vector_size(LANES * sizeof(int32_t))));

using Scratch = std::unique_ptr<Lanes[], decltype(&std::free)>;

Scratch scratch(int64_t lanes) {
  return Scratch(static_cast<Lanes*>(std::aligned_alloc(sizeof(Lanes), lanes * sizeof(Lanes))), &std::free);
}

// e^x to 2 units in the last place, for x <= 0: 2^n times a polynomial (Cephes, expf). Lanes that no one reads may hold more.
INLINE Lanes exp_lanes(Lanes x) {
  const Lanes lowest = Lanes{} - 87.0f;
  x = x < lowest ? lowest : x;
  const Lanes shifted = x * 1.44269504088896341f + 12582912.0f;  // adding 1.5 * 2^23 rounds to a whole number, kept in the low bits
  const Lanes n = shifted - 12582912.0f;
  const Lanes r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Lanes y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + (r + 1.0f);
  const IntLanes exponent = (reinterpret_cast<IntLanes>(shifted) - 0x4B400000 + 127) << 23;
  return y * reinterpret_cast<Lanes>(exponent);
}

INLINE Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }

// One head of one sample: T positions. Its queries, keys and values lie `joined` floats apart, those of the next position `row` further.
struct Head {
  const float* query;
  int64_t T, row, joined, heads, width;
  float scale;

  const float* key(int64_t position) const { return query + position * row + joined; }
  const float* value(int64_t position) const { return key(position) + joined; }
};

// Vectors of LANES positions from `first` on, turned so that positions lie along the lanes; 0 behind the last of T.
template <int64_t W>
INLINE void turn(const float* vectors, int64_t step, int64_t width, int64_t first, int64_t T, float scale, Lanes* turned) {
  for (int64_t c = 0; c < (W ? W : width); c++) turned[c] = Lanes{};
  const int64_t count = T - first < LANES ? T - first : LANES;
  for (int64_t lane = 0; lane < count; lane++) {
    for (int64_t c = 0; c < (W ? W : width); c++) {
      reinterpret_cast<float*>(turned)[c * LANES + lane] = vectors[(first + lane) * step + c] * scale;
    }
  }
}

template <int64_t W>
INLINE void turn_back(const Lanes* turned, int64_t step, int64_t width, int64_t first, int64_t T, float* vectors) {
  const int64_t count = T - first < LANES ? T - first : LANES;
  for (int64_t lane = 0; lane < count; lane++) {
    for (int64_t c = 0; c < (W ? W : width); c++) {
      vectors[(first + lane) * step + c] = reinterpret_cast<const float*>(turned)[c * LANES + lane];
    }
  }
}

template <int64_t W>
INLINE Lanes dot(const Lanes* turned, const float* vector, int64_t width) {
  Lanes sum = turned[0] * vector[0];
  for (int64_t c = 1; c < (W ? W : width); c++) sum += turned[c] * vector[c];
  return sum;
}

// W is the head's width where it is known to the compiler, else 0. Queries lie along the lanes, so that nothing is added up across them.
// `tops` and `inverses` keep each query's highest score and 1 over its softmax's sum, for the way back.
template <int64_t W>
INLINE void attend(const Head& head, float* output, float* tops, float* inverses, Lanes* memory) {
  const int64_t width = W ? W : head.width;
  Lanes registers[W ? 2 * W : 1];
  Lanes* queries = W ? registers : memory;
  Lanes* mixed = queries + width;
  Lanes* __restrict__ scores = memory + 2 * width;
  for (int64_t first = 0; first < head.T; first += LANES) {
    turn<W>(head.query, head.row, width, first, head.T, head.scale, queries);
    Lanes top = scores[0] = dot<W>(queries, head.key(0), width);
    for (int64_t j = 1; j < head.T; j++) top = larger(top, scores[j] = dot<W>(queries, head.key(j), width));
    Lanes sum = Lanes{};
    for (int64_t c = 0; c < width; c++) mixed[c] = Lanes{};
    for (int64_t j = 0; j < head.T; j++) {
      const Lanes weight = exp_lanes(scores[j] - top);
      sum += weight;
      for (int64_t c = 0; c < width; c++) mixed[c] += weight * head.value(j)[c];
    }
    const Lanes inverse = 1.0f / sum;
    for (int64_t c = 0; c < width; c++) mixed[c] *= inverse;
    turn_back<W>(mixed, head.joined, width, first, head.T, output);
    turn_back<1>(&top, head.heads, 1, first, head.T, tops);
    turn_back<1>(&inverse, head.heads, 1, first, head.T, inverses);
  }
}

template <int64_t W>
INLINE void attend_backward(
    const Head& head, const float* output, const float* tops, const float* inverses, const float* grad_output, float* grad,
    Lanes* memory) {
  const int64_t width = W ? W : head.width;
  Lanes registers[W ? 4 * W : 1];
  Lanes* one = W ? registers : memory;  // queries, then keys
  Lanes* other = one + width;  // the output's gradient, then values
  Lanes* grad_one = other + width;
  Lanes* grad_other = grad_one + width;
  float* __restrict__ along = reinterpret_cast<float*>(memory + 4 * width);  // of each query: its output times the output's gradient

  for (int64_t first = 0; first < head.T; first += LANES) {  // gradients of queries, which lie along the lanes
    turn<W>(head.query, head.row, width, first, head.T, head.scale, one);
    turn<W>(grad_output, head.joined, width, first, head.T, 1.0f, other);
    turn<W>(output, head.joined, width, first, head.T, 1.0f, grad_one);
    Lanes top, inverse, projected = Lanes{};
    for (int64_t c = 0; c < width; c++) projected += grad_one[c] * other[c];
    turn<1>(tops, head.heads, 1, first, head.T, 1.0f, &top);
    turn<1>(inverses, head.heads, 1, first, head.T, 1.0f, &inverse);
    turn_back<1>(&projected, 1, 1, first, head.T, along);
    for (int64_t c = 0; c < width; c++) grad_one[c] = Lanes{};
    for (int64_t j = 0; j < head.T; j++) {
      const Lanes weight = exp_lanes(dot<W>(one, head.key(j), width) - top) * inverse;
      const Lanes grad_score = weight * (dot<W>(other, head.value(j), width) - projected) * head.scale;
      for (int64_t c = 0; c < width; c++) grad_one[c] += grad_score * head.key(j)[c];
    }
    turn_back<W>(grad_one, head.row, width, first, head.T, grad);
  }
  for (int64_t first = 0; first < head.T; first += LANES) {  // gradients of keys and values, which lie along the lanes
    turn<W>(head.key(0), head.row, width, first, head.T, head.scale, one);
    turn<W>(head.value(0), head.row, width, first, head.T, 1.0f, other);
    for (int64_t c = 0; c < width; c++) grad_one[c] = grad_other[c] = Lanes{};
    for (int64_t i = 0; i < head.T; i++) {
      const float* query = head.query + i * head.row;
      const float* grad_o = grad_output + i * head.joined;
      const Lanes weight = exp_lanes(dot<W>(one, query, width) - tops[i * head.heads]) * inverses[i * head.heads];
      const Lanes grad_score = weight * (dot<W>(other, grad_o, width) - along[i]) * head.scale;
      for (int64_t c = 0; c < width; c++) {
        grad_one[c] += grad_score * query[c];
        grad_other[c] += weight * grad_o[c];
      }
    }
    turn_back<W>(grad_one, head.row, width, first, head.T, grad + head.joined);
    turn_back<W>(grad_other, head.row, width, first, head.T, grad + 2 * head.joined);
  }
}

struct Attention {
  const float* query_key_value;
  const int64_t* offsets;
  int64_t heads, width;
  float* output;
  float* tops;
  float* inverses;
};

INLINE Head head_of(const Attention& of, int64_t sample, int64_t h) {
  const int64_t start = of.offsets[sample], T = of.offsets[sample + 1] - start, joined = of.heads * of.width;
  const float scale = 1.0f / std::sqrt(static_cast<float>(of.width));
  return {of.query_key_value + start * 3 * joined + h * of.width, T, 3 * joined, joined, of.heads, of.width, scale};
}

FOR_EACH_CPU
void attend_samples(const Attention& of, int64_t first, int64_t last, Lanes* memory) {
  for (int64_t sample = first; sample < last; sample++) {
    for (int64_t h = 0; h < of.heads; h++) {
      const Head head = head_of(of, sample, h);
      float* output = of.output + of.offsets[sample] * head.joined + h * of.width;
      const int64_t at = of.offsets[sample] * of.heads + h;
      switch (head.width) {
        case 4: attend<4>(head, output, of.tops + at, of.inverses + at, memory); break;
        case 8: attend<8>(head, output, of.tops + at, of.inverses + at, memory); break;
        default: attend<0>(head, output, of.tops + at, of.inverses + at, memory);
      }
    }
  }
}

FOR_EACH_CPU
void attend_samples_backward(
    const Attention& of, const float* grad_outputs, float* grads, int64_t first, int64_t last, Lanes* memory) {
  for (int64_t sample = first; sample < last; sample++) {
    for (int64_t h = 0; h < of.heads; h++) {
      const Head head = head_of(of, sample, h);
      const int64_t start = of.offsets[sample], at = start * of.heads + h;
      const float* output = of.output + start * head.joined + h * of.width;
      const float* grad_output = grad_outputs + start * head.joined + h * of.width;
      float* grad = grads + start * head.row + h * of.width;
      switch (head.width) {
        case 4: attend_backward<4>(head, output, of.tops + at, of.inverses + at, grad_output, grad, memory); break;
        case 8: attend_backward<8>(head, output, of.tops + at, of.inverses + at, grad_output, grad, memory); break;
        default: attend_backward<0>(head, output, of.tops + at, of.inverses + at, grad_output, grad, memory);
      }
    }
  }
}

int64_t longest_of(const int64_t* offsets, int64_t samples) {
  int64_t longest = 0;
  for (int64_t b = 0; b < samples; b++) longest = std::max(longest, offsets[b + 1] - offsets[b]);
  return longest;
}

// query_key_value (P, 3 * heads * width): all heads' queries, then their keys, then their values.
// Gives (P, heads * width), and for the way back the highest scores and the inverses of the softmax's sums, (P, heads) each.
std::tuple<at::Tensor, at::Tensor, at::Tensor> attention(
    const at::Tensor& query_key_value, const at::Tensor& offsets, int64_t heads) {
  const int64_t P = query_key_value.size(0), joined = query_key_value.size(1) / 3, samples = offsets.numel() - 1;
  auto output = at::empty({P, joined}, query_key_value.options());
  auto tops = at::empty({P, heads}, query_key_value.options());
  auto inverses = at::empty({P, heads}, query_key_value.options());
  const Attention of{
      query_key_value.const_data_ptr<float>(), offsets.const_data_ptr<int64_t>(), heads, joined / heads,
      output.mutable_data_ptr<float>(), tops.mutable_data_ptr<float>(), inverses.mutable_data_ptr<float>()};
  const int64_t longest = longest_of(of.offsets, samples);
  at::parallel_for(0, samples, SAMPLES_PER_TASK, [&](int64_t first, int64_t last) {
    const Scratch memory = scratch(2 * of.width + longest);
    attend_samples(of, first, last, memory.get());
  });
  return {output, tops, inverses};
}

at::Tensor attention_backward(
    const at::Tensor& grad_output, const at::Tensor& query_key_value, const at::Tensor& offsets, const at::Tensor& output,
    const at::Tensor& tops, const at::Tensor& inverses, int64_t heads) {
  const int64_t joined = query_key_value.size(1) / 3, samples = offsets.numel() - 1;
  auto grad = at::empty_like(query_key_value);
  const Attention of{
      query_key_value.const_data_ptr<float>(), offsets.const_data_ptr<int64_t>(), heads, joined / heads,
      const_cast<float*>(output.const_data_ptr<float>()), const_cast<float*>(tops.const_data_ptr<float>()),
      const_cast<float*>(inverses.const_data_ptr<float>())};
  const int64_t longest = longest_of(of.offsets, samples);
  at::parallel_for(0, samples, SAMPLES_PER_TASK, [&](int64_t first, int64_t last) {
    const Scratch memory = scratch(4 * of.width + (longest + LANES - 1) / LANES);
    attend_samples_backward(
        of, grad_output.const_data_ptr<float>(), grad.mutable_data_ptr<float>(), first, last, memory.get());
  });
  return grad;
}

}  // namespace mian
