// blstm on any CUDA device (blstm.h has the equations): one block runs one direction of a tile of utterances through
// time.
//
// The state stays in shared memory; the recurrent matrix is read from the cache at every step. A block of units in panel
// order is one unit here. Each sum runs in one thread, in order: no other utterance and no tile changes it.

#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "blstm.h"
#include "blstm_tiles.cuh"

namespace serfast {

constexpr int BLSTM_THREADS = 256;
// Blocks that must fit a multiprocessor. Unasked, the compiler makes room for more of them and spills registers.
template <typename scalar_t>
constexpr int BLSTM_BLOCKS = sizeof(scalar_t) > sizeof(float) ? 1 : 2;
// Numbers of shared memory per unit and utterance of a tile: hidden, cell and four gates, or their slopes.
constexpr int BLSTM_STATE_NUMBERS = 2 + N_GATES;

// Numbers of one unit's gates, or neighbouring ones, that are loaded and stored at once.
template <typename scalar_t>
struct alignas(16) FourNumbers {
  scalar_t number[N_GATES];

  // The place-th four of an array.
  __device__ static FourNumbers load(const scalar_t* numbers, int64_t place) {
    return reinterpret_cast<const FourNumbers*>(numbers)[place];
  }

  __device__ void store(scalar_t* numbers, int64_t place) const {
    reinterpret_cast<FourNumbers*>(numbers)[place] = *this;
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

// Grid (tile, direction). Shared memory: gates (utterance, unit, gate), hidden, cell (utterance, unit).
template <typename scalar_t, int tile_utterances>
__global__ void __launch_bounds__(BLSTM_THREADS, BLSTM_BLOCKS<scalar_t>)
    blstm_kernel(BlstmForward<scalar_t> layer, BlstmBatch batch) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int n_units = static_cast<int>(layer.n_units);
  const int n_gates = N_GATES * n_units;
  const int64_t n_directions = layer.n_directions;
  const int64_t direction = blockIdx.y;
  const bool is_reverse = batch.is_reverse(direction);
  scalar_t* gates = reinterpret_cast<scalar_t*>(shared);
  scalar_t* hidden = gates + tile_utterances * n_gates;
  scalar_t* cell = hidden + tile_utterances * n_units;
  __shared__ BlstmBlock<tile_utterances> block;
  const int64_t n_steps = block.fill(batch, blockIdx.x);
  for (int i = threadIdx.x; i < 2 * tile_utterances * n_units; i += blockDim.x) {
    hidden[i] = scalar_t(0);
  }
  __syncthreads();
  const scalar_t* recurrent = block.matrix(layer, direction);
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
          sums[i] = fma(factor, hidden[i * n_units + before], sums[i]);
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
        const FourNumbers<scalar_t> sums = FourNumbers<scalar_t>::load(gates, place);
        const scalar_t input = sigmoid(sums.number[0]);
        const scalar_t forget = sigmoid(sums.number[1]);
        const scalar_t candidate = tanh(sums.number[2]);
        const scalar_t output = sigmoid(sums.number[3]);
        cell[place] = forget * cell[place] + input * candidate;
        hidden[place] = output * tanh(cell[place]);
        const int64_t at = (block.row(i, step, is_reverse) * n_directions + direction) * n_units + place % n_units;
        layer.hidden[at] = hidden[place];
        if (layer.gates != nullptr) {
          layer.cell[at] = cell[place];
          FourNumbers<scalar_t>{{input, forget, candidate, output}}.store(layer.gates, at);
        }
      }
    }
    __syncthreads();
  }
}

// Of one unit of one utterance at one step: what turns the slopes of its state and of its cell into those of its gates.
template <typename scalar_t>
struct BlstmSlopes {
  scalar_t grad_hidden;  // the slope that comes from above
  scalar_t cell;         // of the cell by the state, then of each gate by the cell, or the state
  scalar_t input;
  scalar_t forget;
  scalar_t candidate;
  scalar_t output;
  scalar_t cell_before;

  // Slopes of the gates; grad_cell becomes that of the cell before.
  __device__ FourNumbers<scalar_t> of(scalar_t grad_state, scalar_t& grad_cell) const {
    const scalar_t slope = grad_hidden + grad_state;
    const scalar_t cell_slope = slope * cell + grad_cell;
    grad_cell = cell_slope * cell_before;
    return {{cell_slope * input, cell_slope * forget, cell_slope * candidate, slope * output}};
  }
};

// What was saved of one unit of one utterance at one step.
template <typename scalar_t>
struct BlstmFrame {
  FourNumbers<scalar_t> gates;
  scalar_t cell;
  scalar_t cell_before;
  scalar_t grad_hidden;

  // at: (row, direction, unit) as one index; at_before: of the step before, or -1 at the first step.
  __device__ void load(const BlstmBackward<scalar_t>& layer, int64_t at, int64_t at_before) {
    gates = FourNumbers<scalar_t>::load(layer.gates, at);
    cell = layer.cell[at];
    cell_before = at_before < 0 ? scalar_t(0) : layer.cell[at_before];
    grad_hidden = layer.grad_hidden[at];
  }

  // memory: tanh of the cell.
  __device__ BlstmSlopes<scalar_t> slopes(scalar_t memory) const {
    const scalar_t input = gates.number[0];
    const scalar_t forget = gates.number[1];
    const scalar_t candidate = gates.number[2];
    const scalar_t output = gates.number[3];
    return {
        grad_hidden,
        output * (1 - memory * memory),
        candidate * input * (1 - input),
        cell_before * forget * (1 - forget),
        input * (1 - candidate * candidate),
        memory * output * (1 - output),
        forget};
  }
};

// Slopes of the gates of one unit of one utterance at one step, kept; grad_cell becomes that of the cell before.
template <typename scalar_t>
__device__ FourNumbers<scalar_t> blstm_slopes(
    const BlstmBackward<scalar_t>& layer,
    int64_t at,  // as BlstmFrame has them
    int64_t at_before,
    scalar_t grad_state,
    scalar_t& grad_cell) {
  BlstmFrame<scalar_t> frame;
  frame.load(layer, at, at_before);
  const FourNumbers<scalar_t> slopes = frame.slopes(tanh(frame.cell)).of(grad_state, grad_cell);
  slopes.store(layer.grad_projected, at);
  return slopes;
}

// Grid (tile, direction). Shared memory: slopes (utterance, unit, gate), grad_state, grad_cell (utterance, unit).
template <typename scalar_t, int tile_utterances>
__global__ void __launch_bounds__(BLSTM_THREADS, BLSTM_BLOCKS<scalar_t>)
    blstm_backward_kernel(BlstmBackward<scalar_t> layer, BlstmBatch batch) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int n_units = static_cast<int>(layer.n_units);
  const int n_gates = N_GATES * n_units;
  const int64_t n_directions = layer.n_directions;
  const int64_t direction = blockIdx.y;
  const bool is_reverse = batch.is_reverse(direction);
  scalar_t* slopes = reinterpret_cast<scalar_t*>(shared);
  scalar_t* grad_state = slopes + tile_utterances * n_gates;
  scalar_t* grad_cell = grad_state + tile_utterances * n_units;
  __shared__ BlstmBlock<tile_utterances> block;
  const int64_t n_steps = block.fill(batch, blockIdx.x);
  for (int i = threadIdx.x; i < BLSTM_STATE_NUMBERS * tile_utterances * n_units; i += blockDim.x) {
    slopes[i] = scalar_t(0);
  }
  __syncthreads();
  const scalar_t* recurrent = block.matrix(layer, direction);
  for (int64_t step = n_steps - 1; step >= 0; --step) {
    for (int place = threadIdx.x; place < tile_utterances * n_units; place += blockDim.x) {
      const int i = place / n_units;
      if (step < block.lengths[i]) {
        const int unit = place % n_units;
        const auto index = [&](int64_t row) { return (row * n_directions + direction) * n_units + unit; };
        const int64_t at_before = step > 0 ? index(block.row(i, step - 1, is_reverse)) : -1;
        const int64_t at = index(block.row(i, step, is_reverse));
        const scalar_t from_next = step + 1 < block.lengths[i] ? grad_state[place] : scalar_t(0);
        blstm_slopes(layer, at, at_before, from_next, grad_cell[place]).store(slopes, place);
      }
    }
    __syncthreads();
    for (int before = threadIdx.x; before < n_units; before += blockDim.x) {
      scalar_t sums[tile_utterances] = {};
      for (int gate = 0; gate < n_gates; ++gate) {
        const scalar_t factor = recurrent[static_cast<int64_t>(gate) * n_units + before];
        for (int i = 0; i < tile_utterances; ++i) {
          sums[i] = fma(factor, slopes[i * n_gates + gate], sums[i]);
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
