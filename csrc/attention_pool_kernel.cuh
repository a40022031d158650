// attention_pool on CUDA (attention_pool.h has the equations): one block per utterance, a tile of frames at a time.
//
// Scores take one warp per frame, sums over the frames one thread per unit: no sum depends on the order in which
// threads run.

#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "attention_pool.h"

namespace serfast {

constexpr int WARP_THREADS = 32;
constexpr int BLOCK_THREADS = 256;
constexpr int BLOCK_WARPS = BLOCK_THREADS / WARP_THREADS;
// Blocks that must fit a multiprocessor. Unasked, the compiler makes room for more of them and spills registers.
constexpr int MULTIPROCESSOR_BLOCKS = 2;
// Frames of a tile: one lane of a warp each.
constexpr int TILE = WARP_THREADS;

// Where the utterances are.
struct Layout {
  const int64_t* first_rows;  // (batch)
  const int64_t* lengths;     // (batch)
  const int64_t* seeds;       // (batch), or null without dropout
  int64_t n_utterances;
  int64_t n_rows;
};

// Sum over the lanes of a warp, the same in every lane.
template <typename scalar_t>
__device__ scalar_t warp_sum(scalar_t value) {
  for (int distance = WARP_THREADS / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
  }
  return value;
}

template <typename scalar_t>
__device__ scalar_t warp_maximum(scalar_t value) {
  for (int distance = WARP_THREADS / 2; distance > 0; distance /= 2) {
    const scalar_t other = __shfl_xor_sync(0xFFFFFFFFu, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// Sum over the threads of the block, the same in every thread. All of them must call it.
template <typename scalar_t>
__device__ scalar_t block_sum(scalar_t value) {
  __shared__ scalar_t sums[BLOCK_WARPS];
  value = warp_sum(value);
  if (threadIdx.x % WARP_THREADS == 0) {
    sums[threadIdx.x / WARP_THREADS] = value;
  }
  __syncthreads();
  scalar_t total = 0;
  for (int warp = 0; warp < BLOCK_WARPS; ++warp) {
    total += sums[warp];
  }
  __syncthreads();
  return total;
}

// One element of the dropout mask, 0 or 1.
template <typename scalar_t, bool dropout>
__device__ scalar_t kept(const Layout& layout, int64_t frame, int64_t unit, uint32_t threshold) {
  if constexpr (dropout) {
    const uint64_t seed = static_cast<uint64_t>(layout.seeds[blockIdx.x]);
    return is_kept(seed, frame, unit, threshold) ? scalar_t(1) : scalar_t(0);
  } else {
    return scalar_t(1);
  }
}

// Score of one row, the same in every lane of the warp that calls it.
template <typename scalar_t, Score score>
__device__ scalar_t warp_score(const AttentionPoolInputs<scalar_t>& inputs, int64_t row) {
  const int lane = threadIdx.x % WARP_THREADS;
  scalar_t sum = 0;
  if constexpr (score == Score::query) {
    for (int64_t unit = lane; unit < inputs.n_units; unit += WARP_THREADS) {
      sum += inputs.query[unit] * inputs.hidden[row * inputs.n_units + unit];
    }
  } else if constexpr (score == Score::projected) {
    for (int64_t unit = lane; unit < inputs.n_attention; unit += WARP_THREADS) {
      sum += inputs.query[unit] * tanh(inputs.projected[row * inputs.n_attention + unit]);
    }
  }
  return warp_sum(sum);
}

// Zeroes the rows between this utterance and the next, and those before the first.
template <typename scalar_t>
__device__ void zero_gap(
    const Utterance& utterance,
    int64_t width,
    scalar_t* rows) {  // (row, width)
  const int64_t end = utterance.first_row + utterance.n_frames;
  for (int64_t i = end * width + threadIdx.x; i < utterance.next_row * width; i += BLOCK_THREADS) {
    rows[i] = 0;
  }
  if (blockIdx.x == 0) {
    for (int64_t i = threadIdx.x; i < utterance.first_row * width; i += BLOCK_THREADS) {
      rows[i] = 0;
    }
  }
}

// alpha and c of one utterance, with an online softmax over its tiles.
template <typename scalar_t, Score score, bool dropout>
__global__ void __launch_bounds__(BLOCK_THREADS, MULTIPROCESSOR_BLOCKS) attention_pool_kernel(
    AttentionPoolInputs<scalar_t> inputs,
    Layout layout,
    scalar_t* __restrict__ context,              // (batch, unit), holds the running sums
    scalar_t* __restrict__ attention_weights) {  // (row), holds the scores until their sum is known
  __shared__ scalar_t scores[TILE];
  __shared__ scalar_t weights[TILE];
  const int warp = threadIdx.x / WARP_THREADS;
  const int lane = threadIdx.x % WARP_THREADS;
  const Utterance utterance =
      utterance_within_rows(layout.first_rows, layout.lengths, blockIdx.x, layout.n_utterances, layout.n_rows);
  scalar_t* sums = context + blockIdx.x * inputs.n_units;
  for (int64_t unit = threadIdx.x; unit < inputs.n_units; unit += BLOCK_THREADS) {
    sums[unit] = 0;
  }
  scalar_t maximum = -static_cast<scalar_t>(INFINITY);
  scalar_t total = 0;
  for (int64_t first = 0; first < utterance.n_frames; first += TILE) {
    const int n_frames = static_cast<int>(utterance.n_frames - first < TILE ? utterance.n_frames - first : TILE);
    for (int frame = warp; frame < n_frames; frame += BLOCK_WARPS) {
      const int64_t row = utterance.first_row + first + frame;
      const scalar_t value = warp_score<scalar_t, score>(inputs, row);
      if (lane == 0) {
        scores[frame] = value;
        attention_weights[row] = value;
      }
    }
    __syncthreads();
    const scalar_t own = lane < n_frames ? scores[lane] : -static_cast<scalar_t>(INFINITY);
    const scalar_t highest = warp_maximum(own);
    const scalar_t previous = maximum;
    maximum = highest > maximum ? highest : maximum;
    const scalar_t rescale = exp(previous - maximum);
    const scalar_t weight = exp(own - maximum);
    total = total * rescale + warp_sum(weight);
    if (warp == 0) {
      weights[lane] = weight;
    }
    __syncthreads();
    for (int64_t unit = threadIdx.x; unit < inputs.n_units; unit += BLOCK_THREADS) {
      scalar_t sum = 0;
      for (int frame = 0; frame < n_frames; ++frame) {
        const scalar_t element = inputs.hidden[(utterance.first_row + first + frame) * inputs.n_units + unit];
        sum +=
            weights[frame] * kept<scalar_t, dropout>(layout, first + frame, unit, inputs.dropout_threshold) * element;
      }
      sums[unit] = sums[unit] * rescale + sum;
    }
    __syncthreads();
  }
  const scalar_t share = utterance.n_frames > 0 ? scalar_t(1) / total : scalar_t(0);
  const scalar_t scale = share * dropout_scale<scalar_t>(inputs.dropout_threshold);
  for (int64_t unit = threadIdx.x; unit < inputs.n_units; unit += BLOCK_THREADS) {
    sums[unit] *= scale;
  }
  for (int64_t frame = threadIdx.x; frame < utterance.n_frames; frame += BLOCK_THREADS) {
    const int64_t row = utterance.first_row + frame;
    attention_weights[row] = exp(attention_weights[row] - maximum) * share;
  }
  zero_gap(utterance, 1, attention_weights);
}

// delta = g . c + sum_t alpha_t G_t of one utterance, the same in every thread.
template <typename scalar_t>
__device__ scalar_t delta_of(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const Utterance& utterance) {
  const int64_t first_unit = blockIdx.x * inputs.n_units;
  scalar_t sum = 0;
  for (int64_t unit = threadIdx.x; unit < inputs.n_units; unit += BLOCK_THREADS) {
    sum += gradients.grad_context[first_unit + unit] * gradients.context[first_unit + unit];
  }
  if (gradients.grad_attention_weights != nullptr) {
    for (int64_t frame = threadIdx.x; frame < utterance.n_frames; frame += BLOCK_THREADS) {
      const int64_t row = utterance.first_row + frame;
      sum += gradients.attention_weights[row] * gradients.grad_attention_weights[row];
    }
  }
  return block_sum(sum);
}

// ds_t of one row, the same in every lane of the warp that calls it.
template <typename scalar_t, bool dropout>
__device__ scalar_t warp_grad_score(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const Layout& layout,
    int64_t row,
    int64_t frame,
    scalar_t delta) {
  scalar_t slope = 0;
  for (int64_t unit = threadIdx.x % WARP_THREADS; unit < inputs.n_units; unit += WARP_THREADS) {
    slope += kept<scalar_t, dropout>(layout, frame, unit, inputs.dropout_threshold) *
             gradients.grad_context[blockIdx.x * inputs.n_units + unit] * inputs.hidden[row * inputs.n_units + unit];
  }
  const scalar_t through_context = warp_sum(slope) * dropout_scale<scalar_t>(inputs.dropout_threshold);
  const scalar_t through_weight =
      gradients.grad_attention_weights == nullptr ? scalar_t(0) : gradients.grad_attention_weights[row];
  return gradients.attention_weights[row] * (through_context + through_weight - delta);
}

// dh_t of one tile, and its part of dw where scores come from the query alone.
template <typename scalar_t, Score score, bool dropout>
__device__ void backward_tile(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const Layout& layout,
    int64_t first_row,
    int64_t first_frame,
    int n_frames,
    const scalar_t* grad_scores,  // (frame)
    scalar_t* grad_query) {       // (unit), or null
  const scalar_t scale = dropout_scale<scalar_t>(inputs.dropout_threshold);
  for (int64_t unit = threadIdx.x; unit < inputs.n_units; unit += BLOCK_THREADS) {
    const scalar_t slope = gradients.grad_context[blockIdx.x * inputs.n_units + unit] * scale;
    scalar_t sum = 0;
    for (int frame = 0; frame < n_frames; ++frame) {
      const int64_t row = first_row + frame;
      const int64_t at = row * inputs.n_units + unit;
      if (gradients.grad_hidden != nullptr) {
        scalar_t grad = gradients.attention_weights[row] * slope *
                        kept<scalar_t, dropout>(layout, first_frame + frame, unit, inputs.dropout_threshold);
        if constexpr (score == Score::query) {
          grad += grad_scores[frame] * inputs.query[unit];
        }
        gradients.grad_hidden[at] = grad;
      }
      if constexpr (score == Score::query) {
        sum += grad_scores[frame] * inputs.hidden[at];
      }
    }
    if (score == Score::query && grad_query != nullptr) {
      grad_query[unit] += sum;
    }
  }
}

// dz_t of one tile and its part of dw, for eq. 8.
template <typename scalar_t>
__device__ void backward_tanh_tile(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    int64_t first_row,
    int n_frames,
    const scalar_t* grad_scores,  // (frame)
    scalar_t* grad_query) {       // (attention), or null
  for (int64_t unit = threadIdx.x; unit < inputs.n_attention; unit += BLOCK_THREADS) {
    scalar_t sum = 0;
    for (int frame = 0; frame < n_frames; ++frame) {
      const int64_t at = (first_row + frame) * inputs.n_attention + unit;
      const scalar_t activation = tanh(inputs.projected[at]);
      sum += grad_scores[frame] * activation;
      if (gradients.grad_projected != nullptr) {
        gradients.grad_projected[at] =
            grad_scores[frame] * inputs.query[unit] * (scalar_t(1) - activation * activation);
      }
    }
    if (grad_query != nullptr) {
      grad_query[unit] += sum;
    }
  }
}

template <typename scalar_t, Score score, bool dropout>
__global__ void __launch_bounds__(BLOCK_THREADS, MULTIPROCESSOR_BLOCKS) attention_pool_backward_kernel(
    AttentionPoolInputs<scalar_t> inputs,
    AttentionPoolGradients<scalar_t> gradients,
    Layout layout,
    int64_t n_query,
    scalar_t* __restrict__ grad_query_parts) {  // (batch, unit) or (batch, attention), or null
  __shared__ scalar_t grad_scores[TILE];
  const int warp = threadIdx.x / WARP_THREADS;
  const int lane = threadIdx.x % WARP_THREADS;
  const Utterance utterance =
      utterance_within_rows(layout.first_rows, layout.lengths, blockIdx.x, layout.n_utterances, layout.n_rows);
  scalar_t* grad_query = grad_query_parts == nullptr ? nullptr : grad_query_parts + blockIdx.x * n_query;
  if (grad_query != nullptr) {
    for (int64_t unit = threadIdx.x; unit < n_query; unit += BLOCK_THREADS) {
      grad_query[unit] = 0;
    }
  }
  const scalar_t delta = delta_of(inputs, gradients, utterance);
  for (int64_t first = 0; first < utterance.n_frames; first += TILE) {
    const int n_frames = static_cast<int>(utterance.n_frames - first < TILE ? utterance.n_frames - first : TILE);
    const int64_t first_row = utterance.first_row + first;
    if constexpr (score != Score::uniform) {
      for (int frame = warp; frame < n_frames; frame += BLOCK_WARPS) {
        const scalar_t grad_score =
            warp_grad_score<scalar_t, dropout>(inputs, gradients, layout, first_row + frame, first + frame, delta);
        if (lane == 0) {
          grad_scores[frame] = grad_score;
        }
      }
    }
    __syncthreads();
    backward_tile<scalar_t, score, dropout>(
        inputs, gradients, layout, first_row, first, n_frames, grad_scores, grad_query);
    if constexpr (score == Score::projected) {
      backward_tanh_tile(inputs, gradients, first_row, n_frames, grad_scores, grad_query);
    }
    __syncthreads();
  }
  if (gradients.grad_hidden != nullptr) {
    zero_gap(utterance, inputs.n_units, gradients.grad_hidden);
  }
  if (gradients.grad_projected != nullptr) {
    zero_gap(utterance, inputs.n_attention, gradients.grad_projected);
  }
}

// Sum over the utterances in order, in double: one thread per number.
template <typename scalar_t>
__global__ void __launch_bounds__(BLOCK_THREADS, MULTIPROCESSOR_BLOCKS) sum_parts_kernel(
    const scalar_t* __restrict__ parts,  // (batch, width)
    int64_t n_parts,
    int64_t width,
    scalar_t* __restrict__ sums) {  // (width)
  const int64_t at = static_cast<int64_t>(blockIdx.x) * BLOCK_THREADS + threadIdx.x;
  if (at < width) {
    double sum = 0;
    for (int64_t part = 0; part < n_parts; ++part) {
      sum += static_cast<double>(parts[part * width + at]);
    }
    sums[at] = static_cast<scalar_t>(sum);
  }
}

}  // namespace serfast
