// blstm on CUDA: tensors to pointers, and launches that depend on shapes alone. Nothing waits for the device.

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>
#include <type_traits>

#include "blstm_kernel.cuh"
#include "tensors.h"

namespace serfast {
namespace {

// Shared memory that a block of every device since sm_80 can have for its state, if it asks.
constexpr int64_t SHARED_BYTES = 96 * 1024;
// Blocks of the kernel that reorders the recurrent matrix.
constexpr unsigned PACK_BLOCKS = 256;

// The recurrent matrices as the two kernels read them, one after the other (2, group, direction, ...).
template <typename scalar_t>
Tensor packed(const Tensor& recurrent, cudaStream_t stream) {
  Tensor both = torch::stable::new_empty(recurrent, {2, recurrent.numel()});
  scalar_t* numbers = both.mutable_data_ptr<scalar_t>();
  blstm_pack_kernel<scalar_t><<<PACK_BLOCKS, BLSTM_THREADS, 0, stream>>>(
      recurrent.const_data_ptr<scalar_t>(), recurrent.size(0) * recurrent.size(1), recurrent.size(3), numbers,
      numbers + recurrent.numel());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return both;
}

template <typename Kernel>
void ask_for_shared_memory(Kernel kernel) {
  STD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES));
}

// Calls launch(tile size, grid, shared bytes) with the largest tile whose state fits into shared memory. How many
// utterances a group has is known on the device alone: each gets blocks for all of them, and those left over end at once.
template <typename scalar_t, typename Launch>
void with_tile(const BlstmBatch& batch, int64_t n_directions, int64_t n_units, const Launch& launch) {
  const int64_t n_bytes = BLSTM_STATE_NUMBERS * n_units * static_cast<int64_t>(sizeof(scalar_t));
  const auto run = [&](auto tile) {
    const unsigned n_tiles = static_cast<unsigned>((batch.n_utterances + tile - 1) / tile);
    const dim3 grid(n_tiles, static_cast<unsigned>(n_directions), static_cast<unsigned>(batch.n_groups));
    launch(tile, grid, static_cast<size_t>(tile * n_bytes));
  };
  if (8 * n_bytes <= SHARED_BYTES) {
    run(std::integral_constant<int, 8>());
  } else if (2 * n_bytes <= SHARED_BYTES) {
    run(std::integral_constant<int, 2>());
  } else {
    STD_TORCH_CHECK(
        n_bytes <= SHARED_BYTES, "blstm must have at most ", SHARED_BYTES / (n_bytes / n_units), " units on CUDA, got ",
        n_units);
    run(std::integral_constant<int, 1>());
  }
}

// What a launch reads of a batch, dense.
struct Batch {
  Tensor first_rows;             // (batch)
  Tensor lengths;                // (batch)
  std::optional<Tensor> groups;  // (batch)

  BlstmBatch on(const Tensor& rows, const Tensor& recurrent, int64_t first_direction) const {
    return {
        pointer<int64_t>(first_rows),
        pointer<int64_t>(lengths),
        pointer<int64_t>(groups),
        lengths.numel(),
        rows.size(0),
        recurrent.size(0),
        first_direction};
  }
};

template <typename scalar_t>
std::tuple<Tensor, Tensor, Tensor> forward(
    const Tensor& projected, const Tensor& recurrent, const BlstmBatch& batch, bool saves) {
  const int64_t n_directions = recurrent.size(1);
  const int64_t n_units = recurrent.size(3);
  const int64_t n_saved = saves ? projected.size(0) : 0;
  const cudaStream_t stream = current_stream(projected);
  Tensor hidden = torch::stable::new_empty(projected, {projected.size(0), n_directions * n_units});
  Tensor cell = torch::stable::new_empty(projected, {n_saved, n_directions * n_units});
  Tensor gates = torch::stable::new_empty(projected, {n_saved, projected.size(1)});
  const Tensor matrices = packed<scalar_t>(recurrent, stream);
  const BlstmForward<scalar_t> layer = {
      projected.const_data_ptr<scalar_t>(),
      matrices.const_data_ptr<scalar_t>(),
      hidden.mutable_data_ptr<scalar_t>(),
      saves ? cell.mutable_data_ptr<scalar_t>() : nullptr,
      saves ? gates.mutable_data_ptr<scalar_t>() : nullptr,
      n_directions,
      n_units};
  with_tile<scalar_t>(batch, n_directions, n_units, [&](auto tile, dim3 grid, size_t n_bytes) {
    const auto kernel = blstm_kernel<scalar_t, tile()>;
    ask_for_shared_memory(kernel);
    kernel<<<grid, BLSTM_THREADS, n_bytes, stream>>>(layer, batch);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {hidden, cell, gates};
}

std::tuple<Tensor, Tensor, Tensor> blstm_recurrence(
    const Tensor& projected,              // (row, direction * unit * gate)
    const Tensor& recurrent,              // (group, direction, gate * unit, unit)
    const Tensor& first_rows,             // (batch)
    const Tensor& lengths,                // (batch)
    const std::optional<Tensor>& groups,  // (batch)
    const std::optional<Tensor>&,         // what the gradient of `recurrent` needs on the CPU
    int64_t first_direction,
    bool saves) {
  const torch::stable::accelerator::DeviceGuard guard(projected.get_device_index());
  const Tensor rows = dense(projected);
  const Tensor matrices = dense(recurrent);
  const Batch own = {dense(first_rows), dense(lengths), dense(groups)};
  const BlstmBatch batch = own.on(rows, matrices, first_direction);
  return with_sum_type_of(projected, [&](auto zero) { return forward<decltype(zero)>(rows, matrices, batch, saves); });
}

template <typename scalar_t>
Tensor backward(
    const Tensor& grad_hidden,
    const Tensor& recurrent,
    const Tensor& cell,
    const Tensor& gates,
    const BlstmBatch& batch) {
  const int64_t n_directions = recurrent.size(1);
  const int64_t n_units = recurrent.size(3);
  const cudaStream_t stream = current_stream(gates);
  Tensor grad_projected = torch::stable::new_empty(gates, gates.sizes());
  const Tensor matrices = packed<scalar_t>(recurrent, stream);
  const BlstmBackward<scalar_t> layer = {
      grad_hidden.const_data_ptr<scalar_t>(),
      matrices.const_data_ptr<scalar_t>() + recurrent.numel(),
      cell.const_data_ptr<scalar_t>(),
      gates.const_data_ptr<scalar_t>(),
      grad_projected.mutable_data_ptr<scalar_t>(),
      n_directions,
      n_units};
  with_tile<scalar_t>(batch, n_directions, n_units, [&](auto tile, dim3 grid, size_t n_bytes) {
    const auto kernel = blstm_backward_kernel<scalar_t, tile()>;
    ask_for_shared_memory(kernel);
    kernel<<<grid, BLSTM_THREADS, n_bytes, stream>>>(layer, batch);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad_projected;
}

Tensor blstm_recurrence_backward(
    const Tensor& grad_hidden,            // (row, direction * unit)
    const Tensor& recurrent,              // (group, direction, gate * unit, unit)
    const Tensor& first_rows,             // (batch)
    const Tensor& lengths,                // (batch)
    const std::optional<Tensor>& groups,  // (batch)
    const Tensor& cell,                   // (row, direction * unit)
    const Tensor& gates,                  // (row, direction * unit * gate)
    int64_t first_direction) {
  const torch::stable::accelerator::DeviceGuard guard(gates.get_device_index());
  const Tensor slopes = dense(grad_hidden);
  const Tensor matrices = dense(recurrent);
  const Batch own = {dense(first_rows), dense(lengths), dense(groups)};
  const BlstmBatch batch = own.on(gates, matrices, first_direction);
  return with_sum_type_of(
      gates, [&](auto zero) { return backward<decltype(zero)>(slopes, matrices, cell, gates, batch); });
}

STABLE_TORCH_LIBRARY_IMPL(serfast, CUDA, library) {
  library.impl("blstm_recurrence", TORCH_BOX(&blstm_recurrence));
  library.impl("blstm_recurrence_backward", TORCH_BOX(&blstm_recurrence_backward));
}

}  // namespace
}  // namespace serfast
