// attention_pool on CUDA (attention_pool.h has the equations): one block per chunk of an utterance, then one block per
// utterance to join its chunks in order.
//
// A block works on a tile of frames at a time: scores take one warp per frame, sums over the frames a thread per octet
// of units, while the tile is in the nearest cache. No sum depends on the order in which threads run.

#pragma once

#include "attention_pool_chunk.cuh"

namespace serfast {

// Room for what the chunks bring until they are joined.
template <typename scalar_t>
struct ChunkParts {
  SumType<scalar_t>* contexts;    // (slot, unit)
  SumType<scalar_t>* maxima;      // (slot)
  SumType<scalar_t>* sums;        // (slot)
  SumType<scalar_t>* grad_query;  // (slot, unit) or (slot, attention)
  int64_t* groups;                // (slot), -1 where a slot is left over
};

// vector . row, or vector . tanh(row), the same in every lane of the warp that calls it.
template <bool through_tanh, bool aligned, typename scalar_t>
__device__ SumType<scalar_t> warp_product(const SumType<scalar_t>* vector, const scalar_t* row, int64_t n_numbers) {
  SumType<scalar_t> sum = 0;
  for (int64_t at = threadIdx.x % WARP_THREADS * OCTET; at < n_numbers; at += WARP_THREADS * OCTET) {
    SumType<scalar_t> values[OCTET];
    SumType<scalar_t> factors[OCTET];
    load_octet<aligned>(row + at, n_numbers - at, values);
    load_octet<aligned>(vector + at, n_numbers - at, factors);
    for (int i = 0; i < OCTET; ++i) {
      sum += factors[i] * (through_tanh ? tanh(values[i]) : values[i]);
    }
  }
  return warp_sum(sum);
}

// One chunk: its scores to where the weights will be, its context without the factor 1 / sum, maximum and sum.
template <typename scalar_t, Score score, bool dropout, bool aligned>
__global__ void __launch_bounds__(BLOCK_THREADS, MULTIPROCESSOR_BLOCKS<scalar_t>) attention_pool_kernel(
    AttentionPoolInputs<scalar_t> inputs,
    Layout layout,
    ChunkParts<scalar_t> parts,
    SumType<scalar_t>* __restrict__ scores) {  // (row)
  using sum_t = SumType<scalar_t>;
  __shared__ sum_t tile_scores[TILE_FRAMES];
  __shared__ sum_t tile_weights[TILE_FRAMES];
  const int64_t slot = blockIdx.x;
  const int warp = threadIdx.x / WARP_THREADS;
  const int lane = threadIdx.x % WARP_THREADS;
  const BlockChunk chunk = chunk_of_slot(layout, slot);
  if (chunk.n_frames == 0) {
    return;
  }
  const ThreadPlace place(inputs.n_units, blockIdx.y, TILE_FRAMES);
  const int64_t n_scored = inputs.n_scored();
  const scalar_t* scored = score == Score::projected ? inputs.projected : inputs.hidden;
  const int64_t unit = place.octet * OCTET;
  sum_t maximum = -static_cast<sum_t>(INFINITY);
  sum_t total = 0;
  sum_t sums[OCTET] = {};
  for (int first = 0; first < chunk.n_frames; first += TILE_FRAMES) {
    const int n_frames = chunk.n_frames - first < TILE_FRAMES ? chunk.n_frames - first : TILE_FRAMES;
    const int64_t first_row = chunk.first_row + first;
    for (int frame = warp; frame < n_frames; frame += BLOCK_WARPS) {
      sum_t value = 0;
      if constexpr (score != Score::uniform) {
        value = warp_product<score == Score::projected, aligned>(
            inputs.query + chunk.group * n_scored, scored + (first_row + frame) * n_scored, n_scored);
      }
      if (lane == 0) {
        tile_scores[frame] = value;
        scores[first_row + frame] = value;
      }
    }
    __syncthreads();
    const sum_t own = lane < n_frames ? tile_scores[lane] : -static_cast<sum_t>(INFINITY);
    const sum_t highest = warp_maximum(own);
    const sum_t previous = maximum;
    maximum = highest > maximum ? highest : maximum;
    const sum_t rescale = exp(previous - maximum);
    const sum_t weight = exp(own - maximum);
    total = total * rescale + warp_sum(weight);
    if (warp == 0 && lane < TILE_FRAMES) {
      tile_weights[lane] = weight;
    }
    __syncthreads();
    for (int i = 0; i < OCTET; ++i) {
      sums[i] *= rescale;
    }
    for (int frame = place.set; place.works && frame < n_frames; frame += place.n_sets) {
      sum_t values[OCTET];
      load_octet<aligned>(inputs.hidden + (first_row + frame) * inputs.n_units + unit, inputs.n_units - unit, values);
      const uint32_t kept =
          kept_octet<dropout>(chunk.seed, chunk.first_frame + first + frame, place.octet, inputs.dropout_threshold);
      for (int i = 0; i < OCTET; ++i) {
        sums[i] += (kept >> i & 1u) != 0 ? tile_weights[frame] * values[i] : sum_t(0);
      }
    }
    __syncthreads();
  }
  write_sums<aligned>(place, sums, inputs.n_units, parts.contexts + slot * inputs.n_units);
  if (threadIdx.x == 0 && blockIdx.y == 0) {
    parts.maxima[slot] = maximum;
    parts.sums[slot] = total;
  }
}

// Zeroes the rows between this utterance and the next, and those before the first.
template <typename scalar_t>
__device__ void zero_gap(
    const Utterance& utterance,
    int64_t width,
    scalar_t* rows) {  // (row, width)
  const int64_t end = utterance.first_row + utterance.n_frames;
  for (int64_t i = end * width + threadIdx.x; i < utterance.next_row * width; i += BLOCK_THREADS) {
    rows[i] = scalar_t{};
  }
  if (blockIdx.x == 0) {
    for (int64_t i = threadIdx.x; i < utterance.first_row * width; i += BLOCK_THREADS) {
      rows[i] = scalar_t{};
    }
  }
}

// Joins the chunks of one utterance: its context, and its scores turned into weights.
template <typename scalar_t>
__global__ void __launch_bounds__(BLOCK_THREADS, MULTIPROCESSOR_BLOCKS<scalar_t>) join_chunks_kernel(
    AttentionPoolInputs<scalar_t> inputs,
    Layout layout,
    ChunkParts<scalar_t> parts,
    SumType<scalar_t>* __restrict__ context,              // (batch, unit)
    SumType<scalar_t>* __restrict__ attention_weights) {  // (row), holds the scores
  using sum_t = SumType<scalar_t>;
  const Utterance utterance = layout.utterance(blockIdx.x);
  const int64_t first_slot = layout.first_slot(blockIdx.x);
  const int64_t n_chunks = (utterance.n_frames + BLOCK_FRAMES - 1) / BLOCK_FRAMES;
  sum_t maximum = -static_cast<sum_t>(INFINITY);
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
    const sum_t highest = parts.maxima[first_slot + chunk];
    maximum = highest > maximum ? highest : maximum;
  }
  sum_t total = 0;
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
    total += parts.sums[first_slot + chunk] * exp(parts.maxima[first_slot + chunk] - maximum);
  }
  const sum_t share = n_chunks > 0 ? sum_t(1) / total : sum_t(0);
  const sum_t scale = share * dropout_scale<sum_t>(inputs.dropout_threshold);
  for (int64_t unit = threadIdx.x; unit < inputs.n_units; unit += BLOCK_THREADS) {
    sum_t sum = 0;
    for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
      const sum_t factor = exp(parts.maxima[first_slot + chunk] - maximum);
      sum += factor * parts.contexts[(first_slot + chunk) * inputs.n_units + unit];
    }
    context[blockIdx.x * inputs.n_units + unit] = sum * scale;
  }
  for (int64_t frame = threadIdx.x; frame < utterance.n_frames; frame += BLOCK_THREADS) {
    const int64_t row = utterance.first_row + frame;
    attention_weights[row] = exp(attention_weights[row] - maximum) * share;
  }
  zero_gap(utterance, 1, attention_weights);
}

}  // namespace serfast
