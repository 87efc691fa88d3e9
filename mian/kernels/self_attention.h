// Multi-head self-attention over histories that lie packed: those of all samples one after the other, no padding.
//
// Sample b's positions are offsets[b] to offsets[b + 1]. Tensors are float32, offsets int64.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdint>
#include <tuple>

#include "mian/kernels/cpu.h"
#include "mian/kernels/lanes.h"

namespace mian {

template <int64_t L>
INLINE Lanes<L> larger(Lanes<L> a, Lanes<L> b) {
  return a > b ? a : b;
}

// One head of one sample: T positions. Its queries, keys and values lie `joined` floats apart, those of the next position `row` further.
struct Head {
  const float* query;
  int64_t T, row, joined, heads, width;
  float scale;

  const float* key(int64_t position) const { return query + position * row + joined; }
  const float* value(int64_t position) const { return key(position) + joined; }
};

// Vectors of L positions from `first` on, turned so that positions lie along the lanes; 0 behind the last of T.
template <int64_t L, int64_t W>
INLINE void turn(const float* vectors, int64_t step, int64_t width, int64_t first, int64_t T, float scale, Lanes<L>* turned) {
  for (int64_t c = 0; c < (W ? W : width); c++) turned[c] = Lanes<L>{};
  const int64_t count = T - first < L ? T - first : L;
  for (int64_t lane = 0; lane < count; lane++) {
    for (int64_t c = 0; c < (W ? W : width); c++) {
      reinterpret_cast<float*>(turned)[c * L + lane] = vectors[(first + lane) * step + c] * scale;
    }
  }
}

template <int64_t L, int64_t W>
INLINE void turn_back(const Lanes<L>* turned, int64_t step, int64_t width, int64_t first, int64_t T, float* vectors) {
  const int64_t count = T - first < L ? T - first : L;
  for (int64_t lane = 0; lane < count; lane++) {
    for (int64_t c = 0; c < (W ? W : width); c++) {
      vectors[(first + lane) * step + c] = reinterpret_cast<const float*>(turned)[c * L + lane];
    }
  }
}

template <int64_t L, int64_t W>
INLINE Lanes<L> dot(const Lanes<L>* turned, const float* vector, int64_t width) {
  Lanes<L> sum = turned[0] * vector[0];
  for (int64_t c = 1; c < (W ? W : width); c++) sum += turned[c] * vector[c];
  return sum;
}

// W is the head's width where it is known to the compiler, else 0. Queries lie along the lanes, so that nothing is added up across them.
// `tops` and `inverses` keep each query's highest score and 1 over its softmax's sum, for the way back.
template <int64_t L, int64_t W>
INLINE void attend(const Head& head, float* output, float* tops, float* inverses, float* memory) {
  const int64_t width = W ? W : head.width;
  Lanes<L> registers[W ? 2 * W : 1];
  Lanes<L>* queries = W ? registers : reinterpret_cast<Lanes<L>*>(memory);
  Lanes<L>* mixed = queries + width;
  Lanes<L>* __restrict__ scores = reinterpret_cast<Lanes<L>*>(memory) + 2 * width;
  for (int64_t first = 0; first < head.T; first += L) {
    turn<L, W>(head.query, head.row, width, first, head.T, head.scale, queries);
    Lanes<L> top = scores[0] = dot<L, W>(queries, head.key(0), width);
    for (int64_t j = 1; j < head.T; j++) top = larger<L>(top, scores[j] = dot<L, W>(queries, head.key(j), width));
    Lanes<L> sum = Lanes<L>{};
    for (int64_t c = 0; c < width; c++) mixed[c] = Lanes<L>{};
    for (int64_t j = 0; j < head.T; j++) {
      const Lanes<L> weight = exp_lanes<L>(scores[j] - top);
      sum += weight;
      for (int64_t c = 0; c < width; c++) mixed[c] += weight * head.value(j)[c];
    }
    const Lanes<L> inverse = 1.0f / sum;
    for (int64_t c = 0; c < width; c++) mixed[c] *= inverse;
    turn_back<L, W>(mixed, head.joined, width, first, head.T, output);
    turn_back<L, 1>(&top, head.heads, 1, first, head.T, tops);
    turn_back<L, 1>(&inverse, head.heads, 1, first, head.T, inverses);
  }
}

template <int64_t L, int64_t W>
INLINE void attend_backward(
    const Head& head, const float* output, const float* tops, const float* inverses, const float* grad_output, float* grad,
    float* memory) {
  const int64_t width = W ? W : head.width;
  Lanes<L> registers[W ? 4 * W : 1];
  Lanes<L>* one = W ? registers : reinterpret_cast<Lanes<L>*>(memory);  // queries, then keys
  Lanes<L>* other = one + width;  // the output's gradient, then values
  Lanes<L>* grad_one = other + width;
  Lanes<L>* grad_other = grad_one + width;
  float* __restrict__ along = memory + 4 * width * L;  // of each query: its output times the output's gradient

  for (int64_t first = 0; first < head.T; first += L) {  // gradients of queries, which lie along the lanes
    turn<L, W>(head.query, head.row, width, first, head.T, head.scale, one);
    turn<L, W>(grad_output, head.joined, width, first, head.T, 1.0f, other);
    turn<L, W>(output, head.joined, width, first, head.T, 1.0f, grad_one);
    Lanes<L> top, inverse, projected = Lanes<L>{};
    for (int64_t c = 0; c < width; c++) projected += grad_one[c] * other[c];
    turn<L, 1>(tops, head.heads, 1, first, head.T, 1.0f, &top);
    turn<L, 1>(inverses, head.heads, 1, first, head.T, 1.0f, &inverse);
    turn_back<L, 1>(&projected, 1, 1, first, head.T, along);
    for (int64_t c = 0; c < width; c++) grad_one[c] = Lanes<L>{};
    for (int64_t j = 0; j < head.T; j++) {
      const Lanes<L> weight = exp_lanes<L>(dot<L, W>(one, head.key(j), width) - top) * inverse;
      const Lanes<L> grad_score = weight * (dot<L, W>(other, head.value(j), width) - projected) * head.scale;
      for (int64_t c = 0; c < width; c++) grad_one[c] += grad_score * head.key(j)[c];
    }
    turn_back<L, W>(grad_one, head.row, width, first, head.T, grad);
  }
  for (int64_t first = 0; first < head.T; first += L) {  // gradients of keys and values, which lie along the lanes
    turn<L, W>(head.key(0), head.row, width, first, head.T, head.scale, one);
    turn<L, W>(head.value(0), head.row, width, first, head.T, 1.0f, other);
    for (int64_t c = 0; c < width; c++) grad_one[c] = grad_other[c] = Lanes<L>{};
    for (int64_t i = 0; i < head.T; i++) {
      const float* query = head.query + i * head.row;
      const float* grad_o = grad_output + i * head.joined;
      const Lanes<L> weight = exp_lanes<L>(dot<L, W>(one, query, width) - tops[i * head.heads]) * inverses[i * head.heads];
      const Lanes<L> grad_score = weight * (dot<L, W>(other, grad_o, width) - along[i]) * head.scale;
      for (int64_t c = 0; c < width; c++) {
        grad_one[c] += grad_score * query[c];
        grad_other[c] += weight * grad_o[c];
      }
    }
    turn_back<L, W>(grad_one, head.row, width, first, head.T, grad + head.joined);
    turn_back<L, W>(grad_other, head.row, width, first, head.T, grad + 2 * head.joined);
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

template <int64_t L>
INLINE void attend_samples_by(const Attention& of, int64_t first, int64_t last, float* memory) {
  for (int64_t sample = first; sample < last; sample++) {
    for (int64_t h = 0; h < of.heads; h++) {
      const Head head = head_of(of, sample, h);
      float* output = of.output + of.offsets[sample] * head.joined + h * of.width;
      const int64_t at = of.offsets[sample] * of.heads + h;
      switch (head.width) {
        case 2: attend<L, 2>(head, output, of.tops + at, of.inverses + at, memory); break;
        case 4: attend<L, 4>(head, output, of.tops + at, of.inverses + at, memory); break;
        case 6: attend<L, 6>(head, output, of.tops + at, of.inverses + at, memory); break;
        case 8: attend<L, 8>(head, output, of.tops + at, of.inverses + at, memory); break;
        case 10: attend<L, 10>(head, output, of.tops + at, of.inverses + at, memory); break;
        default: attend<L, 0>(head, output, of.tops + at, of.inverses + at, memory);
      }
    }
  }
}

template <int64_t L>
INLINE void attend_samples_backward_by(
    const Attention& of, const float* grad_outputs, float* grads, int64_t first, int64_t last, float* memory) {
  for (int64_t sample = first; sample < last; sample++) {
    for (int64_t h = 0; h < of.heads; h++) {
      const Head head = head_of(of, sample, h);
      const int64_t start = of.offsets[sample], at = start * of.heads + h;
      const float* output = of.output + start * head.joined + h * of.width;
      const float* grad_output = grad_outputs + start * head.joined + h * of.width;
      float* grad = grads + start * head.row + h * of.width;
      switch (head.width) {
        case 2: attend_backward<L, 2>(head, output, of.tops + at, of.inverses + at, grad_output, grad, memory); break;
        case 4: attend_backward<L, 4>(head, output, of.tops + at, of.inverses + at, grad_output, grad, memory); break;
        case 6: attend_backward<L, 6>(head, output, of.tops + at, of.inverses + at, grad_output, grad, memory); break;
        case 8: attend_backward<L, 8>(head, output, of.tops + at, of.inverses + at, grad_output, grad, memory); break;
        case 10: attend_backward<L, 10>(head, output, of.tops + at, of.inverses + at, grad_output, grad, memory); break;
        default: attend_backward<L, 0>(head, output, of.tops + at, of.inverses + at, grad_output, grad, memory);
      }
    }
  }
}

FOR_EACH_REGISTER(
    attend_samples, (const Attention& of, int64_t first, int64_t last, float* memory), (of, first, last, memory))
FOR_EACH_REGISTER(
    attend_samples_backward,
    (const Attention& of, const float* grad_outputs, float* grads, int64_t first, int64_t last, float* memory),
    (of, grad_outputs, grads, first, last, memory))

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
    const Scratch memory = scratch(4 * of.width + (longest + MOST_LANES - 1) / MOST_LANES);
    attend_samples_backward(
        of, grad_output.const_data_ptr<float>(), grad.mutable_data_ptr<float>(), first, last, memory.get());
  });
  return grad;
}

}  // namespace mian
