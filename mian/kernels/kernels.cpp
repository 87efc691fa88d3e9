// The operators that torch knows as torch.ops.mian. One file is compiled: what takes the time is reading torch's headers.

#include <torch/library.h>

#include "mian/kernels/attention_pooling.h"
#include "mian/kernels/dropout.h"
#include "mian/kernels/embedding_rows.h"
#include "mian/kernels/jagged.h"
#include "mian/kernels/recurrence.h"
#include "mian/kernels/self_attention.h"

TORCH_LIBRARY(mian, library) {
  library.def("attention(Tensor query_key_value, Tensor offsets, int heads) -> (Tensor, Tensor, Tensor)");
  library.def(
      "attention_backward(Tensor grad_output, Tensor query_key_value, Tensor offsets, Tensor output, Tensor tops, Tensor inverses, "
      "int heads) -> Tensor");
  library.def("softmax(Tensor scores, Tensor offsets) -> Tensor");
  library.def("softmax_backward(Tensor grad_weights, Tensor weights, Tensor offsets) -> Tensor");
  library.def("pool(Tensor scores, Tensor vectors, Tensor offsets) -> (Tensor, Tensor)");
  library.def("pool_backward(Tensor grad_sums, Tensor weights, Tensor vectors, Tensor offsets) -> (Tensor, Tensor)");
  library.def("recurrence(Tensor x, Tensor attention, Tensor recurrent, Tensor offsets) -> Tensor");
  library.def(
      "recurrence_backward(Tensor grad_states, Tensor x, Tensor attention, Tensor recurrent, Tensor offsets, Tensor states) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  library.def("dropout(Tensor x, float probability, int seed) -> Tensor");
  library.def("field_rows(Tensor[] columns, Tensor? places, int[] starts, int[] sizes, bool is_long) -> (Tensor, int)");
  library.def("distinct(Tensor rows) -> (Tensor, Tensor)");
  library.def("sum_by_place(Tensor vectors, Tensor places, int count) -> Tensor");
  library.def(
      "lazy_adam(Tensor(a!) table, Tensor(b!) means, Tensor(c!) squares, Tensor rows, Tensor gradients, float beta1, float beta2, "
      "float eps, float rate, float correction) -> ()");
  library.def(
      "rowwise_adagrad(Tensor(a!) table, Tensor(b!) squares, Tensor rows, Tensor gradients, float rate, float eps) -> ()");
  library.def("pack(Tensor lengths, int longest) -> (Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(mian, CPU, library) {
  library.impl("attention", &mian::attention);
  library.impl("attention_backward", &mian::attention_backward);
  library.impl("softmax", &mian::softmax);
  library.impl("softmax_backward", &mian::softmax_backward);
  library.impl("pool", &mian::pool);
  library.impl("pool_backward", &mian::pool_backward);
  library.impl("recurrence", &mian::recurrence);
  library.impl("recurrence_backward", &mian::recurrence_backward);
  library.impl("dropout", &mian::dropout);
  library.impl("field_rows", &mian::field_rows);
  library.impl("distinct", &mian::distinct);
  library.impl("sum_by_place", &mian::sum_by_place);
  library.impl("lazy_adam", &mian::lazy_adam);
  library.impl("rowwise_adagrad", &mian::rowwise_adagrad);
  library.impl("pack", &mian::pack);
}
