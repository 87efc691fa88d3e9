// A softmax over the positions of each sample, and the sum of their vectors by weight. Histories lie packed, see self_attention.h.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdint>
#include <tuple>

#include "mian/kernels/cpu.h"

namespace mian {

// The softmax of the scores from `start` to `stop`.
INLINE void weigh(const float* scores, int64_t start, int64_t stop, float* weights) {
  float top = -INFINITY, total = 0.0f;
  for (int64_t p = start; p < stop; p++) top = scores[p] > top ? scores[p] : top;
  for (int64_t p = start; p < stop; p++) total += weights[p] = std::exp(scores[p] - top);
  for (int64_t p = start; p < stop; p++) weights[p] /= total;
}

// From the gradients of weights to those of scores, in their place.
INLINE void weigh_backward(const float* weights, int64_t start, int64_t stop, float* grads) {
  float along = 0.0f;
  for (int64_t p = start; p < stop; p++) along += weights[p] * grads[p];
  for (int64_t p = start; p < stop; p++) grads[p] = weights[p] * (grads[p] - along);
}

FOR_EACH_CPU
void softmax_samples(const float* scores, const int64_t* offsets, float* weights, int64_t first, int64_t last) {
  for (int64_t b = first; b < last; b++) weigh(scores, offsets[b], offsets[b + 1], weights);
}

FOR_EACH_CPU
void softmax_samples_backward(const float* weights, const int64_t* offsets, float* grads, int64_t first, int64_t last) {
  for (int64_t b = first; b < last; b++) weigh_backward(weights, offsets[b], offsets[b + 1], grads);
}

FOR_EACH_CPU
void pool_samples(
    const float* scores, const float* vectors, const int64_t* offsets, int64_t width, float* weights, float* sums, int64_t first,
    int64_t last) {
  for (int64_t b = first; b < last; b++) {
    const int64_t start = offsets[b], stop = offsets[b + 1];
    weigh(scores, start, stop, weights);
    float* sum = sums + b * width;
    for (int64_t c = 0; c < width; c++) sum[c] = 0.0f;
    for (int64_t p = start; p < stop; p++) {
      for (int64_t c = 0; c < width; c++) sum[c] += weights[p] * vectors[p * width + c];
    }
  }
}

FOR_EACH_CPU
void pool_samples_backward(
    const float* grad_sums, const float* weights, const float* vectors, const int64_t* offsets, int64_t width, float* grad_scores,
    float* grad_vectors, int64_t first, int64_t last) {
  for (int64_t b = first; b < last; b++) {
    const float* grad_sum = grad_sums + b * width;
    for (int64_t p = offsets[b]; p < offsets[b + 1]; p++) {
      float dot = 0.0f;
      for (int64_t c = 0; c < width; c++) {
        dot += grad_sum[c] * vectors[p * width + c];
        grad_vectors[p * width + c] = weights[p] * grad_sum[c];
      }
      grad_scores[p] = dot;
    }
    weigh_backward(weights, offsets[b], offsets[b + 1], grad_scores);
  }
}

// scores (P,). Gives the weights (P,).
at::Tensor softmax(const at::Tensor& scores, const at::Tensor& offsets) {
  auto weights = at::empty_like(scores);
  at::parallel_for(0, offsets.numel() - 1, SAMPLES_PER_TASK, [&](int64_t first, int64_t last) {
    softmax_samples(
        scores.const_data_ptr<float>(), offsets.const_data_ptr<int64_t>(), weights.mutable_data_ptr<float>(), first, last);
  });
  return weights;
}

at::Tensor softmax_backward(const at::Tensor& grad_weights, const at::Tensor& weights, const at::Tensor& offsets) {
  auto grads = grad_weights.clone();
  at::parallel_for(0, offsets.numel() - 1, SAMPLES_PER_TASK, [&](int64_t first, int64_t last) {
    softmax_samples_backward(
        weights.const_data_ptr<float>(), offsets.const_data_ptr<int64_t>(), grads.mutable_data_ptr<float>(), first, last);
  });
  return grads;
}

// scores (P,), vectors (P, width). Gives the weights (P,), and the sums (B, width), 0 where a sample has no position.
std::tuple<at::Tensor, at::Tensor> pool(const at::Tensor& scores, const at::Tensor& vectors, const at::Tensor& offsets) {
  const int64_t samples = offsets.numel() - 1, width = vectors.size(1);
  auto weights = at::empty_like(scores);
  auto sums = at::empty({samples, width}, vectors.options());
  at::parallel_for(0, samples, SAMPLES_PER_TASK, [&](int64_t first, int64_t last) {
    pool_samples(
        scores.const_data_ptr<float>(), vectors.const_data_ptr<float>(), offsets.const_data_ptr<int64_t>(), width,
        weights.mutable_data_ptr<float>(), sums.mutable_data_ptr<float>(), first, last);
  });
  return {weights, sums};
}

std::tuple<at::Tensor, at::Tensor> pool_backward(
    const at::Tensor& grad_sums, const at::Tensor& weights, const at::Tensor& vectors, const at::Tensor& offsets) {
  auto grad_scores = at::empty_like(weights);
  auto grad_vectors = at::empty_like(vectors);
  at::parallel_for(0, offsets.numel() - 1, SAMPLES_PER_TASK, [&](int64_t first, int64_t last) {
    pool_samples_backward(
        grad_sums.const_data_ptr<float>(), weights.const_data_ptr<float>(), vectors.const_data_ptr<float>(),
        offsets.const_data_ptr<int64_t>(), vectors.size(1), grad_scores.mutable_data_ptr<float>(),
        grad_vectors.mutable_data_ptr<float>(), first, last);
  });
  return {grad_scores, grad_vectors};
}

}  // namespace mian
