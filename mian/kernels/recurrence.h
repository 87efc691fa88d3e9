// The steps of a gated recurrent unit over histories that lie packed, see self_attention.h, with attention in its update gate.
//
// A history is read from its end, the oldest behavior. What it reads and its gates are three vectors of H floats side by side: of r, of u, and
// of the candidate state c.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdint>
#include <tuple>

#include "mian/kernels/cpu.h"
#include "mian/kernels/lanes.h"

namespace mian {

template <int64_t L>
INLINE Lanes<L> sigmoid(Lanes<L> x) {
  const Lanes<L> power = exp_lanes<L>(x > 0.0f ? -x : x);
  return (x > 0.0f ? Lanes<L>{} + 1.0f : power) / (1.0f + power);
}

template <int64_t L>
INLINE Lanes<L> tanh_lanes(Lanes<L> x) {
  return 2.0f * sigmoid<L>(2.0f * x) - 1.0f;
}

// Adds to sums[n] the sum over g and k of by[g][k] * rows[g][k][n], for N vectors of lanes. Rows have `vectors` of them, and by[g + 1] lies `step`
// floats behind by[g].
template <int64_t L, int64_t G, int64_t N>
INLINE void add_rows(const float* by, int64_t step, const Lanes<L>* rows, int64_t vectors, int64_t count, Lanes<L>* sums) {
  Lanes<L> registers[G * N];
  for (int64_t n = 0; n < G * N; n++) registers[n] = Lanes<L>{};
  for (int64_t k = 0; k < count; k++) {
    for (int64_t g = 0; g < G; g++) {
      for (int64_t n = 0; n < N; n++) registers[g * N + n] += by[g * step + k] * rows[(g * count + k) * vectors + n];
    }
  }
  for (int64_t n = 0; n < G * N; n++) sums[n % N] += registers[n];
}

// The same for all vectors of the rows: twelve sums at a time keep two multipliers busy, and fit in 16 registers.
template <int64_t L, int64_t G>
INLINE void add_all_rows(const float* by, int64_t step, const Lanes<L>* rows, int64_t vectors, int64_t count, Lanes<L>* sums) {
  int64_t n = 0;
  for (; n + 12 / G <= vectors; n += 12 / G) add_rows<L, G, 12 / G>(by, step, rows + n, vectors, count, sums + n);
  for (; n + 6 / G <= vectors; n += 6 / G) add_rows<L, G, 6 / G>(by, step, rows + n, vectors, count, sums + n);
  for (; n < vectors; n++) add_rows<L, G, 1>(by, step, rows + n, vectors, count, sums + n);
}

struct Recurrence {
  const float* x;  // (P, 3 H)
  const float* attention;  // (P,)
  const float* recurrent;  // U, (3 H, H)
  const int64_t* offsets;
  int64_t hidden;
};

// Of lanes that hold a vector of H floats.
INLINE int64_t vectors_of(int64_t hidden, int64_t lanes) { return (hidden + lanes - 1) / lanes; }

// A vector, or three of them one after the other, from where it lies to lanes and back; the lanes behind H stay as they are.
template <int64_t L>
INLINE void take(const float* from, int64_t vectors, int64_t hidden, Lanes<L>* to) {
  for (int64_t n = 0; n < vectors; n++) {
    for (int64_t c = 0; c < hidden; c++) reinterpret_cast<float*>(to + n * vectors_of(hidden, L))[c] = from[n * hidden + c];
  }
}

template <int64_t L>
INLINE void give(const Lanes<L>* from, int64_t vectors, int64_t hidden, float* to) {
  for (int64_t n = 0; n < vectors; n++) {
    for (int64_t c = 0; c < hidden; c++) to[n * hidden + c] = reinterpret_cast<const float*>(from + n * vectors_of(hidden, L))[c];
  }
}

// So many vectors of lanes are in use on the way forward, and back, where V hold one state.
INLINE int64_t forward_scratch(int64_t hidden, int64_t V) { return 3 * V * hidden + 7 * V; }
INLINE int64_t backward_scratch(int64_t hidden, int64_t V) { return 6 * V * hidden + 12 * V; }

template <int64_t L>
INLINE void clear(Lanes<L>* lanes, int64_t count) {
  for (int64_t n = 0; n < count; n++) lanes[n] = Lanes<L>{};
}

// U with what is multiplied by one entry of a state side by side: H rows of 3 H.
template <int64_t L>
INLINE void turn_recurrent(const Recurrence& of, Lanes<L>* turned) {
  const int64_t H = of.hidden, V = vectors_of(H, L);
  for (int64_t k = 0; k < H; k++) {
    for (int64_t gate = 0; gate < 3; gate++) {
      float* row = reinterpret_cast<float*>(turned + (3 * k + gate) * V);
      for (int64_t c = 0; c < H; c++) row[c] = of.recurrent[(gate * H + c) * H + k];
    }
  }
}

template <int64_t L>
INLINE void read_histories_by(const Recurrence& of, float* states, int64_t first, int64_t last, float* memory) {
  const int64_t H = of.hidden, V = vectors_of(H, L);
  Lanes<L>* turned = reinterpret_cast<Lanes<L>*>(memory);
  Lanes<L>* x = turned + 3 * V * H;
  Lanes<L>* product = x + 3 * V;
  Lanes<L>* h = product + 3 * V;
  clear<L>(turned, forward_scratch(H, V));
  turn_recurrent<L>(of, turned);
  for (int64_t sample = first; sample < last; sample++) {
    clear<L>(h, V);
    for (int64_t p = of.offsets[sample + 1] - 1; p >= of.offsets[sample]; p--) {
      take<L>(of.x + p * 3 * H, 3, H, x);
      clear<L>(product, 3 * V);
      add_all_rows<L, 1>(reinterpret_cast<const float*>(h), 0, turned, 3 * V, H, product);
      for (int64_t v = 0; v < V; v++) {
        const Lanes<L> r = sigmoid<L>(x[v] + product[v]), u = sigmoid<L>(x[V + v] + product[V + v]);
        const Lanes<L> c = tanh_lanes<L>(x[2 * V + v] + r * product[2 * V + v]);
        h[v] += u * of.attention[p] * (c - h[v]);
      }
      give<L>(h, 1, H, states + p * H);
    }
  }
}

struct RecurrenceGradients {
  float* x;  // (P, 3 H)
  float* attention;  // (P,)
  float* through;  // of U h, (P, 3 H)
  float* before;  // no gradient: the h that each step met, (P, H)
};

template <int64_t L>
INLINE void read_histories_backward_by(
    const Recurrence& of, const float* states, const float* grad_states, const RecurrenceGradients& grads, int64_t first,
    int64_t last, float* memory) {
  const int64_t H = of.hidden, V = vectors_of(H, L);
  Lanes<L>* turned = reinterpret_cast<Lanes<L>*>(memory);
  Lanes<L>* recurrent = turned + 3 * V * H;  // as it is: 3 H rows of H
  Lanes<L>* x = recurrent + 3 * V * H;
  Lanes<L>* product = x + 3 * V;
  Lanes<L>* through = product + 3 * V;
  Lanes<L>* h = through + 3 * V;
  Lanes<L>* came = h + V;
  Lanes<L>* later = came + V;
  clear<L>(turned, backward_scratch(H, V));
  turn_recurrent<L>(of, turned);
  take<L>(of.recurrent, 3 * H, H, recurrent);
  for (int64_t sample = first; sample < last; sample++) {
    const int64_t start = of.offsets[sample], stop = of.offsets[sample + 1];
    clear<L>(later, V);
    for (int64_t p = start; p < stop; p++) {  // from the most recent behavior back
      if (p + 1 < stop) {
        take<L>(states + (p + 1) * H, 1, H, h);
      } else {
        clear<L>(h, V);
      }
      give<L>(h, 1, H, grads.before + p * H);
      take<L>(of.x + p * 3 * H, 3, H, x);
      take<L>(grad_states + p * H, 1, H, came);
      clear<L>(product, 3 * V);
      add_all_rows<L, 1>(reinterpret_cast<const float*>(h), 0, turned, 3 * V, H, product);
      Lanes<L> along = Lanes<L>{};
      for (int64_t v = 0; v < V; v++) {
        const Lanes<L> r = sigmoid<L>(x[v] + product[v]), u = sigmoid<L>(x[V + v] + product[V + v]);
        const Lanes<L> c = tanh_lanes<L>(x[2 * V + v] + r * product[2 * V + v]);
        const Lanes<L> moved = u * of.attention[p], way = c - h[v];
        const Lanes<L> g = came[v] + later[v], to_c = g * moved * (1.0f - c * c);
        along += g * way * u;
        x[v] = through[v] = to_c * product[2 * V + v] * r * (1.0f - r);
        x[V + v] = through[V + v] = g * way * of.attention[p] * u * (1.0f - u);
        x[2 * V + v] = to_c;
        through[2 * V + v] = to_c * r;
        later[v] = g * (1.0f - moved);
      }
      give<L>(x, 3, H, grads.x + p * 3 * H);
      give<L>(through, 3, H, grads.through + p * 3 * H);
      float sum = 0.0f;
      for (int64_t lane = 0; lane < L; lane++) sum += along[lane];
      grads.attention[p] = sum;
      add_all_rows<L, 3>(reinterpret_cast<const float*>(through), V * L, recurrent, V, H, later);
    }
  }
}

FOR_EACH_REGISTER(
    read_histories, (const Recurrence& of, float* states, int64_t first, int64_t last, float* memory),
    (of, states, first, last, memory))
FOR_EACH_REGISTER(
    read_histories_backward,
    (const Recurrence& of, const float* states, const float* grad_states, const RecurrenceGradients& grads, int64_t first,
     int64_t last, float* memory),
    (of, states, grad_states, grads, first, last, memory))

// x (P, 3 H), attention (P,), recurrent (3 H, H). Gives the state after each position, (P, H).
at::Tensor recurrence(
    const at::Tensor& x, const at::Tensor& attention, const at::Tensor& recurrent, const at::Tensor& offsets) {
  const int64_t H = recurrent.size(1), samples = offsets.numel() - 1;
  auto states = at::empty({x.size(0), H}, x.options());
  const Recurrence of{
      x.const_data_ptr<float>(), attention.const_data_ptr<float>(), recurrent.const_data_ptr<float>(),
      offsets.const_data_ptr<int64_t>(), H};
  at::parallel_for(0, samples, SAMPLES_PER_TASK, [&](int64_t first, int64_t last) {
    const Scratch memory = scratch(forward_scratch(H, vectors_of(H, MOST_LANES)));
    read_histories(of, states.mutable_data_ptr<float>(), first, last, memory.get());
  });
  return states;
}

// Gives the gradients of x, (P, 3 H), and attention, (P,), and what the gradient of recurrent is the product of: that of U h, (P, 3 H), and
// the states that it met, (P, H).
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> recurrence_backward(
    const at::Tensor& grad_states, const at::Tensor& x, const at::Tensor& attention, const at::Tensor& recurrent,
    const at::Tensor& offsets, const at::Tensor& states) {
  const int64_t H = recurrent.size(1), samples = offsets.numel() - 1;
  auto grad_x = at::empty_like(x), grad_attention = at::empty_like(attention), through = at::empty_like(x),
       before = at::empty_like(states);
  const Recurrence of{
      x.const_data_ptr<float>(), attention.const_data_ptr<float>(), recurrent.const_data_ptr<float>(),
      offsets.const_data_ptr<int64_t>(), H};
  const RecurrenceGradients grads{
      grad_x.mutable_data_ptr<float>(), grad_attention.mutable_data_ptr<float>(), through.mutable_data_ptr<float>(),
      before.mutable_data_ptr<float>()};
  at::parallel_for(0, samples, SAMPLES_PER_TASK, [&](int64_t first, int64_t last) {
    const Scratch memory = scratch(backward_scratch(H, vectors_of(H, MOST_LANES)));
    read_histories_backward(
        of, states.const_data_ptr<float>(), grad_states.const_data_ptr<float>(), grads, first, last, memory.get());
  });
  return {grad_x, grad_attention, through, before};
}

}  // namespace mian
