// linear on CUDA (linear.h has the equation): one block per tile of rows and outputs, one chain per output.

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <optional>

#include "linear.h"
#include "tensors.h"

namespace serfast {
namespace {

// Outputs of one thread, in each direction: 16 sums fill its registers without spilling.
constexpr int THREAD_TILE = 4;
constexpr int SIDE_THREADS = 16;
constexpr int LINEAR_THREADS = SIDE_THREADS * SIDE_THREADS;
// Rows, and outputs, of one block.
constexpr int TILE_SIDE = SIDE_THREADS * THREAD_TILE;
// Blocks that must fit a multiprocessor. Unasked, the compiler makes room for more of them and spills registers.
constexpr int LINEAR_BLOCKS = 2;
// Inner numbers that shared memory holds at a time.
constexpr int TILE_DEPTH = 16;
// One more column than needed: neighbouring threads then write to different banks.
constexpr int TILE_STRIDE = TILE_SIDE + 1;

// Rows [first, first + TILE_SIDE) of a matrix, inner numbers [depth, depth + TILE_DEPTH), zero outside of it.
template <typename scalar_t>
__device__ void load_tile(
    const scalar_t* __restrict__ matrix,  // (n_rows, n_in)
    int64_t first,
    int64_t n_rows,
    int64_t depth,
    int64_t n_in,
    scalar_t (*tile)[TILE_STRIDE]) {  // (TILE_DEPTH, TILE_SIDE)
  for (int i = threadIdx.x; i < TILE_SIDE * TILE_DEPTH; i += LINEAR_THREADS) {
    const int row = i / TILE_DEPTH;
    const int in = i % TILE_DEPTH;
    const bool is_inside = first + row < n_rows && depth + in < n_in;
    tile[in][row] = is_inside ? matrix[(first + row) * n_in + depth + in] : scalar_t(0);
  }
}

// Blocks run over the outputs first, so that neighbours share their rows.
template <typename scalar_t>
__global__ void __launch_bounds__(LINEAR_THREADS, LINEAR_BLOCKS) linear_kernel(
    LinearInputs<scalar_t> inputs,
    int64_t n_rows,
    scalar_t* __restrict__ outputs) {  // (row, n_out)
  __shared__ scalar_t row_tile[TILE_DEPTH][TILE_STRIDE];
  __shared__ scalar_t weight_tile[TILE_DEPTH][TILE_STRIDE];
  const int64_t n_out_tiles = (inputs.n_out + TILE_SIDE - 1) / TILE_SIDE;
  const int64_t first_row = blockIdx.x / n_out_tiles * TILE_SIDE;
  const int64_t first_out = blockIdx.x % n_out_tiles * TILE_SIDE;
  const int row = threadIdx.x / SIDE_THREADS;
  const int out = threadIdx.x % SIDE_THREADS;
  scalar_t sums[THREAD_TILE][THREAD_TILE];
  for (int j = 0; j < THREAD_TILE; ++j) {
    const int64_t column = first_out + out + j * SIDE_THREADS;
    const scalar_t start = inputs.bias != nullptr && column < inputs.n_out ? inputs.bias[column] : scalar_t(0);
    for (int i = 0; i < THREAD_TILE; ++i) {
      sums[i][j] = start;
    }
  }
  for (int64_t depth = 0; depth < inputs.n_in; depth += TILE_DEPTH) {
    load_tile(inputs.rows, first_row, n_rows, depth, inputs.n_in, row_tile);
    load_tile(inputs.weight, first_out, inputs.n_out, depth, inputs.n_in, weight_tile);
    __syncthreads();
    const int n_depth = static_cast<int>(inputs.n_in - depth < TILE_DEPTH ? inputs.n_in - depth : TILE_DEPTH);
    for (int in = 0; in < n_depth; ++in) {
      for (int i = 0; i < THREAD_TILE; ++i) {
        for (int j = 0; j < THREAD_TILE; ++j) {
          sums[i][j] = fma(row_tile[in][row + i * SIDE_THREADS], weight_tile[in][out + j * SIDE_THREADS], sums[i][j]);
        }
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < THREAD_TILE; ++i) {
    for (int j = 0; j < THREAD_TILE; ++j) {
      const int64_t line = first_row + row + i * SIDE_THREADS;
      const int64_t column = first_out + out + j * SIDE_THREADS;
      if (line < n_rows && column < inputs.n_out) {
        outputs[line * inputs.n_out + column] = sums[i][j];
      }
    }
  }
}

template <typename scalar_t>
Tensor multiply(const Tensor& rows, const Tensor& weight, const std::optional<Tensor>& bias) {
  const LinearInputs<scalar_t> inputs = {
      pointer<scalar_t>(rows), pointer<scalar_t>(weight), pointer<scalar_t>(bias), weight.size(1), weight.size(0)};
  const Tensor outputs = torch::stable::new_empty(rows, {rows.size(0), inputs.n_out});
  const int64_t n_row_tiles = (rows.size(0) + TILE_SIDE - 1) / TILE_SIDE;
  const int64_t n_blocks = n_row_tiles * ((inputs.n_out + TILE_SIDE - 1) / TILE_SIDE);
  if (n_blocks > 0) {
    linear_kernel<<<static_cast<unsigned>(n_blocks), LINEAR_THREADS, 0, current_stream(rows)>>>(
        inputs, rows.size(0), outputs.mutable_data_ptr<scalar_t>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return outputs;
}

Tensor linear(
    const Tensor& rows,                   // (row, n_in)
    const Tensor& weight,                 // (n_out, n_in)
    const std::optional<Tensor>& bias) {  // (n_out)
  const torch::stable::accelerator::DeviceGuard guard(rows.get_device_index());
  return with_sum_type_of(
      rows, [&](auto zero) { return multiply<decltype(zero)>(dense(rows), dense(weight), dense(bias)); });
}

STABLE_TORCH_LIBRARY_IMPL(serfast, CUDA, library) { library.impl("linear", TORCH_BOX(&linear)); }

}  // namespace
}  // namespace serfast
