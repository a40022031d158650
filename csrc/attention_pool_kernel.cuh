// attention_pool on CUDA (attention_pool.h has the equations): one warp per chunk of an utterance, then one block per
// utterance and slice of its units to join its chunks in order.
//
// A warp keeps its part of a row in registers from the score to the sum, so each row is read once, and the next rows are
// on their way meanwhile. No sum depends on the order in which warps run, or on where in a batch an utterance lies.

#pragma once

#include <cfloat>

#include "attention_pool_chunk.cuh"

namespace serfast {

// Threads of a block that works on one utterance, or on one number per thread.
constexpr int JOIN_THREADS = 128;
constexpr int JOIN_WARPS = JOIN_THREADS / WARP_THREADS;
// Below every score, and finite: exp of a difference is never that of two infinities.
template <typename sum_t>
constexpr sum_t LOWEST_SCORE = sizeof(sum_t) == sizeof(float) ? -FLT_MAX : static_cast<sum_t>(-DBL_MAX);

// Room for what the chunks bring until they are joined.
template <typename scalar_t>
struct ChunkParts {
  SumType<scalar_t>* contexts;    // (slot, unit)
  SumType<scalar_t>* maxima;      // (slot)
  SumType<scalar_t>* sums;        // (slot)
  SumType<scalar_t>* grad_query;  // (slot, unit) or (slot, attention)
  int64_t* groups;                // (slot), -1 where a slot is left over
};

// One lane's numbers of a vector.
template <typename sum_t, int octets>
struct LaneVector {
  sum_t numbers[octets][OCTET];

  template <bool aligned>
  __device__ void load(const LanePlace<octets>& place, const sum_t* vector, int64_t n_numbers) {
#pragma unroll
    for (int k = 0; k < octets; ++k) {
      const Octet<sum_t> octet = load_octet<aligned>(vector + place.unit(k), n_numbers - place.unit(k));
#pragma unroll
      for (int i = 0; i < OCTET; ++i) {
        numbers[k][i] = octet[i];
      }
    }
  }
};

// sum + the products of an octet, or of its tanh, with its factors, in one chain. Dropped ones count for nothing.
template <bool through_tanh, typename scalar_t>
__device__ SumType<scalar_t> add_products(
    SumType<scalar_t> sum, const Octet<scalar_t>& octet, const SumType<scalar_t>* factors, uint32_t kept) {
#pragma unroll
  for (int i = 0; i < OCTET; ++i) {
    const SumType<scalar_t> value = through_tanh ? tanh(octet[i]) : octet[i];
    sum = (kept >> i & 1u) != 0 ? fma(factors[i], value, sum) : sum;
  }
  return sum;
}

// A row, and the vector that it is multiplied with.
template <typename scalar_t>
struct RowProduct {
  const scalar_t* row;              // (n_numbers)
  const SumType<scalar_t>* vector;  // (n_numbers)
  int64_t n_numbers;
  uint64_t seed;
  int64_t frame;
  uint32_t dropout_threshold;
};

// vector . row, or vector . tanh(row), the same in every lane. The lane's own slice is at hand; those that
// other blocks work on are read again, in order, so that all blocks of a row find the same bits.
template <bool through_tanh, bool dropout, bool aligned, typename scalar_t, int octets>
__device__ SumType<scalar_t> row_product(
    const LanePlace<octets>& place,
    const Octet<scalar_t>* numbers,
    const LaneVector<SumType<scalar_t>, octets>& factors,
    const uint32_t* kept,
    const RowProduct<scalar_t>& whole) {
  using sum_t = SumType<scalar_t>;
  sum_t own = 0;
#pragma unroll
  for (int k = 0; k < octets; ++k) {
    own = add_products<through_tanh>(own, numbers[k], factors.numbers[k], kept[k]);
  }
  if constexpr (octets < MOST_OCTETS) {
    return warp_sum(own);
  }
  sum_t total = 0;
  for (unsigned slice = 0; slice < gridDim.y; ++slice) {
    sum_t part = 0;
    const LanePlace<octets> other(slice);
#pragma unroll 1
    for (int k = 0; slice != blockIdx.y && k < octets; ++k) {
      const int64_t n_left = whole.n_numbers - other.unit(k);
      const Octet<scalar_t> octet = load_octet<aligned>(whole.row + other.unit(k), n_left);
      const Octet<sum_t> vector = load_octet<aligned>(whole.vector + other.unit(k), n_left);
      sum_t numbers[OCTET];
#pragma unroll
      for (int i = 0; i < OCTET; ++i) {
        numbers[i] = vector[i];
      }
      const uint32_t bits = kept_octet<dropout>(whole.seed, whole.frame, other.octet(k), whole.dropout_threshold);
      part = add_products<through_tanh>(part, octet, numbers, bits);
    }
    total += slice == blockIdx.y ? own : part;
  }
  return warp_sum(total);
}

// s_t of a chunk by eq. 8, that of frame t in lane t.
template <bool aligned, typename scalar_t, int octets>
__device__ SumType<scalar_t> projected_scores(
    const AttentionPoolInputs<scalar_t>& inputs, const WarpChunk& chunk, const LanePlace<octets>& place) {
  using sum_t = SumType<scalar_t>;
  using Rows = RowsAtOnce<scalar_t, octets>;
  const int64_t width = inputs.n_attention;
  const sum_t* vector = inputs.query + chunk.group * width;
  uint32_t kept[octets];
#pragma unroll
  for (int k = 0; k < octets; ++k) {
    kept[k] = kept_octet<false>(0, 0, 0, 0);
  }
  LaneVector<sum_t, octets> query;
  query.template load<aligned>(place, vector, width);
  const int lane = threadIdx.x % WARP_THREADS;
  sum_t score = 0;
  Rows next;
  next.template load<aligned>(place, chunk, 0, inputs.projected, width);
  for (int first = 0; first < chunk.n_frames; first += Rows::ROWS) {
    const Rows rows = next;
    next.template load<aligned>(place, chunk, first + Rows::ROWS, inputs.projected, width);
#pragma unroll
    for (int r = 0; r < Rows::ROWS; ++r) {
      const int frame = first + r;
      const scalar_t* row = inputs.projected + (chunk.first_row + frame) * width;
      const RowProduct<scalar_t> whole = {row, vector, frame < chunk.n_frames ? width : 0, 0, 0, 0};
      const sum_t product = row_product<true, false, aligned>(place, rows.numbers[r], query, kept, whole);
      score = lane == frame ? product : score;
    }
  }
  return score;
}

// One chunk: its scores to where the weights will be, its context without the factor 1 / sum, maximum and sum. Rows that
// belong to no utterance get zero weights.
template <typename scalar_t, int octets, Score score, bool dropout, bool aligned>
__global__ void __launch_bounds__(BLOCK_THREADS, MULTIPROCESSOR_BLOCKS) attention_pool_kernel(
    AttentionPoolInputs<scalar_t> inputs,
    Layout layout,
    ChunkParts<scalar_t> parts,
    SumType<scalar_t>* __restrict__ scores) {  // (row)
  using sum_t = SumType<scalar_t>;
  using Rows = RowsAtOnce<scalar_t, octets>;
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * BLOCK_WARPS + threadIdx.x / WARP_THREADS;
  if (slot >= layout.n_slots()) {
    return;
  }
  const WarpChunk chunk = chunk_of_slot(layout, slot);
  if (blockIdx.y == 0) {
    zero_gap<false>(chunk, 1, scores);
  }
  if (chunk.n_frames == 0) {
    return;
  }
  const int lane = threadIdx.x % WARP_THREADS;
  const LanePlace<octets> place(blockIdx.y);
  const int64_t n_units = inputs.n_units;
  const uint32_t threshold = inputs.dropout_threshold;
  uint32_t all[octets];
#pragma unroll
  for (int k = 0; k < octets; ++k) {
    all[k] = kept_octet<false>(0, 0, 0, 0);
  }
  sum_t projected_score = 0;
  LaneVector<sum_t, octets> query;
  if constexpr (score == Score::projected) {
    projected_score = projected_scores<aligned>(inputs, chunk, place);
  } else if constexpr (score == Score::query) {
    query.template load<aligned>(place, inputs.query + chunk.group * n_units, n_units);
  }
  sum_t maximum = LOWEST_SCORE<sum_t>;
  sum_t total = 0;
  sum_t sums[octets][OCTET] = {};
  Rows next;
  next.template load<aligned>(place, chunk, 0, inputs.hidden, n_units);
  for (int first = 0; first < chunk.n_frames; first += Rows::ROWS) {
    const Rows rows = next;
    next.template load<aligned>(place, chunk, first + Rows::ROWS, inputs.hidden, n_units);
    sum_t values[Rows::ROWS];
    sum_t highest = maximum;
#pragma unroll
    for (int r = 0; r < Rows::ROWS; ++r) {
      const int frame = first + r;
      const bool exists = frame < chunk.n_frames;
      values[r] = 0;
      if constexpr (score == Score::query) {
        const RowProduct<scalar_t> whole = {
            inputs.hidden + (chunk.first_row + frame) * n_units,
            inputs.query + chunk.group * n_units,
            exists ? n_units : 0,
            0,
            0,
            0};
        values[r] = row_product<false, false, aligned>(place, rows.numbers[r], query, all, whole);
      } else if constexpr (score == Score::projected) {
        values[r] = __shfl_sync(WHOLE_WARP, projected_score, frame);
      }
      if (exists && lane == 0 && blockIdx.y == 0) {
        scores[chunk.first_row + frame] = values[r];
      }
      highest = exists && values[r] > highest ? values[r] : highest;
    }
    const sum_t rescale = exp(maximum - highest);
    maximum = highest;
    total *= rescale;
#pragma unroll
    for (int k = 0; k < octets; ++k) {
#pragma unroll
      for (int i = 0; i < OCTET; ++i) {
        sums[k][i] *= rescale;
      }
    }
#pragma unroll
    for (int r = 0; r < Rows::ROWS; ++r) {
      const int frame = first + r;
      const sum_t weight = frame < chunk.n_frames ? exp(values[r] - maximum) : sum_t(0);
      total += weight;
#pragma unroll
      for (int k = 0; k < octets; ++k) {
        const uint32_t kept = kept_octet<dropout>(chunk.seed, chunk.first_frame + frame, place.octet(k), threshold);
#pragma unroll
        for (int i = 0; i < OCTET; ++i) {
          sums[k][i] = (kept >> i & 1u) != 0 ? fma(weight, rows.numbers[r][k][i], sums[k][i]) : sums[k][i];
        }
      }
    }
  }
  place.template store<aligned>(sums, parts.contexts + slot * n_units, n_units);
  if (lane == 0 && blockIdx.y == 0) {
    parts.maxima[slot] = maximum;
    parts.sums[slot] = total;
  }
}

// What every thread of a block brought, joined in order and the same in every thread. All of them must call it.
template <typename sum_t, typename Join>
__device__ sum_t join_block(sum_t value, const Join& join) {
  __shared__ sum_t values[JOIN_WARPS];
  for (int distance = WARP_THREADS / 2; distance > 0; distance /= 2) {
    value = join(value, __shfl_xor_sync(WHOLE_WARP, value, distance));
  }
  if (threadIdx.x % WARP_THREADS == 0) {
    values[threadIdx.x / WARP_THREADS] = value;
  }
  __syncthreads();
  value = values[0];
  for (int warp = 1; warp < JOIN_WARPS; ++warp) {
    value = join(value, values[warp]);
  }
  __syncthreads();
  return value;
}

// Joins the chunks of one utterance: one unit of its context per thread, and its scores turned into weights.
template <typename scalar_t>
__global__ void __launch_bounds__(JOIN_THREADS) join_chunks_kernel(
    AttentionPoolInputs<scalar_t> inputs,
    Layout layout,
    ChunkParts<scalar_t> parts,
    SumType<scalar_t>* __restrict__ context,              // (batch, unit)
    SumType<scalar_t>* __restrict__ attention_weights) {  // (row), holds the scores
  using sum_t = SumType<scalar_t>;
  __shared__ sum_t factors[JOIN_THREADS];
  const Utterance utterance = layout.utterance(blockIdx.x);
  const int64_t first_slot = layout.first_slot(blockIdx.x);
  const int64_t n_chunks = (utterance.n_frames + WARP_FRAMES - 1) / WARP_FRAMES;
  sum_t maximum = LOWEST_SCORE<sum_t>;
  for (int64_t chunk = threadIdx.x; chunk < n_chunks; chunk += JOIN_THREADS) {
    const sum_t highest = parts.maxima[first_slot + chunk];
    maximum = highest > maximum ? highest : maximum;
  }
  maximum = join_block(maximum, [](sum_t one, sum_t other) { return other > one ? other : one; });
  const int64_t unit = static_cast<int64_t>(blockIdx.y) * JOIN_THREADS + threadIdx.x;
  sum_t own_total = 0;
  sum_t sum = 0;
  for (int64_t first = 0; first < n_chunks; first += JOIN_THREADS) {
    const int n_factors = static_cast<int>(n_chunks - first < JOIN_THREADS ? n_chunks - first : JOIN_THREADS);
    const int64_t first_of_tile = first_slot + first;
    if (threadIdx.x < n_factors) {
      factors[threadIdx.x] = exp(parts.maxima[first_of_tile + threadIdx.x] - maximum);
      own_total += factors[threadIdx.x] * parts.sums[first_of_tile + threadIdx.x];
    }
    __syncthreads();
    for (int chunk = 0; unit < inputs.n_units && chunk < n_factors; ++chunk) {
      sum = fma(factors[chunk], parts.contexts[(first_of_tile + chunk) * inputs.n_units + unit], sum);
    }
    __syncthreads();
  }
  const sum_t total = join_block(own_total, [](sum_t one, sum_t other) { return one + other; });
  const sum_t share = n_chunks > 0 ? sum_t(1) / total : sum_t(0);
  if (unit < inputs.n_units) {
    context[blockIdx.x * inputs.n_units + unit] = sum * share * dropout_scale<sum_t>(inputs.dropout_threshold);
  }
  for (int64_t frame = unit; frame < utterance.n_frames; frame += static_cast<int64_t>(gridDim.y) * JOIN_THREADS) {
    const int64_t row = utterance.first_row + frame;
    attention_weights[row] = exp(attention_weights[row] - maximum) * share;
  }
}

}  // namespace serfast
