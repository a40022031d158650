// blstm backward on clusters of blocks with tensor cores; blstm_tensor_kernel.cuh says how it works.

#pragma once

#include "blstm_tensor_kernel.cuh"

namespace serfast {

// Numbers between neighbouring units of a mailbox, even: a lane sends those of two utterances at once.
constexpr int SHARE_STRIDE = CLUSTER_TILE + LANE_UTTERANCES;

// Shared memory of a block, backward.
template <int n_blocks>
struct BackwardMemory {
  static constexpr int n_warps = n_blocks > 4 ? 8 : 4;  // each with two products of 16 rows at most
  static constexpr int n_threads = WARP_THREADS * n_warps;
  static constexpr int n_resident = n_blocks > 4 ? 1 : 3;  // blocks whose registers a multiprocessor must hold
  static constexpr int n_slopes = CLUSTER_UNITS * N_GATES;
  static constexpr uint32_t n_bytes = n_blocks * CLUSTER_UNITS * CLUSTER_TILE * sizeof(float);  // of a step's shares

  alignas(16) Float16 slopes[2][CLUSTER_TILE][column_stride(n_slopes)];  // (turn, utterance, (own unit, gate))
  alignas(8) float inverses[2][CLUSTER_TILE];                            // of what slopes were multiplied with
  alignas(16) float shares[2][n_blocks][CLUSTER_UNITS][SHARE_STRIDE];    // (turn, from, own unit, utterance)
  Mailbox mailbox;
};

// Neighbouring numbers that a thread loads at once.
template <int n>
struct alignas(n * sizeof(float)) Shares {
  float number[n];
};

// What was saved of one unit of n_cells utterances, loaded step by step from the last, one step ahead.
template <int n_cells>
struct CellFrames {
  int lengths[n_cells];     // none of a unit beyond the layer
  int64_t places[n_cells];  // (row, direction, unit) as one index, of the step that is loaded next
  int64_t stride;           // of places, from step to step
  BlstmFrame<float> next[n_cells] = {};
  BlstmSlopes<float> slopes[n_cells];

  // Loads a step, and the cells of the one before it: those of this one are there.
  __device__ void load(const BlstmBackward<float>& layer, int step) {
#pragma unroll
    for (int i = 0; i < n_cells; ++i) {
      const bool exists = has(i, step);
      next[i].gates = exists ? FourNumbers<float>::load(layer.gates, places[i]) : FourNumbers<float>{};
      next[i].grad_hidden = exists ? layer.grad_hidden[places[i]] : 0.0f;
      next[i].cell = next[i].cell_before;
      places[i] -= stride;
      next[i].cell_before = has(i, step - 1) ? layer.cell[places[i]] : 0.0f;
    }
  }

  // Makes slopes of what was loaded last: zeros where there is no frame.
  __device__ void prepare() {
#pragma unroll
    for (int i = 0; i < n_cells; ++i) {
      slopes[i] = next[i].slopes(quick_tanh(next[i].cell));
    }
  }

 private:
  __device__ bool has(int i, int step) const {
    return static_cast<unsigned>(step) < static_cast<unsigned>(lengths[i]);  // nor are there steps below 0
  }
};

// Grid (tile and block of a cluster, direction).
template <int n_blocks>
__global__ void __launch_bounds__(BackwardMemory<n_blocks>::n_threads, BackwardMemory<n_blocks>::n_resident)
    blstm_tensor_backward_kernel(BlstmBackward<float> layer, BlstmBatch batch) {
#if SERFAST_HAS_CLUSTERS
  using Memory = BackwardMemory<n_blocks>;
  constexpr int n_warps = Memory::n_warps;
  constexpr int n_cells = CLUSTER_TILE / n_warps;  // of a thread: one unit of as many utterances
  constexpr int n_products = n_blocks * CLUSTER_UNITS / PRODUCT_ROWS;
  constexpr int warp_products = (n_products + n_warps - 1) / n_warps;
  static_assert(n_products % warp_products == 0);
  extern __shared__ __align__(16) unsigned char shared[];
  Memory& memory = *reinterpret_cast<Memory*>(kept(shared));
  __shared__ BlstmBlock<CLUSTER_TILE> block;
  const auto cluster = cooperative_groups::this_cluster();
  const int rank = kept(static_cast<int>(cluster.block_rank()));
  const int thread = kept(static_cast<int>(threadIdx.x));
  const int warp = thread / WARP_THREADS;
  const int lane = thread % WARP_THREADS;
  const int column_lane = lane % COLUMN_LANES;
  const int unit = rank * CLUSTER_UNITS + lane;
  const bool is_reverse = batch.is_reverse(blockIdx.y);
  const bool is_first = thread == 0;
  const bool has_products = warp * warp_products < n_products;  // or none
  const int n_steps = static_cast<int>(block.fill(batch, blockIdx.x / n_blocks));
  if (n_steps == 0) {
    return;  // and so do all blocks of the cluster
  }
  if (is_first) {
    memory.mailbox.open(Memory::n_bytes);
  }
  HalfFactors<Memory::n_slopes / SLAB> factors[warp_products];
  const float* matrix = block.matrix(layer, blockIdx.y);  // (gate, unit, before)
  const int n_units = static_cast<int>(layer.n_units);
#pragma unroll
  for (int i = 0; i < warp_products; ++i) {
    const int first_before = (warp + i * n_warps) * PRODUCT_ROWS + lane / COLUMN_LANES;
    factors[i].load(column_lane, [&](int row, int at) {
      const int own_unit = rank * CLUSTER_UNITS + at / N_GATES;
      const int before = first_before + row * (PRODUCT_ROWS / 2);
      const bool exists = own_unit < n_units && before < n_units;
      return exists ? matrix[(at % N_GATES * n_units + own_unit) * n_units + before] : 0.0f;
    });
  }
  cluster.sync();
  Memory* peers[warp_products];  // the owners of the units that each product's rows are
#pragma unroll
  for (int i = 0; i < warp_products; ++i) {
    const int owner = (warp + i * n_warps) * PRODUCT_ROWS / CLUSTER_UNITS;
    peers[i] = cluster.map_shared_rank(&memory, has_products ? owner : rank);
  }
  CellFrames<n_cells> frames;
  const int64_t row_numbers = layer.n_directions * layer.n_units;
  frames.stride = is_reverse ? -row_numbers : row_numbers;
#pragma unroll
  for (int i = 0; i < n_cells; ++i) {
    const int utterance = warp * n_cells + i;
    frames.lengths[i] = unit < layer.n_units ? static_cast<int>(block.lengths[utterance]) : 0;
    const int64_t row = block.row(utterance, n_steps, is_reverse);
    frames.places[i] = (row * layer.n_directions + blockIdx.y) * layer.n_units + unit;
  }
  float grad_cells[n_cells] = {};
  frames.load(layer, n_steps);  // nothing but the last cells
  frames.load(layer, n_steps - 1);
  frames.prepare();
  for (int turn = 0; turn < n_steps; ++turn) {
    const int step = n_steps - 1 - turn;
    frames.load(layer, step - 1);  // on its way through all of this step
    if (turn > 0) {
      memory.mailbox.wait(turn, Memory::n_bytes, is_first);
    }
    Shares<n_cells> grad_states = {};
#pragma unroll
    for (int peer = 0; peer < n_blocks; ++peer) {
      const float* place = &memory.shares[turn % 2][peer][lane][warp * n_cells];
      const auto theirs = *reinterpret_cast<const Shares<n_cells>*>(place);
#pragma unroll
      for (int i = 0; i < n_cells; ++i) {
        grad_states.number[i] += theirs.number[i];
      }
    }
    FourNumbers<float> own[n_cells];
#pragma unroll
    for (int i = 0; i < n_cells; ++i) {
      // What came of a step that is no frame does not count: others' infinite weights may have made it NaN.
      const float grad_state = step + 1 < frames.lengths[i] ? grad_states.number[i] : 0.0f;
      own[i] = frames.slopes[i].of(grad_state, grad_cells[i]);
      uint32_t largest = 0;
#pragma unroll
      for (int gate = 0; gate < N_GATES; ++gate) {
        const uint32_t size = __float_as_uint(fabsf(own[i].number[gate]));  // NaN is above all
        largest = size > largest ? size : largest;
      }
      const ColumnScale column(__reduce_max_sync(WHOLE_WARP, largest));
      const int utterance = warp * n_cells + i;
      const float scale = column.scale();
      *reinterpret_cast<uint2*>(&memory.slopes[turn % 2][utterance][lane * N_GATES]) = {
          packed_halfs(scale * own[i].number[0], scale * own[i].number[1]),
          packed_halfs(scale * own[i].number[2], scale * own[i].number[3])};
      memory.inverses[turn % 2][utterance] = column.inverse();
    }
    __syncthreads();  // and who is two turns ahead writes over no slopes that others read
    if (step > 0 && has_products) {
      float inverses[LANE_UTTERANCES];
#pragma unroll
      for (int k = 0; k < LANE_UTTERANCES; ++k) {
        inverses[k] = memory.inverses[turn % 2][column_lane * LANE_UTTERANCES + k];
      }
      float sums[warp_products][N_CHAINS][4] = {};
#pragma unroll
      for (int slab = 0; slab < Memory::n_slopes / SLAB; ++slab) {
        const Float16* column = &memory.slopes[turn % 2][lane / COLUMN_LANES][slab * SLAB];
        const uint4 words = reinterpret_cast<const uint4*>(column)[column_lane];
#pragma unroll
        for (int i = 0; i < warp_products; ++i) {
          add_slab(sums[i], factors[i], slab, words);
        }
      }
#pragma unroll
      for (int i = 0; i < warp_products; ++i) {
        const int first = (warp + i * n_warps) * PRODUCT_ROWS % CLUSTER_UNITS + lane / COLUMN_LANES;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = first + half * (PRODUCT_ROWS / 2);
          float* theirs = &peers[i]->shares[(turn + 1) % 2][rank][row][column_lane * LANE_UTTERANCES];
          float letter[LANE_UTTERANCES];
#pragma unroll
          for (int k = 0; k < LANE_UTTERANCES; ++k) {
            const float sum = sums[i][0][LANE_UTTERANCES * half + k] + sums[i][1][LANE_UTTERANCES * half + k];
            letter[k] = sum * factors[i].inverses[half] * inverses[k];
          }
          peers[i]->mailbox.send(theirs, letter, turn + 1);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < n_cells; ++i) {  // last: what reads shared memory would wait for it
      if (step < frames.lengths[i]) {
        own[i].store(layer.grad_projected, frames.places[i] + 2 * frames.stride);
      }
    }
    frames.prepare();
  }
  cluster.sync();  // nobody leaves while others look for it
#endif
}

}  // namespace serfast
