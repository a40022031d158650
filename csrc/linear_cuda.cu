// linear on CUDA (linear.h has the equation): tensors to pointers, and one launch.

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <optional>
#include <type_traits>

#include "linear_half_kernel.cuh"
#include "linear_kernel.cuh"
#include "tensors.h"

namespace serfast {
namespace {

unsigned n_tiles(const Tensor& outputs, int64_t tile_rows, int64_t tile_outs) {
  const int64_t n_row_tiles = (outputs.size(0) + tile_rows - 1) / tile_rows;
  return static_cast<unsigned>(n_row_tiles * ((outputs.size(1) + tile_outs - 1) / tile_outs));
}

template <typename scalar_t>
void multiply(
    const Tensor& rows,                 // (row, n_in)
    const Tensor& weight,               // (n_out, n_in)
    const std::optional<Tensor>& bias,  // (n_out)
    const Tensor& outputs) {            // (row, n_out)
  const LinearInputs<scalar_t> inputs = {
      pointer<scalar_t>(rows), pointer<scalar_t>(weight), pointer<scalar_t>(bias), weight.size(1), weight.size(0)};
  linear_kernel<<<n_tiles(outputs, TILE_SIDE, TILE_SIDE), LINEAR_THREADS, 0, current_stream(rows)>>>(
      inputs, rows.size(0), outputs.mutable_data_ptr<scalar_t>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename scalar_t>
void multiply_half(
    const Tensor& rows,                 // (row, n_in)
    const Tensor& weight,               // (n_out, n_in)
    const std::optional<Tensor>& bias,  // (n_out), float32
    const Tensor& outputs) {            // (row, n_out)
  const HalfLinearInputs<scalar_t> inputs = {pointer<scalar_t>(rows), pointer<scalar_t>(weight),
                                             pointer<float>(bias),    rows.size(0),
                                             weight.size(1),          weight.size(0)};
  const auto is_aligned = [](const void* start) { return reinterpret_cast<uintptr_t>(start) % 16 == 0; };
  const bool aligned = inputs.n_in % HALF_PIECE == 0 && is_aligned(inputs.rows) && is_aligned(inputs.weight);
  const auto kernel = aligned ? linear_half_kernel<scalar_t, true> : linear_half_kernel<scalar_t, false>;
  kernel<<<n_tiles(outputs, HALF_TILE_ROWS, HALF_TILE_OUTS), HALF_THREADS, 0, current_stream(rows)>>>(
      inputs, static_cast<scalar_t*>(outputs.mutable_data_ptr()));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor linear(
    const Tensor& rows,                   // (row, n_in)
    const Tensor& weight,                 // (n_out, n_in)
    const std::optional<Tensor>& bias) {  // (n_out), float32 beside half types
  const torch::stable::accelerator::DeviceGuard guard(rows.get_device_index());
  const Tensor outputs = torch::stable::new_empty(rows, {rows.size(0), weight.size(0)});
  if (rows.size(0) > 0) {
    with_type_of(rows, [&](auto zero) {
      using scalar_t = decltype(zero);
      if constexpr (std::is_floating_point_v<scalar_t>) {
        multiply<scalar_t>(dense(rows), dense(weight), dense(bias), outputs);
      } else {
        multiply_half<scalar_t>(dense(rows), dense(weight), dense(bias), outputs);
      }
    });
  }
  return outputs;
}

STABLE_TORCH_LIBRARY_IMPL(serfast, CUDA, library) { library.impl("linear", TORCH_BOX(&linear)); }

}  // namespace
}  // namespace serfast
