// linear on the CPU: tensors to pointers, rows to threads.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>

#include "cpu_capability.h"
#include "linear.h"
#include "result_memory.h"
#include "tensors.h"

namespace serfast {
namespace {

// Multiplications one thread must have to do before another is worth waking.
constexpr int64_t PRODUCTS_PER_THREAD = 1 << 18;

template <typename scalar_t>
Tensor multiply(const Tensor& rows, const Tensor& weight, const std::optional<Tensor>& bias) {
  const LinearInputs<scalar_t> inputs = {
      pointer<scalar_t>(rows), pointer<scalar_t>(weight), pointer<scalar_t>(bias), weight.size(1), weight.size(0)};
  constexpr int64_t n_outputs = PANEL_OUTPUTS<scalar_t>;
  const int64_t n_panels = (inputs.n_out + n_outputs - 1) / n_outputs;
  const Tensor panels = torch::stable::new_empty(rows, {n_panels, inputs.n_in, n_outputs});
  const Tensor outputs = new_result(rows, {rows.size(0), inputs.n_out});
  scalar_t* panel = panels.mutable_data_ptr<scalar_t>();
  scalar_t* output = outputs.mutable_data_ptr<scalar_t>();
  const int64_t panel_size = inputs.n_in * n_outputs;
  const auto share = [](int64_t n_products) {
    return std::max<int64_t>(1, PRODUCTS_PER_THREAD / std::max<int64_t>(1, n_products));
  };
  torch::stable::parallel_for(0, n_panels, share(panel_size), [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      kernels<LinearKernels<scalar_t>>().pack_panel(inputs, index * n_outputs, panel + index * panel_size);
    }
  });
  torch::stable::parallel_for(0, rows.size(0), share(n_panels * panel_size), [&](int64_t begin, int64_t end) {
    kernels<LinearKernels<scalar_t>>().multiply_rows(inputs, panel, begin, end, output);
  });
  return outputs;
}

Tensor linear(
    const Tensor& rows,                   // (row, n_in)
    const Tensor& weight,                 // (n_out, n_in)
    const std::optional<Tensor>& bias) {  // (n_out)
  return with_sum_type_of(
      rows, [&](auto zero) { return multiply<decltype(zero)>(dense(rows), dense(weight), dense(bias)); });
}

template <typename scalar_t>
Tensor sum_outer_products(const Tensor& left, const Tensor& right) {
  const OuterProducts<scalar_t> factors = {
      left.const_data_ptr<scalar_t>(), right.const_data_ptr<scalar_t>(), left.size(1), right.size(1), left.stride(0)};
  constexpr int64_t n_outputs = PANEL_OUTPUTS<scalar_t>;
  const int64_t n_panels = (factors.n_right + n_outputs - 1) / n_outputs;
  const Tensor panels = torch::stable::new_empty(left, {n_panels, CHUNK_ROWS, n_outputs});
  const Tensor sums = torch::stable::new_zeros(left, {factors.n_left, factors.n_right});
  scalar_t* panel = panels.mutable_data_ptr<scalar_t>();
  const int64_t share = std::max<int64_t>(1, PRODUCTS_PER_THREAD / (CHUNK_ROWS * n_panels * n_outputs));
  for (int64_t first = 0; first < left.size(0); first += CHUNK_ROWS) {
    const int64_t n_rows = std::min(CHUNK_ROWS, left.size(0) - first);
    kernels<LinearKernels<scalar_t>>().pack_rows(factors, first, n_rows, panel);
    torch::stable::parallel_for(0, factors.n_left, share, [&](int64_t begin, int64_t end) {
      kernels<LinearKernels<scalar_t>>().add_outer_products(
          factors, panel, first, n_rows, begin, end, sums.mutable_data_ptr<scalar_t>());
    });
  }
  return sums;
}

Tensor linear_grad_weight(
    const Tensor& grad_outputs,  // (row, n_out)
    const Tensor& rows) {        // (row, n_in)
  const Tensor slopes = grad_outputs.stride(1) == 1 ? grad_outputs : dense(grad_outputs);
  return with_sum_type_of(rows, [&](auto zero) { return sum_outer_products<decltype(zero)>(slopes, dense(rows)); });
}

STABLE_TORCH_LIBRARY_IMPL(serfast, CPU, library) {
  library.impl("linear", TORCH_BOX(&linear));
  library.impl("linear_grad_weight", TORCH_BOX(&linear_grad_weight));
}

}  // namespace
}  // namespace serfast
