// linear on CUDA in half types (linear.h has the equation): one block per tile of rows and outputs, on tensor cores.
//
// Products are exact and summed in float32, 16 of a sum at a time in ascending order, and b_o is added last: nothing
// depends on how many rows there are. While one slice of the inner numbers is multiplied, the next is on its way.

#pragma once

#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>
#include <mma.h>

#include <type_traits>

#include "half.cuh"

namespace serfast {

// Side of the squares that tensor cores multiply.
constexpr int SQUARE = 16;
// Squares of one warp, in each direction.
constexpr int WARP_SQUARES = 2;
constexpr int WARP_SIDE = WARP_SQUARES * SQUARE;
constexpr int ROW_WARPS = 4;
constexpr int OUT_WARPS = 2;
constexpr int HALF_THREADS = ROW_WARPS * OUT_WARPS * 32;
// Blocks that must fit a multiprocessor: their shared memory would let in a few more, their registers need not.
constexpr int HALF_BLOCKS = 3;
constexpr int HALF_TILE_ROWS = ROW_WARPS * WARP_SIDE;
constexpr int HALF_TILE_OUTS = OUT_WARPS * WARP_SIDE;
// Inner numbers of a slice. A longer stride sends neighbouring rows to different banks.
constexpr int HALF_DEPTH = 32;
constexpr int HALF_STRIDE = HALF_DEPTH + 8;
// Slices in shared memory: one that is multiplied and one on its way.
constexpr int N_STAGES = 2;
// Numbers of 16 bytes.
constexpr int HALF_PIECE = 8;
// Floats between the rows of a warp's square on its way out.
constexpr int SQUARE_STRIDE = SQUARE + 4;

// What tensor cores demand of the squares they load.
constexpr int SHARED_ALIGNMENT = 32;

template <typename scalar_t>
using TensorNumber = std::conditional_t<std::is_same_v<scalar_t, BFloat16>, __nv_bfloat16, __half>;

template <typename scalar_t>
struct HalfLinearInputs {
  const scalar_t* rows;    // (row, n_in)
  const scalar_t* weight;  // (n_out, n_in)
  const float* bias;       // (n_out), or null for zero
  int64_t n_rows;
  int64_t n_in;
  int64_t n_out;
};

template <typename scalar_t>
struct HalfStage {
  scalar_t rows[HALF_TILE_ROWS][HALF_STRIDE];
  scalar_t weights[HALF_TILE_OUTS][HALF_STRIDE];
};

// Shared memory of a block: the slices, and afterwards a square of each warp on its way out.
template <typename scalar_t>
union alignas(SHARED_ALIGNMENT) HalfShared {
  HalfStage<scalar_t> stages[N_STAGES];
  float squares[ROW_WARPS * OUT_WARPS][SQUARE][SQUARE_STRIDE];
};

// Rows [first, first + n_tile_rows) of a matrix, inner numbers [depth, depth + HALF_DEPTH), zero outside of it.
// `aligned`: its rows are whole pieces on 16-byte boundaries, and are not waited for.
template <int n_tile_rows, bool aligned, typename scalar_t>
__device__ void load_half_tile(
    const scalar_t* matrix,  // (n_rows, n_in)
    int64_t first,
    int64_t n_rows,
    int64_t depth,
    int64_t n_in,
    scalar_t (*tile)[HALF_STRIDE]) {
  constexpr int step = aligned ? HALF_PIECE : 1;
  constexpr int n_across = HALF_DEPTH / step;
  for (int i = threadIdx.x; i < n_tile_rows * n_across; i += HALF_THREADS) {
    const int row = i / n_across;
    const int in = i % n_across * step;
    const bool is_inside = first + row < n_rows && depth + in < n_in;
    const scalar_t* source = is_inside ? matrix + (first + row) * n_in + depth + in : matrix;
    if constexpr (aligned) {
      constexpr size_t bytes = HALF_PIECE * sizeof(scalar_t);
      __pipeline_memcpy_async(&tile[row][in], source, bytes, is_inside ? 0 : bytes);
    } else {
      tile[row][in] = is_inside ? *source : scalar_t{};
    }
  }
}

// Blocks run over the outputs first, so that neighbours share their rows.
template <typename scalar_t, bool aligned>
__global__ void __launch_bounds__(HALF_THREADS, HALF_BLOCKS) linear_half_kernel(
    HalfLinearInputs<scalar_t> inputs,
    scalar_t* __restrict__ outputs) {  // (row, n_out)
  namespace wmma = nvcuda::wmma;
  using number_t = TensorNumber<scalar_t>;
  using Rows = wmma::fragment<wmma::matrix_a, SQUARE, SQUARE, SQUARE, number_t, wmma::row_major>;
  using Weights = wmma::fragment<wmma::matrix_b, SQUARE, SQUARE, SQUARE, number_t, wmma::col_major>;
  using Sums = wmma::fragment<wmma::accumulator, SQUARE, SQUARE, SQUARE, float>;
  __shared__ HalfShared<scalar_t> shared;
  const int64_t n_out_tiles = (inputs.n_out + HALF_TILE_OUTS - 1) / HALF_TILE_OUTS;
  const int64_t first_row = blockIdx.x / n_out_tiles * HALF_TILE_ROWS;
  const int64_t first_out = blockIdx.x % n_out_tiles * HALF_TILE_OUTS;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp_row = warp / OUT_WARPS * WARP_SIDE;
  const int warp_out = warp % OUT_WARPS * WARP_SIDE;
  Sums sums[WARP_SQUARES][WARP_SQUARES];
#pragma unroll
  for (int i = 0; i < WARP_SQUARES; ++i) {
#pragma unroll
    for (int j = 0; j < WARP_SQUARES; ++j) {
      wmma::fill_fragment(sums[i][j], 0.0f);
    }
  }
  const auto load = [&](int64_t depth) {
    HalfStage<scalar_t>& stage = shared.stages[depth / HALF_DEPTH % N_STAGES];
    load_half_tile<HALF_TILE_ROWS, aligned>(inputs.rows, first_row, inputs.n_rows, depth, inputs.n_in, stage.rows);
    load_half_tile<HALF_TILE_OUTS, aligned>(inputs.weight, first_out, inputs.n_out, depth, inputs.n_in, stage.weights);
    __pipeline_commit();
  };
  load(0);
  for (int64_t depth = 0; depth < inputs.n_in; depth += HALF_DEPTH) {
    load(depth + HALF_DEPTH);  // zeros beyond the last slice
    __pipeline_wait_prior(N_STAGES - 1);
    __syncthreads();
    const HalfStage<scalar_t>& stage = shared.stages[depth / HALF_DEPTH % N_STAGES];
    for (int in = 0; in < HALF_DEPTH; in += SQUARE) {
      Rows rows[WARP_SQUARES];
      Weights weights[WARP_SQUARES];
#pragma unroll
      for (int i = 0; i < WARP_SQUARES; ++i) {
        const scalar_t* square = &stage.rows[warp_row + i * SQUARE][in];
        wmma::load_matrix_sync(rows[i], reinterpret_cast<const number_t*>(square), HALF_STRIDE);
      }
#pragma unroll
      for (int j = 0; j < WARP_SQUARES; ++j) {
        const scalar_t* square = &stage.weights[warp_out + j * SQUARE][in];
        wmma::load_matrix_sync(weights[j], reinterpret_cast<const number_t*>(square), HALF_STRIDE);
      }
#pragma unroll
      for (int i = 0; i < WARP_SQUARES; ++i) {
#pragma unroll
        for (int j = 0; j < WARP_SQUARES; ++j) {
          wmma::mma_sync(sums[i][j], rows[i], weights[j], sums[i][j]);
        }
      }
    }
    __syncthreads();
  }
  __pipeline_wait_prior(0);
  __syncthreads();  // the squares lie where the slices did
#pragma unroll
  for (int i = 0; i < WARP_SQUARES; ++i) {
#pragma unroll
    for (int j = 0; j < WARP_SQUARES; ++j) {
      wmma::store_matrix_sync(&shared.squares[warp][0][0], sums[i][j], SQUARE_STRIDE, wmma::mem_row_major);
      __syncwarp();
      for (int at = lane; at < SQUARE * SQUARE; at += 32) {
        const int64_t row = first_row + warp_row + i * SQUARE + at / SQUARE;
        const int64_t out = first_out + warp_out + j * SQUARE + at % SQUARE;
        if (row < inputs.n_rows && out < inputs.n_out) {
          const float start = inputs.bias == nullptr ? 0.0f : inputs.bias[out];
          from_sum(shared.squares[warp][at / SQUARE][at % SQUARE] + start, outputs[row * inputs.n_out + out]);
        }
      }
      __syncwarp();
    }
  }
}

}  // namespace serfast
