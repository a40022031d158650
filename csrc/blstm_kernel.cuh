// blstm on any CUDA device (blstm.h has the equations): one block runs one direction of a tile of utterances through
// time.
//
// The state stays in shared memory; the recurrent matrix is read from the cache at every step. A block of units in panel
// order is one unit here. Each sum runs in one thread, in order: no other utterance and no tile changes it.

#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "blstm.h"
#include "groups.h"

namespace serfast {

constexpr int BLSTM_THREADS = 256;
// Blocks that must fit a multiprocessor. Unasked, the compiler makes room for more of them and spills registers.
constexpr int BLSTM_BLOCKS = 2;
// Numbers of shared memory per unit and utterance of a tile: hidden, cell and four gates, or their slopes.
constexpr int BLSTM_STATE_NUMBERS = 2 + N_GATES;

struct BlstmBatch {
  const int64_t* first_rows;  // (batch)
  const int64_t* lengths;     // (batch)
  const int64_t* groups;      // (batch), or null where there is one group
  int64_t n_utterances;
  int64_t n_rows;
  int64_t n_groups;
  int64_t first_direction;

  // The utterance at one place among those of a group, or n_utterances beyond the last of them.
  __device__ int64_t find(int64_t place, int64_t group) const {
    if (groups == nullptr) {
      return place < n_utterances ? place : n_utterances;
    }
    int64_t index = 0;
    for (; index < n_utterances; ++index) {
      place -= group_within(groups[index], n_groups) == group;
      if (place < 0) {
        break;
      }
    }
    return index;
  }

  __device__ bool is_reverse(int64_t direction) const { return first_direction + direction == REVERSE; }
};

// One block's utterances, in shared memory: row of the first frame and frames, none beyond the group or the rows.
template <int tile_utterances>
struct BlstmBlock {
  int64_t first_rows[tile_utterances];
  int64_t lengths[tile_utterances];

  // Called by every thread, before a barrier.
  __device__ void fill(const BlstmBatch& batch, int64_t tile) {
    const int i = threadIdx.x;
    if (i < tile_utterances) {
      const int64_t index = batch.find(tile * tile_utterances + i, blockIdx.z);
      const bool exists = index < batch.n_utterances;
      first_rows[i] = exists ? batch.first_rows[index] : 0;
      const int64_t n_left = batch.n_rows - first_rows[i];
      const int64_t length = exists ? batch.lengths[index] : 0;
      lengths[i] = length < n_left ? length : n_left;
    }
  }

  __device__ int64_t longest() const {
    int64_t most = 0;
    for (int i = 0; i < tile_utterances; ++i) {
      most = lengths[i] > most ? lengths[i] : most;
    }
    return most;
  }

  // The row at which utterance i is at one step.
  __device__ int64_t row(int i, int64_t step, bool is_reverse) const {
    return first_rows[i] + (is_reverse ? lengths[i] - 1 - step : step);
  }
};

template <typename scalar_t>
__device__ scalar_t sigmoid(scalar_t x) {
  return scalar_t(1) / (scalar_t(1) + exp(-x));
}

// recurrent (matrix, gate, unit, before) to (matrix, before, unit, gate) and to (matrix, unit, gate, before), with one
// matrix for each direction of each group.
template <typename scalar_t>
__global__ void blstm_pack_kernel(
    const scalar_t* __restrict__ recurrent,
    int64_t n_matrices,
    int64_t n_units,
    scalar_t* __restrict__ by_before,
    scalar_t* __restrict__ by_unit) {
  const int64_t n_numbers = n_matrices * N_GATES * n_units * n_units;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n_numbers; i += stride) {
    const int64_t before = i % n_units;
    const int64_t unit = i / n_units % n_units;
    const int64_t gate = i / (n_units * n_units) % N_GATES;
    const int64_t matrix = i / (N_GATES * n_units * n_units);
    by_before[((matrix * n_units + before) * n_units + unit) * N_GATES + gate] = recurrent[i];
    by_unit[((matrix * n_units + unit) * N_GATES + gate) * n_units + before] = recurrent[i];
  }
}

// Grid (tile, direction, group). Shared memory: hidden, cell (utterance, unit), gates (utterance, unit, gate).
template <typename scalar_t, int tile_utterances>
__global__ void __launch_bounds__(BLSTM_THREADS, BLSTM_BLOCKS)
    blstm_kernel(BlstmForward<scalar_t> layer, BlstmBatch batch) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int n_units = static_cast<int>(layer.n_units);
  const int n_gates = N_GATES * n_units;
  const int64_t n_directions = layer.n_directions;
  const int64_t direction = blockIdx.y;
  const bool is_reverse = batch.is_reverse(direction);
  scalar_t* hidden = reinterpret_cast<scalar_t*>(shared);
  scalar_t* cell = hidden + tile_utterances * n_units;
  scalar_t* gates = cell + tile_utterances * n_units;
  __shared__ BlstmBlock<tile_utterances> block;
  block.fill(batch, blockIdx.x);
  for (int i = threadIdx.x; i < 2 * tile_utterances * n_units; i += blockDim.x) {
    hidden[i] = scalar_t(0);
  }
  __syncthreads();
  const scalar_t* recurrent = layer.recurrent + (blockIdx.z * n_directions + direction) * n_units * n_gates;
  const int64_t n_steps = block.longest();
  for (int64_t step = 0; step < n_steps; ++step) {
    for (int gate = threadIdx.x; gate < n_gates; gate += blockDim.x) {
      scalar_t sums[tile_utterances];
      for (int i = 0; i < tile_utterances; ++i) {
        sums[i] = step < block.lengths[i]
                      ? layer.projected[(block.row(i, step, is_reverse) * n_directions + direction) * n_gates + gate]
                      : scalar_t(0);
      }
      for (int before = 0; before < n_units; ++before) {
        const scalar_t factor = recurrent[static_cast<int64_t>(before) * n_gates + gate];
        for (int i = 0; i < tile_utterances; ++i) {
          sums[i] += factor * hidden[i * n_units + before];
        }
      }
      for (int i = 0; i < tile_utterances; ++i) {
        gates[i * n_gates + gate] = sums[i];
      }
    }
    __syncthreads();
    for (int place = threadIdx.x; place < tile_utterances * n_units; place += blockDim.x) {
      const int i = place / n_units;
      if (step < block.lengths[i]) {
        const scalar_t input = sigmoid(gates[N_GATES * place]);
        const scalar_t forget = sigmoid(gates[N_GATES * place + 1]);
        const scalar_t candidate = tanh(gates[N_GATES * place + 2]);
        const scalar_t output = sigmoid(gates[N_GATES * place + 3]);
        cell[place] = forget * cell[place] + input * candidate;
        hidden[place] = output * tanh(cell[place]);
        const int64_t at = (block.row(i, step, is_reverse) * n_directions + direction) * n_units + place % n_units;
        layer.hidden[at] = hidden[place];
        if (layer.gates != nullptr) {
          layer.cell[at] = cell[place];
          layer.gates[N_GATES * at] = input;
          layer.gates[N_GATES * at + 1] = forget;
          layer.gates[N_GATES * at + 2] = candidate;
          layer.gates[N_GATES * at + 3] = output;
        }
      }
    }
    __syncthreads();
  }
}

// Slopes of the gates of one unit of one utterance at one step, to shared and global memory, and of the cell before.
template <typename scalar_t>
__device__ void blstm_slopes(
    const BlstmBackward<scalar_t>& layer,
    int64_t at,         // (row, direction, unit) as one index
    int64_t at_before,  // of the step before, or -1 at the first step
    scalar_t grad_state,
    scalar_t& grad_cell,
    scalar_t* slopes) {  // (gate)
  const scalar_t input = layer.gates[N_GATES * at];
  const scalar_t forget = layer.gates[N_GATES * at + 1];
  const scalar_t candidate = layer.gates[N_GATES * at + 2];
  const scalar_t output = layer.gates[N_GATES * at + 3];
  const scalar_t memory = tanh(layer.cell[at]);
  const scalar_t memory_before = at_before < 0 ? scalar_t(0) : layer.cell[at_before];
  const scalar_t slope = layer.grad_hidden[at] + grad_state;
  const scalar_t cell_slope = slope * output * (1 - memory * memory) + grad_cell;
  slopes[0] = cell_slope * candidate * input * (1 - input);
  slopes[1] = cell_slope * memory_before * forget * (1 - forget);
  slopes[2] = cell_slope * input * (1 - candidate * candidate);
  slopes[3] = slope * memory * output * (1 - output);
  grad_cell = cell_slope * forget;
  for (int gate = 0; gate < N_GATES; ++gate) {
    layer.grad_projected[N_GATES * at + gate] = slopes[gate];
  }
}

// Grid (tile, direction, group). Shared memory: grad_state, grad_cell (utterance, unit), slopes (utterance, unit, gate).
template <typename scalar_t, int tile_utterances>
__global__ void __launch_bounds__(BLSTM_THREADS, BLSTM_BLOCKS)
    blstm_backward_kernel(BlstmBackward<scalar_t> layer, BlstmBatch batch) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int n_units = static_cast<int>(layer.n_units);
  const int n_gates = N_GATES * n_units;
  const int64_t n_directions = layer.n_directions;
  const int64_t direction = blockIdx.y;
  const bool is_reverse = batch.is_reverse(direction);
  scalar_t* grad_state = reinterpret_cast<scalar_t*>(shared);
  scalar_t* grad_cell = grad_state + tile_utterances * n_units;
  scalar_t* slopes = grad_cell + tile_utterances * n_units;
  __shared__ BlstmBlock<tile_utterances> block;
  block.fill(batch, blockIdx.x);
  for (int i = threadIdx.x; i < BLSTM_STATE_NUMBERS * tile_utterances * n_units; i += blockDim.x) {
    grad_state[i] = scalar_t(0);
  }
  __syncthreads();
  const scalar_t* recurrent = layer.recurrent + (blockIdx.z * n_directions + direction) * n_units * n_gates;
  for (int64_t step = block.longest() - 1; step >= 0; --step) {
    for (int place = threadIdx.x; place < tile_utterances * n_units; place += blockDim.x) {
      const int i = place / n_units;
      if (step < block.lengths[i]) {
        const int unit = place % n_units;
        const auto index = [&](int64_t row) { return (row * n_directions + direction) * n_units + unit; };
        const int64_t at_before = step > 0 ? index(block.row(i, step - 1, is_reverse)) : -1;
        blstm_slopes(
            layer, index(block.row(i, step, is_reverse)), at_before, grad_state[place], grad_cell[place],
            slopes + N_GATES * place);
      }
    }
    __syncthreads();
    for (int before = threadIdx.x; before < n_units; before += blockDim.x) {
      scalar_t sums[tile_utterances] = {};
      for (int gate = 0; gate < n_gates; ++gate) {
        const scalar_t factor = recurrent[static_cast<int64_t>(gate) * n_units + before];
        for (int i = 0; i < tile_utterances; ++i) {
          sums[i] += factor * slopes[i * n_gates + gate];
        }
      }
      for (int i = 0; i < tile_utterances; ++i) {
        grad_state[i * n_units + before] = sums[i];
      }
    }
    __syncthreads();
  }
}

}  // namespace serfast
