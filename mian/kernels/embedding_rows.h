// Rows of embedding tables: which of them a batch holds, the sums of their gradients, and their update.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "mian/kernels/cpu.h"

namespace mian {

template <typename Id, typename Row>
bool place_ids(const Id* ids, const int64_t* places, int64_t rows, int64_t fields, int64_t start, int64_t size, Row* out) {
  bool outside = false;
  for (int64_t r = 0; r < rows; r++) {
    const int64_t id = ids[places == nullptr ? r : places[r]];
    outside |= static_cast<uint64_t>(id) >= static_cast<uint64_t>(size);
    out[r * fields] = static_cast<Row>(id + start);
  }
  return outside;
}

// Ids of several fields, each int32 or int64 (N,), as rows of one table: int32 or int64 (R, fields), its id plus where the field's
// vocabulary starts. With places, int64 (R,), ids lie there. Also the first field with an id that is not below its size; -1 for none.
std::tuple<at::Tensor, int64_t> field_rows(
    at::TensorList columns, const std::optional<at::Tensor>& places, at::IntArrayRef starts, at::IntArrayRef sizes, bool is_long) {
  const int64_t fields = columns.size();
  const int64_t rows = places ? places->numel() : columns[0].numel();
  const int64_t* place = places ? places->const_data_ptr<int64_t>() : nullptr;
  auto out = at::empty({rows, fields}, columns[0].options().dtype(is_long ? at::kLong : at::kInt));
  int64_t wrong = -1;
  for (int64_t f = 0; f < fields; f++) {
    const auto column = columns[f].contiguous();
    TORCH_CHECK_VALUE(column.numel() == columns[0].numel(), "fields have ", columns[0].numel(), " and ", column.numel(), " ids");
    const auto with = [&](auto* ids) {
      return is_long ? place_ids(ids, place, rows, fields, starts[f], sizes[f], out.mutable_data_ptr<int64_t>() + f)
                     : place_ids(ids, place, rows, fields, starts[f], sizes[f], out.mutable_data_ptr<int32_t>() + f);
    };
    const bool outside = column.scalar_type() == at::kInt ? with(column.const_data_ptr<int32_t>()) : with(column.const_data_ptr<int64_t>());
    if (outside && wrong < 0) wrong = f;
  }
  return {out, wrong};
}

// Each distinct row once, in the order in which they are met, and for each of the N rows its place among them.
template <typename Row>
std::tuple<at::Tensor, at::Tensor> distinct_of(const at::Tensor& rows) {
  const int64_t N = rows.numel();
  const Row* row = rows.const_data_ptr<Row>();
  auto inverse = at::empty({N}, rows.options().dtype(at::kInt));
  int32_t* place = inverse.mutable_data_ptr<int32_t>();
  int64_t slots = 64;
  while (slots < 2 * N) slots *= 2;
  std::vector<int32_t> table(slots, -1);  // open addressing: places among the distinct rows
  std::vector<Row> found;
  found.reserve(N);
  for (int64_t i = 0; i < N; i++) {
    uint64_t slot = (static_cast<uint64_t>(row[i]) * 0x9E3779B97F4A7C15ULL) >> 20 & (slots - 1);
    while (table[slot] >= 0 && found[table[slot]] != row[i]) slot = (slot + 1) & (slots - 1);
    if (table[slot] < 0) {
      table[slot] = static_cast<int32_t>(found.size());
      found.push_back(row[i]);
    }
    place[i] = table[slot];
  }
  auto distinct = at::empty({static_cast<int64_t>(found.size())}, rows.options());
  std::copy(found.begin(), found.end(), distinct.mutable_data_ptr<Row>());
  return {distinct, inverse};
}

// rows int32 or int64 (N,), fewer than 2^31. Gives the distinct ones, and int32 (N,).
std::tuple<at::Tensor, at::Tensor> distinct(const at::Tensor& rows) {
  return rows.scalar_type() == at::kInt ? distinct_of<int32_t>(rows) : distinct_of<int64_t>(rows);
}

FOR_EACH_CPU
void add_up(const float* vectors, const int32_t* place, int64_t N, int64_t width, float* sums) {
  for (int64_t i = 0; i < N; i++) {
    for (int64_t c = 0; c < width; c++) sums[place[i] * width + c] += vectors[i * width + c];
  }
}

// vectors (N, width), places int32 (N,) among `count`. Gives the sums (count, width).
at::Tensor sum_by_place(const at::Tensor& vectors, const at::Tensor& places, int64_t count) {
  auto sums = at::zeros({count, vectors.size(1)}, vectors.options());
  add_up(
      vectors.const_data_ptr<float>(), places.const_data_ptr<int32_t>(), vectors.size(0), vectors.size(1),
      sums.mutable_data_ptr<float>());
  return sums;
}

constexpr int64_t AHEAD = 12;  // rows that are on their way from memory while one is worked on

struct Adam {
  float beta1, beta2, eps, rate, correction;  // rate: the learning rate over the first moment's bias; correction: 1 over the second's root
};

FOR_EACH_CPU
void update_rows(
    float* table, float* means, float* squares, const int64_t* rows, const float* gradients, int64_t width, const Adam& adam,
    int64_t first, int64_t last) {
  for (int64_t i = first; i < last; i++) {
    if (i + AHEAD < last) {  // rows lie anywhere in memory
      const int64_t next = rows[i + AHEAD] * width;
      __builtin_prefetch(table + next, 1);
      __builtin_prefetch(means + next, 1);
      __builtin_prefetch(squares + next, 1);
    }
    float* weight = table + rows[i] * width;
    float* mean = means + rows[i] * width;
    float* square = squares + rows[i] * width;
    const float* gradient = gradients + i * width;
    for (int64_t c = 0; c < width; c++) {
      const float g = gradient[c];
      mean[c] += (1.0f - adam.beta1) * (g - mean[c]);
      square[c] = adam.beta2 * square[c] + (1.0f - adam.beta2) * g * g;
      weight[c] -= adam.rate * mean[c] / (std::sqrt(square[c]) * adam.correction + adam.eps);
    }
  }
}

// Adam's step on the rows of a table; rows int64 (N,), each once, gradients (N, width).
void lazy_adam(
    at::Tensor& table, at::Tensor& means, at::Tensor& squares, const at::Tensor& rows, const at::Tensor& gradients, double beta1,
    double beta2, double eps, double rate, double correction) {
  const Adam adam{
      static_cast<float>(beta1), static_cast<float>(beta2), static_cast<float>(eps), static_cast<float>(rate),
      static_cast<float>(correction)};
  at::parallel_for(0, rows.numel(), 512, [&](int64_t first, int64_t last) {
    update_rows(
        table.mutable_data_ptr<float>(), means.mutable_data_ptr<float>(), squares.mutable_data_ptr<float>(),
        rows.const_data_ptr<int64_t>(), gradients.const_data_ptr<float>(), table.size(1), adam, first, last);
  });
}

FOR_EACH_CPU
void update_rows_by_adagrad(
    float* table, float* squares, const int64_t* rows, const float* gradients, int64_t width, float rate, float eps, int64_t first,
    int64_t last) {
  for (int64_t i = first; i < last; i++) {
    if (i + AHEAD < last) {
      __builtin_prefetch(table + rows[i + AHEAD] * width, 1);
      __builtin_prefetch(squares + rows[i + AHEAD], 1);
    }
    float* weight = table + rows[i] * width;
    const float* gradient = gradients + i * width;
    float sum = 0.0f;
    for (int64_t c = 0; c < width; c++) sum += gradient[c] * gradient[c];
    const float square = squares[rows[i]] += sum / width;
    const float scale = rate / (std::sqrt(square) + eps);
    for (int64_t c = 0; c < width; c++) weight[c] -= scale * gradient[c];
  }
}

// Row-wise Adagrad's step on the rows of a table; squares (R,), rows int64 (N,), each once, gradients (N, width).
void rowwise_adagrad(
    at::Tensor& table, at::Tensor& squares, const at::Tensor& rows, const at::Tensor& gradients, double rate, double eps) {
  at::parallel_for(0, rows.numel(), 512, [&](int64_t first, int64_t last) {
    update_rows_by_adagrad(
        table.mutable_data_ptr<float>(), squares.mutable_data_ptr<float>(), rows.const_data_ptr<int64_t>(),
        gradients.const_data_ptr<float>(), table.size(1), static_cast<float>(rate), static_cast<float>(eps), first, last);
  });
}

}  // namespace mian
