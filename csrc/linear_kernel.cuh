// linear on CUDA in float32 and float64 (linear.h has the equation): one block per tile of rows and outputs, one chain
// of fused multiply-adds per output.

#pragma once

#include <cuda_runtime.h>

#include "linear.h"

namespace serfast {

// Outputs of one thread, in each direction: 16 sums fill its registers without spilling, and four neighbours are loaded
// at once.
constexpr int THREAD_TILE = 4;
constexpr int SIDE_THREADS = 16;
constexpr int LINEAR_THREADS = SIDE_THREADS * SIDE_THREADS;
// Rows, and outputs, of one block.
constexpr int TILE_SIDE = SIDE_THREADS * THREAD_TILE;
// Blocks that must fit a multiprocessor. Unasked, the compiler makes room for more of them and spills registers.
constexpr int LINEAR_BLOCKS = 2;
// Inner numbers that shared memory holds at a time.
constexpr int TILE_DEPTH = 16;
// Fours of one inner number, and one more than needed: neighbouring threads then write to different banks.
constexpr int TILE_STRIDE = SIDE_THREADS + 1;

// What a thread loads at once: neighbouring rows, or neighbouring outputs, of one inner number.
template <typename scalar_t>
struct alignas(THREAD_TILE * sizeof(float)) ThreadNumbers {
  scalar_t number[THREAD_TILE];
};

// Rows [first, first + TILE_SIDE) of a matrix, inner numbers [depth, depth + TILE_DEPTH), zero outside of it.
template <typename scalar_t>
__device__ void load_tile(
    const scalar_t* __restrict__ matrix,  // (n_rows, n_in)
    int64_t first,
    int64_t n_rows,
    int64_t depth,
    int64_t n_in,
    ThreadNumbers<scalar_t> (*tile)[TILE_STRIDE]) {  // (TILE_DEPTH, SIDE_THREADS)
  for (int i = threadIdx.x; i < TILE_SIDE * TILE_DEPTH; i += LINEAR_THREADS) {
    const int row = i / TILE_DEPTH;
    const int in = i % TILE_DEPTH;
    const bool is_inside = first + row < n_rows && depth + in < n_in;
    tile[in][row / THREAD_TILE].number[row % THREAD_TILE] =
        is_inside ? matrix[(first + row) * n_in + depth + in] : scalar_t(0);
  }
}

// Blocks run over the outputs first, so that neighbours share their rows.
template <typename scalar_t>
__global__ void __launch_bounds__(LINEAR_THREADS, LINEAR_BLOCKS) linear_kernel(
    LinearInputs<scalar_t> inputs,
    int64_t n_rows,
    scalar_t* __restrict__ outputs) {  // (row, n_out)
  using Numbers = ThreadNumbers<scalar_t>;
  __shared__ Numbers row_tile[TILE_DEPTH][TILE_STRIDE];
  __shared__ Numbers weight_tile[TILE_DEPTH][TILE_STRIDE];
  const int64_t n_out_tiles = (inputs.n_out + TILE_SIDE - 1) / TILE_SIDE;
  const int64_t first_row = blockIdx.x / n_out_tiles * TILE_SIDE;
  const int64_t first_out = blockIdx.x % n_out_tiles * TILE_SIDE;
  const int row = static_cast<int>(threadIdx.x) / SIDE_THREADS * THREAD_TILE;
  const int out = static_cast<int>(threadIdx.x) % SIDE_THREADS * THREAD_TILE;
  scalar_t sums[THREAD_TILE][THREAD_TILE];
  for (int j = 0; j < THREAD_TILE; ++j) {
    const int64_t column = first_out + out + j;
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
      const Numbers rows = row_tile[in][row / THREAD_TILE];
      const Numbers weights = weight_tile[in][out / THREAD_TILE];
      for (int i = 0; i < THREAD_TILE; ++i) {
        for (int j = 0; j < THREAD_TILE; ++j) {
          sums[i][j] = fma(rows.number[i], weights.number[j], sums[i][j]);
        }
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < THREAD_TILE; ++i) {
    for (int j = 0; j < THREAD_TILE; ++j) {
      const int64_t line = first_row + row + i;
      const int64_t column = first_out + out + j;
      if (line < n_rows && column < inputs.n_out) {
        outputs[line * inputs.n_out + column] = sums[i][j];
      }
    }
  }
}

}  // namespace serfast
