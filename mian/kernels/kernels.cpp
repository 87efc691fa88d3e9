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

// e^x to 2 units in the last place, for x <= 0: 2^n times a polynomial (Cephes, expf).
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

INLINE float sum_lanes(Lanes v) {
  v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  return v[0] + v[1];
}

INLINE float max_lanes(Lanes v) {
  Lanes w = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  v = v > w ? v : w;
  w = __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  v = v > w ? v : w;
  w = __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  v = v > w ? v : w;
  return v[0] > v[1] ? v[0] : v[1];
}

int64_t blocks_of(int64_t positions) { return (positions + LANES - 1) / LANES; }

int64_t most_blocks(const int64_t* offsets, int64_t samples) {
  int64_t longest = 1;
  for (int64_t b = 0; b < samples; b++) longest = std::max(longest, offsets[b + 1] - offsets[b]);
  return blocks_of(longest);
}

// --- Multi-head self-attention -------------------------------------------------------------------------------------------------

// One head of one sample: T positions, `row` floats from one position of query, key and value to the next, `joined` from a head's
// queries to its keys and from those to its values.
struct Head {
  const float* query;
  int64_t T, row, joined, heads, width, blocks;
  float scale;
};

// Keys and values turned, positions along the lanes, and what is added to the scores of lanes behind the last position.
INLINE void turn(const Head& head, int64_t width, int64_t blocks, float* keys, float* values, float* behind) {
  for (int64_t j = 0; j < blocks * LANES; j++) {
    const bool real = j < head.T;
    behind[j] = real ? 0.0f : -1e30f;
    const float* key = head.query + j * head.row + head.joined;
    for (int64_t c = 0; c < width; c++) {
      keys[c * blocks * LANES + j] = real ? key[c] : 0.0f;
      values[c * blocks * LANES + j] = real ? key[head.joined + c] : 0.0f;
    }
  }
}

// W and N are the head's width and blocks where they are known to the compiler, else 0.
template <int64_t W, int64_t N>
INLINE void attend(const Head& head, float* output, float* log_sums, Lanes* memory) {
  const int64_t width = W ? W : head.width, blocks = N ? N : head.blocks;
  Lanes* __restrict__ keys = memory;
  Lanes* __restrict__ values = keys + width * blocks;
  Lanes* __restrict__ p = values + width * blocks;
  Lanes* __restrict__ behind = p + blocks;
  turn(head, width, blocks, reinterpret_cast<float*>(keys), reinterpret_cast<float*>(values), reinterpret_cast<float*>(behind));
  for (int64_t i = 0; i < head.T; i++) {
    const float* query = head.query + i * head.row;
    for (int64_t n = 0; n < blocks; n++) p[n] = behind[n];
    for (int64_t c = 0; c < width; c++) {
      const float q = query[c] * head.scale;
      for (int64_t n = 0; n < blocks; n++) p[n] += q * keys[c * blocks + n];
    }
    Lanes highest = p[0];
    for (int64_t n = 1; n < blocks; n++) highest = highest > p[n] ? highest : p[n];
    const float top = max_lanes(highest);
    Lanes sums = Lanes{};
    for (int64_t n = 0; n < blocks; n++) {
      p[n] = exp_lanes(p[n] - top);
      sums += p[n];
    }
    const float sum = sum_lanes(sums);
    for (int64_t c = 0; c < width; c++) {
      Lanes mixed = Lanes{};
      for (int64_t n = 0; n < blocks; n++) mixed += p[n] * values[c * blocks + n];
      output[i * head.joined + c] = sum_lanes(mixed) / sum;
    }
    log_sums[i * head.heads] = top + std::log(sum);
  }
}

template <int64_t W, int64_t N>
INLINE void attend_backward(
    const Head& head, const float* output, const float* log_sums, const float* grad_output, float* grad, Lanes* memory) {
  const int64_t width = W ? W : head.width, blocks = N ? N : head.blocks;
  Lanes* __restrict__ keys = memory;
  Lanes* __restrict__ values = keys + width * blocks;
  Lanes* __restrict__ grad_keys = values + width * blocks;
  Lanes* __restrict__ grad_values = grad_keys + width * blocks;
  Lanes* __restrict__ p = grad_values + width * blocks;
  Lanes* __restrict__ grad_scores = p + blocks;
  Lanes* __restrict__ behind = grad_scores + blocks;
  turn(head, width, blocks, reinterpret_cast<float*>(keys), reinterpret_cast<float*>(values), reinterpret_cast<float*>(behind));
  for (int64_t n = 0; n < width * blocks; n++) grad_keys[n] = grad_values[n] = Lanes{};
  for (int64_t i = 0; i < head.T; i++) {
    const float* query = head.query + i * head.row;
    const float* grad_o = grad_output + i * head.joined;
    float along = 0.0f;
    for (int64_t c = 0; c < width; c++) along += grad_o[c] * output[i * head.joined + c];
    for (int64_t n = 0; n < blocks; n++) {
      p[n] = behind[n];
      grad_scores[n] = Lanes{};
    }
    for (int64_t c = 0; c < width; c++) {
      const float q = query[c] * head.scale, g = grad_o[c];
      for (int64_t n = 0; n < blocks; n++) {
        p[n] += q * keys[c * blocks + n];
        grad_scores[n] += g * values[c * blocks + n];
      }
    }
    for (int64_t n = 0; n < blocks; n++) {
      p[n] = exp_lanes(p[n] - log_sums[i * head.heads]);
      grad_scores[n] = p[n] * (grad_scores[n] - along) * head.scale;
    }
    for (int64_t c = 0; c < width; c++) {
      const float q = query[c], g = grad_o[c];
      Lanes grad_query = Lanes{};
      for (int64_t n = 0; n < blocks; n++) {
        grad_query += grad_scores[n] * keys[c * blocks + n];
        grad_keys[c * blocks + n] += grad_scores[n] * q;
        grad_values[c * blocks + n] += p[n] * g;
      }
      grad[i * head.row + c] = sum_lanes(grad_query);
    }
  }
  for (int64_t j = 0; j < head.T; j++) {
    float* grad_key = grad + j * head.row + head.joined;
    for (int64_t c = 0; c < width; c++) {
      grad_key[c] = reinterpret_cast<float*>(grad_keys)[c * blocks * LANES + j];
      grad_key[head.joined + c] = reinterpret_cast<float*>(grad_values)[c * blocks * LANES + j];
    }
  }
}

struct Attention {
  const float* query_key_value;
  const int64_t* offsets;
  int64_t heads, width;
  float* output;
  float* log_sums;
};

INLINE Head head_of(const Attention& of, int64_t sample, int64_t h) {
  const int64_t start = of.offsets[sample], T = of.offsets[sample + 1] - start, joined = of.heads * of.width;
  const float scale = 1.0f / std::sqrt(static_cast<float>(of.width));
  return {of.query_key_value + start * 3 * joined + h * of.width, T, 3 * joined, joined, of.heads, of.width, blocks_of(T), scale};
}

FOR_EACH_CPU
void attend_samples(const Attention& of, int64_t first, int64_t last, Lanes* memory) {
  for (int64_t sample = first; sample < last; sample++) {
    for (int64_t h = 0; h < of.heads; h++) {
      const Head head = head_of(of, sample, h);
      float* output = of.output + of.offsets[sample] * head.joined + h * of.width;
      float* log_sums = of.log_sums + of.offsets[sample] * of.heads + h;
      if (head.width == 4 && head.blocks == 1) {
        attend<4, 1>(head, output, log_sums, memory);
      } else if (head.width == 4 && head.blocks == 2) {
        attend<4, 2>(head, output, log_sums, memory);
      } else {
        attend<0, 0>(head, output, log_sums, memory);
      }
    }
  }
}

FOR_EACH_CPU
void attend_samples_backward(
    const Attention& of, const float* grad_output, float* grad, int64_t first, int64_t last, Lanes* memory) {
  for (int64_t sample = first; sample < last; sample++) {
    for (int64_t h = 0; h < of.heads; h++) {
      const Head head = head_of(of, sample, h);
      const int64_t at = of.offsets[sample] * head.joined + h * of.width;
      const float* log_sums = of.log_sums + of.offsets[sample] * of.heads + h;
      float* grad_head = grad + 3 * of.offsets[sample] * head.joined + h * of.width;
      if (head.width == 4 && head.blocks == 1) {
        attend_backward<4, 1>(head, of.output + at, log_sums, grad_output + at, grad_head, memory);
      } else if (head.width == 4 && head.blocks == 2) {
        attend_backward<4, 2>(head, of.output + at, log_sums, grad_output + at, grad_head, memory);
      } else {
        attend_backward<0, 0>(head, of.output + at, log_sums, grad_output + at, grad_head, memory);
      }
    }
  }
}

// query_key_value (P, 3 * heads * width): all heads' queries, then their keys, then their values.
// Gives (P, heads * width), and the logarithms of the softmax's sums, (P, heads), for the way back.
std::tuple<at::Tensor, at::Tensor> attention(const at::Tensor& query_key_value, const at::Tensor& offsets, int64_t heads) {
  const int64_t P = query_key_value.size(0), joined = query_key_value.size(1) / 3, samples = offsets.numel() - 1;
  auto output = at::empty({P, joined}, query_key_value.options());
  auto log_sums = at::empty({P, heads}, query_key_value.options());
  const Attention of{
      query_key_value.const_data_ptr<float>(), offsets.const_data_ptr<int64_t>(), heads, joined / heads,
      output.mutable_data_ptr<float>(), log_sums.mutable_data_ptr<float>()};
  const int64_t blocks = most_blocks(of.offsets, samples);
  at::parallel_for(0, samples, SAMPLES_PER_TASK, [&](int64_t first, int64_t last) {
    const Scratch memory = scratch((2 * of.width + 2) * blocks);
    attend_samples(of, first, last, memory.get());
  });
  return {output, log_sums};
}

at::Tensor attention_backward(
    const at::Tensor& grad_output, const at::Tensor& query_key_value, const at::Tensor& offsets, const at::Tensor& output,
    const at::Tensor& log_sums, int64_t heads) {
  const int64_t joined = query_key_value.size(1) / 3, samples = offsets.numel() - 1;
  auto grad = at::empty_like(query_key_value);
  const Attention of{
      query_key_value.const_data_ptr<float>(), offsets.const_data_ptr<int64_t>(), heads, joined / heads,
      const_cast<float*>(output.const_data_ptr<float>()), const_cast<float*>(log_sums.const_data_ptr<float>())};
  const int64_t blocks = most_blocks(of.offsets, samples);
  at::parallel_for(0, samples, SAMPLES_PER_TASK, [&](int64_t first, int64_t last) {
    const Scratch memory = scratch((4 * of.width + 3) * blocks);
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
  library.def("attention(Tensor query_key_value, Tensor offsets, int heads) -> (Tensor, Tensor)");
  library.def(
      "attention_backward(Tensor grad_output, Tensor query_key_value, Tensor offsets, Tensor output, Tensor log_sums, int heads) "
      "-> Tensor");
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
