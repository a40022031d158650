// Backward of attention_pool on CUDA (attention_pool.h has the equations): a block per utterance for delta, a block per
// chunk for its rows, and the query's gradient summed over the chunks in a fixed order.

#pragma once

#include "attention_pool_kernel.cuh"

namespace serfast {

// Runs of neighbouring slots whose parts of the query's gradient are summed by one thread per unit.
constexpr int SUM_RUNS = 32;

// delta = g . c + sum_t alpha_t G_t of one utterance. Gaps between utterances get zero gradients.
template <typename scalar_t>
__global__ void __launch_bounds__(BLOCK_THREADS, MULTIPROCESSOR_BLOCKS<scalar_t>) delta_kernel(
    AttentionPoolInputs<scalar_t> inputs,
    AttentionPoolGradients<scalar_t> gradients,
    Layout layout,
    SumType<scalar_t>* __restrict__ deltas) {  // (batch)
  const Utterance utterance = layout.utterance(blockIdx.x);
  const int64_t first_unit = blockIdx.x * inputs.n_units;
  SumType<scalar_t> sum = 0;
  for (int64_t unit = threadIdx.x; unit < inputs.n_units; unit += BLOCK_THREADS) {
    sum += gradients.grad_context[first_unit + unit] * gradients.context[first_unit + unit];
  }
  if (gradients.grad_attention_weights != nullptr) {
    for (int64_t frame = threadIdx.x; frame < utterance.n_frames; frame += BLOCK_THREADS) {
      const int64_t row = utterance.first_row + frame;
      sum += gradients.attention_weights[row] * gradients.grad_attention_weights[row];
    }
  }
  const SumType<scalar_t> delta = block_sum(sum);
  if (threadIdx.x == 0) {
    deltas[blockIdx.x] = delta;
  }
  if (gradients.grad_hidden != nullptr) {
    zero_gap(utterance, inputs.n_units, gradients.grad_hidden);
  }
  if (gradients.grad_projected != nullptr) {
    zero_gap(utterance, inputs.n_attention, gradients.grad_projected);
  }
}

// A tile of a chunk in the backward pass.
struct BlockTile {
  int64_t first_row;
  int64_t first_frame;  // within the utterance
  int n_frames;
};

// (m g) . h of one row, the same in every lane of the warp that calls it.
template <bool dropout, bool aligned, typename scalar_t>
__device__ SumType<scalar_t> warp_slope(
    const AttentionPoolInputs<scalar_t>& inputs,
    const SumType<scalar_t>* grad_context,  // (unit)
    uint64_t seed,
    int64_t row,
    int64_t frame) {
  SumType<scalar_t> sum = 0;
  for (int64_t at = threadIdx.x % WARP_THREADS * OCTET; at < inputs.n_units; at += WARP_THREADS * OCTET) {
    SumType<scalar_t> values[OCTET];
    SumType<scalar_t> slopes[OCTET];
    load_octet<aligned>(inputs.hidden + row * inputs.n_units + at, inputs.n_units - at, values);
    load_octet<aligned>(grad_context + at, inputs.n_units - at, slopes);
    const uint32_t kept = kept_octet<dropout>(seed, frame, at / OCTET, inputs.dropout_threshold);
    for (int i = 0; i < OCTET; ++i) {
      sum += (kept >> i & 1u) != 0 ? slopes[i] * values[i] : SumType<scalar_t>(0);
    }
  }
  return warp_sum(sum);
}

// dh_t of one tile, and its part of dw where scores come from the query alone.
template <Score score, bool dropout, bool aligned, typename scalar_t>
__device__ void backward_tile(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const BlockChunk& chunk,
    const BlockTile& tile,
    const ThreadPlace& place,
    const SumType<scalar_t>* grad_scores,  // (frame)
    SumType<scalar_t>* grad_query) {       // (OCTET), this thread's
  using sum_t = SumType<scalar_t>;
  const sum_t scale = dropout_scale<sum_t>(inputs.dropout_threshold);
  const int64_t unit = place.octet * OCTET;
  const int64_t n_left = inputs.n_units - unit;
  sum_t slopes[OCTET];
  sum_t directions[OCTET] = {};
  load_octet<aligned>(gradients.grad_context + chunk.utterance * inputs.n_units + unit, n_left, slopes);
  if constexpr (score == Score::query) {
    load_octet<aligned>(inputs.query + chunk.group * inputs.n_units + unit, n_left, directions);
  }
  for (int frame = place.set; frame < tile.n_frames; frame += place.n_sets) {
    const int64_t row = tile.first_row + frame;
    const int64_t at = row * inputs.n_units + unit;
    if constexpr (score == Score::query) {
      sum_t values[OCTET];
      load_octet<aligned>(inputs.hidden + at, n_left, values);
      for (int i = 0; i < OCTET; ++i) {
        grad_query[i] += grad_scores[frame] * values[i];
      }
    }
    if (gradients.grad_hidden != nullptr) {
      const sum_t weight = gradients.attention_weights[row] * scale;
      const uint32_t kept =
          kept_octet<dropout>(chunk.seed, tile.first_frame + frame, place.octet, inputs.dropout_threshold);
      sum_t grads[OCTET];
      for (int i = 0; i < OCTET; ++i) {
        const sum_t through_score = score == Score::query ? grad_scores[frame] * directions[i] : sum_t(0);
        grads[i] = (kept >> i & 1u) != 0 ? weight * slopes[i] + through_score : through_score;
      }
      store_octet<aligned>(gradients.grad_hidden + at, n_left, grads);
    }
  }
}

// dz_t of one tile and its part of dw, for eq. 8.
template <bool aligned, typename scalar_t>
__device__ void backward_tanh_tile(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const BlockChunk& chunk,
    const BlockTile& tile,
    const ThreadPlace& place,
    const SumType<scalar_t>* grad_scores,  // (frame)
    SumType<scalar_t>* grad_query) {       // (OCTET), this thread's
  using sum_t = SumType<scalar_t>;
  const int64_t unit = place.octet * OCTET;
  const int64_t n_left = inputs.n_attention - unit;
  sum_t directions[OCTET];
  load_octet<aligned>(inputs.query + chunk.group * inputs.n_attention + unit, n_left, directions);
  for (int frame = place.set; frame < tile.n_frames; frame += place.n_sets) {
    const int64_t at = (tile.first_row + frame) * inputs.n_attention + unit;
    sum_t values[OCTET];
    load_octet<aligned>(inputs.projected + at, n_left, values);
    for (int i = 0; i < OCTET; ++i) {
      const sum_t activation = tanh(values[i]);
      grad_query[i] += grad_scores[frame] * activation;
      values[i] = grad_scores[frame] * directions[i] * (sum_t(1) - activation * activation);
    }
    if (gradients.grad_projected != nullptr) {
      store_octet<aligned>(gradients.grad_projected + at, n_left, values);
    }
  }
}

template <typename scalar_t, Score score, bool dropout, bool aligned>
__global__ void __launch_bounds__(BLOCK_THREADS, MULTIPROCESSOR_BLOCKS<scalar_t>) attention_pool_backward_kernel(
    AttentionPoolInputs<scalar_t> inputs,
    AttentionPoolGradients<scalar_t> gradients,
    Layout layout,
    ChunkParts<scalar_t> parts,
    const SumType<scalar_t>* __restrict__ deltas) {  // (batch)
  using sum_t = SumType<scalar_t>;
  __shared__ sum_t grad_scores[TILE_FRAMES];
  const int64_t slot = blockIdx.x;
  const BlockChunk chunk = chunk_of_slot(layout, slot);
  if (parts.groups != nullptr && threadIdx.x == 0 && blockIdx.y == 0) {
    parts.groups[slot] = chunk.n_frames > 0 ? chunk.group : -1;
  }
  if (chunk.n_frames == 0) {
    return;
  }
  const sum_t scale = dropout_scale<sum_t>(inputs.dropout_threshold);
  const ThreadPlace place(inputs.n_units, blockIdx.y, TILE_FRAMES);
  const ThreadPlace scored_place(inputs.n_scored(), blockIdx.y, TILE_FRAMES);
  sum_t grad_query[OCTET] = {};
  for (int first = 0; first < chunk.n_frames; first += TILE_FRAMES) {
    const int n_left = chunk.n_frames - first;
    const BlockTile tile = {
        chunk.first_row + first, chunk.first_frame + first, n_left < TILE_FRAMES ? n_left : TILE_FRAMES};
    if constexpr (score != Score::uniform) {
      for (int frame = threadIdx.x / WARP_THREADS; frame < tile.n_frames; frame += BLOCK_WARPS) {
        const int64_t row = tile.first_row + frame;
        const sum_t slope = warp_slope<dropout, aligned>(
            inputs, gradients.grad_context + chunk.utterance * inputs.n_units, chunk.seed, row,
            tile.first_frame + frame);
        const sum_t through_weight =
            gradients.grad_attention_weights == nullptr ? sum_t(0) : gradients.grad_attention_weights[row];
        if (threadIdx.x % WARP_THREADS == 0) {
          grad_scores[frame] =
              gradients.attention_weights[row] * (slope * scale + through_weight - deltas[chunk.utterance]);
        }
      }
      __syncthreads();
    }
    if (place.works) {
      backward_tile<score, dropout, aligned>(inputs, gradients, chunk, tile, place, grad_scores, grad_query);
    }
    if (score == Score::projected && scored_place.works) {
      backward_tanh_tile<aligned>(inputs, gradients, chunk, tile, scored_place, grad_scores, grad_query);
    }
    __syncthreads();
  }
  if (parts.grad_query != nullptr) {
    write_sums<aligned>(scored_place, grad_query, inputs.n_scored(), parts.grad_query + slot * inputs.n_scored());
  }
}

// Sums of one run of slots in order: a thread per number, a block row per run, a layer per group.
template <typename sum_t>
__global__ void __launch_bounds__(BLOCK_THREADS, MULTIPROCESSOR_BLOCKS<sum_t>) sum_run_kernel(
    const sum_t* __restrict__ parts,     // (slot, width)
    const int64_t* __restrict__ groups,  // (slot)
    int64_t n_slots,
    int64_t width,
    double* __restrict__ run_sums) {  // (run, group, width)
  const int64_t at = static_cast<int64_t>(blockIdx.x) * BLOCK_THREADS + threadIdx.x;
  const int64_t n_run = (n_slots + SUM_RUNS - 1) / SUM_RUNS;
  const int64_t first = blockIdx.y * n_run;
  const int64_t end = first + n_run < n_slots ? first + n_run : n_slots;
  if (at < width) {
    double sum = 0;
    for (int64_t slot = first; slot < end; ++slot) {
      if (groups[slot] == blockIdx.z) {
        sum += static_cast<double>(parts[slot * width + at]);
      }
    }
    run_sums[(static_cast<int64_t>(blockIdx.y) * gridDim.z + blockIdx.z) * width + at] = sum;
  }
}

template <typename sum_t>
__global__ void __launch_bounds__(BLOCK_THREADS, MULTIPROCESSOR_BLOCKS<sum_t>) sum_runs_kernel(
    const double* __restrict__ run_sums,  // (run, number)
    int64_t n_numbers,
    sum_t* __restrict__ sums) {  // (number)
  const int64_t at = static_cast<int64_t>(blockIdx.x) * BLOCK_THREADS + threadIdx.x;
  if (at < n_numbers) {
    double sum = 0;
    for (int run = 0; run < SUM_RUNS; ++run) {
      sum += run_sums[run * n_numbers + at];
    }
    sums[at] = static_cast<sum_t>(sum);
  }
}

}  // namespace serfast
