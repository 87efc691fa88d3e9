// What torch's own operators are slow at on a CPU, over histories that lie packed: those of all samples one after the other, no padding.
//
// Sample b's positions are offsets[b] to offsets[b + 1]. All tensors are float32, contiguous, on the CPU; offsets are int64. Work is
// shared out by samples on torch's own threads, and no result depends on their number.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <tuple>

namespace {

// Compiled for several generations of processors; the loader takes the best that this one has.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif
#define INLINE static inline __attribute__((always_inline))

constexpr int64_t LANES = 16;
constexpr int64_t SAMPLES_PER_TASK = 16;
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

// --- Multi-head self-attention -------------------------------------------------------------------------------------------------

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
  Lanes* __restrict__ queries = memory;
  Lanes* __restrict__ mixed = queries + width;
  Lanes* __restrict__ scores = mixed + width;
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
  Lanes* __restrict__ one = memory;  // of queries, then of keys
  Lanes* __restrict__ other = one + width;  // of the output's gradient, then of values
  Lanes* __restrict__ grad_one = other + width;
  Lanes* __restrict__ grad_other = grad_one + width;
  float* __restrict__ along = reinterpret_cast<float*>(grad_other + width);  // of each query: its output times the output's gradient

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

// --- Softmax over a sample's positions, and the sum of their vectors by weight --------------------------------------------------

FOR_EACH_CPU
void pool_samples(
    const float* scores, const float* vectors, const int64_t* offsets, int64_t width, float* weights, float* sums, int64_t first,
    int64_t last) {
  for (int64_t b = first; b < last; b++) {
    const int64_t start = offsets[b], stop = offsets[b + 1];
    float top = -INFINITY, total = 0.0f;
    for (int64_t p = start; p < stop; p++) top = scores[p] > top ? scores[p] : top;
    for (int64_t p = start; p < stop; p++) total += weights[p] = std::exp(scores[p] - top);
    float* sum = sums + b * width;
    for (int64_t c = 0; c < width; c++) sum[c] = 0.0f;
    for (int64_t p = start; p < stop; p++) {
      weights[p] /= total;
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
    float along = 0.0f;  // of the gradient and the sum by weight
    for (int64_t p = offsets[b]; p < offsets[b + 1]; p++) {
      float dot = 0.0f;
      for (int64_t c = 0; c < width; c++) {
        dot += grad_sum[c] * vectors[p * width + c];
        grad_vectors[p * width + c] = weights[p] * grad_sum[c];
      }
      grad_scores[p] = dot;
      along += weights[p] * dot;
    }
    for (int64_t p = offsets[b]; p < offsets[b + 1]; p++) grad_scores[p] = weights[p] * (grad_scores[p] - along);
  }
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

// --- Dropout -------------------------------------------------------------------------------------------------------------------

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
    kept[i] = drawn >= threshold ? x[i] * scale : 0.0f;
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

}  // namespace

TORCH_LIBRARY(mian, library) {
  library.def("attention(Tensor query_key_value, Tensor offsets, int heads) -> (Tensor, Tensor, Tensor)");
  library.def(
      "attention_backward(Tensor grad_output, Tensor query_key_value, Tensor offsets, Tensor output, Tensor tops, Tensor inverses, "
      "int heads) -> Tensor");
  library.def("pool(Tensor scores, Tensor vectors, Tensor offsets) -> (Tensor, Tensor)");
  library.def("pool_backward(Tensor grad_sums, Tensor weights, Tensor vectors, Tensor offsets) -> (Tensor, Tensor)");
  library.def("dropout(Tensor x, float probability, int seed) -> Tensor");
}

TORCH_LIBRARY_IMPL(mian, CPU, library) {
  library.impl("attention", &attention);
  library.impl("attention_backward", &attention_backward);
  library.impl("pool", &pool);
  library.impl("pool_backward", &pool_backward);
  library.impl("dropout", &dropout);
}
