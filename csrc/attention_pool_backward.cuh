// Backward of attention_pool on CUDA (attention_pool.h has the equations): one warp per chunk for its rows, and the
// query's gradient summed over the chunks in a fixed order.

#pragma once

#include "attention_pool_kernel.cuh"

namespace serfast {

// Runs of neighbouring slots whose parts of the query's gradient are summed by one thread per number.
constexpr int SUM_RUNS = 64;

// sum_t alpha_t G_t of one utterance.
template <typename scalar_t>
__global__ void __launch_bounds__(JOIN_THREADS) weight_slope_kernel(
    AttentionPoolGradients<scalar_t> gradients,
    Layout layout,
    SumType<scalar_t>* __restrict__ weight_slopes) {  // (batch)
  using sum_t = SumType<scalar_t>;
  const Utterance utterance = layout.utterance(blockIdx.x);
  sum_t sum = 0;
  for (int64_t frame = threadIdx.x; frame < utterance.n_frames; frame += JOIN_THREADS) {
    const int64_t row = utterance.first_row + frame;
    sum += gradients.attention_weights[row] * gradients.grad_attention_weights[row];
  }
  sum = join_block(sum, [](sum_t one, sum_t other) { return one + other; });
  if (threadIdx.x == 0) {
    weight_slopes[blockIdx.x] = sum;
  }
}

// What a lane knows of a chunk: alpha_t and ds_t of frame t in lane t, and what is the same for all frames.
template <typename sum_t>
struct ChunkSlopes {
  sum_t weight;       // alpha_t
  sum_t grad_weight;  // G_t
  sum_t grad_score;   // ds_t, once it is known
  sum_t delta;
  sum_t dropout_scale;  // 1 / (1 - p)
};

// delta = g . c + sum_t alpha_t G_t
template <bool aligned, typename scalar_t>
__device__ ChunkSlopes<SumType<scalar_t>> slopes_of_chunk(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const WarpChunk& chunk,
    const SumType<scalar_t>* weight_slopes) {  // (batch), or null for zero
  using sum_t = SumType<scalar_t>;
  const int lane = threadIdx.x % WARP_THREADS;
  const bool exists = lane < chunk.n_frames;
  const bool has_slope = exists && gradients.grad_attention_weights != nullptr;
  const sum_t* slope = gradients.grad_context + chunk.utterance * inputs.n_units;
  const sum_t* context = gradients.context + chunk.utterance * inputs.n_units;
  sum_t delta = 0;
  for (int64_t unit = lane * OCTET; unit < inputs.n_units; unit += WARP_THREADS * OCTET) {
    const Octet<sum_t> slopes = load_octet<aligned>(slope + unit, inputs.n_units - unit);
    const Octet<sum_t> contexts = load_octet<aligned>(context + unit, inputs.n_units - unit);
#pragma unroll
    for (int i = 0; i < OCTET; ++i) {
      delta = fma(slopes[i], contexts[i], delta);
    }
  }
  delta = warp_sum(delta) + (weight_slopes == nullptr ? sum_t(0) : weight_slopes[chunk.utterance]);
  return {
      exists ? gradients.attention_weights[chunk.first_row + lane] : sum_t(0),
      has_slope ? gradients.grad_attention_weights[chunk.first_row + lane] : sum_t(0), 0, delta,
      dropout_scale<sum_t>(inputs.dropout_threshold)};
}

// ds_t and dh_t of a chunk, and its part of dw where scores come from the query alone.
template <Score score, bool dropout, bool aligned, typename scalar_t, int octets>
__device__ void backward_rows(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const WarpChunk& chunk,
    const LanePlace<octets>& place,
    ChunkSlopes<SumType<scalar_t>>& slopes,
    SumType<scalar_t> (*grad_query)[OCTET]) {  // (octet, unit), this lane's
  using sum_t = SumType<scalar_t>;
  using Rows = RowsAtOnce<scalar_t, octets>;
  const int64_t n_units = inputs.n_units;
  const uint32_t threshold = inputs.dropout_threshold;
  const int lane = threadIdx.x % WARP_THREADS;
  const sum_t* grad_context = gradients.grad_context + chunk.utterance * n_units;
  LaneVector<sum_t, octets> slope;
  LaneVector<sum_t, octets> query;
  slope.template load<aligned>(place, grad_context, n_units);
  if constexpr (score == Score::query) {
    query.template load<aligned>(place, inputs.query + chunk.group * n_units, n_units);
  }
  Rows next;
  if constexpr (score != Score::uniform) {
    next.template load<aligned>(place, chunk, 0, inputs.hidden, n_units);
  }
  for (int first = 0; first < chunk.n_frames; first += Rows::ROWS) {
    const Rows rows = next;
    if constexpr (score != Score::uniform) {
      next.template load<aligned>(place, chunk, first + Rows::ROWS, inputs.hidden, n_units);
    }
#pragma unroll
    for (int r = 0; r < Rows::ROWS; ++r) {
      const int frame = first + r;
      const bool exists = frame < chunk.n_frames;
      const int64_t at = (chunk.first_row + frame) * n_units;
      uint32_t kept[octets];
#pragma unroll
      for (int k = 0; k < octets; ++k) {
        kept[k] = kept_octet<dropout>(chunk.seed, chunk.first_frame + frame, place.octet(k), threshold);
      }
      const sum_t weight = __shfl_sync(WHOLE_WARP, slopes.weight, frame);
      sum_t grad_score = 0;
      if constexpr (score != Score::uniform) {
        const RowProduct<scalar_t> whole = {inputs.hidden + at,        grad_context, exists ? n_units : 0, chunk.seed,
                                            chunk.first_frame + frame, threshold};
        const sum_t through_context = row_product<false, dropout, aligned>(place, rows.numbers[r], slope, kept, whole);
        const sum_t through_weight = __shfl_sync(WHOLE_WARP, slopes.grad_weight, frame);
        grad_score = weight * (through_context * slopes.dropout_scale + through_weight - slopes.delta);
        slopes.grad_score = lane == frame ? grad_score : slopes.grad_score;
      }
      const sum_t scaled_weight = weight * slopes.dropout_scale;
#pragma unroll
      for (int k = 0; k < octets; ++k) {
        sum_t grads[OCTET];
#pragma unroll
        for (int i = 0; i < OCTET; ++i) {
          sum_t through_score = 0;
          if constexpr (score == Score::query) {
            through_score = grad_score * query.numbers[k][i];
            grad_query[k][i] = fma(grad_score, rows.numbers[r][k][i], grad_query[k][i]);
          }
          grads[i] = (kept[k] >> i & 1u) != 0 ? fma(scaled_weight, slope.numbers[k][i], through_score) : through_score;
        }
        if (exists && gradients.grad_hidden != nullptr) {
          store_octet<aligned>(gradients.grad_hidden + at + place.unit(k), n_units - place.unit(k), grads);
        }
      }
    }
  }
}

// dz_t of a chunk and its part of dw, for eq. 8.
template <bool aligned, typename scalar_t, int octets>
__device__ void backward_tanh_rows(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const WarpChunk& chunk,
    const LanePlace<octets>& place,
    SumType<scalar_t> own_grad_score,          // ds_t of frame t in lane t
    SumType<scalar_t> (*grad_query)[OCTET]) {  // (octet, number), this lane's
  using sum_t = SumType<scalar_t>;
  using Rows = RowsAtOnce<scalar_t, octets>;
  const int64_t width = inputs.n_attention;
  LaneVector<sum_t, octets> query;
  query.template load<aligned>(place, inputs.query + chunk.group * width, width);
  Rows next;
  next.template load<aligned>(place, chunk, 0, inputs.projected, width);
  for (int first = 0; first < chunk.n_frames; first += Rows::ROWS) {
    const Rows rows = next;
    next.template load<aligned>(place, chunk, first + Rows::ROWS, inputs.projected, width);
#pragma unroll
    for (int r = 0; r < Rows::ROWS; ++r) {
      const int frame = first + r;
      const sum_t grad_score = __shfl_sync(WHOLE_WARP, own_grad_score, frame);
#pragma unroll
      for (int k = 0; k < octets; ++k) {
        sum_t grads[OCTET];
#pragma unroll
        for (int i = 0; i < OCTET; ++i) {
          const sum_t activation = tanh(rows.numbers[r][k][i]);
          grad_query[k][i] = fma(grad_score, activation, grad_query[k][i]);
          grads[i] = grad_score * query.numbers[k][i] * (sum_t(1) - activation * activation);
        }
        if (frame < chunk.n_frames && gradients.grad_projected != nullptr) {
          scalar_t* row = gradients.grad_projected + (chunk.first_row + frame) * width;
          store_octet<aligned>(row + place.unit(k), width - place.unit(k), grads);
        }
      }
    }
  }
}

template <typename scalar_t, int octets, Score score, bool dropout, bool aligned>
__global__ void __launch_bounds__(BLOCK_THREADS, MULTIPROCESSOR_BLOCKS) attention_pool_backward_kernel(
    AttentionPoolInputs<scalar_t> inputs,
    AttentionPoolGradients<scalar_t> gradients,
    Layout layout,
    ChunkParts<scalar_t> parts,
    const SumType<scalar_t>* __restrict__ weight_slopes) {  // (batch), or null for zero
  using sum_t = SumType<scalar_t>;
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * BLOCK_WARPS + threadIdx.x / WARP_THREADS;
  if (slot >= layout.n_slots()) {
    return;
  }
  const WarpChunk chunk = chunk_of_slot(layout, slot);
  if (blockIdx.y == 0) {
    if (parts.groups != nullptr && threadIdx.x % WARP_THREADS == 0) {
      parts.groups[slot] = chunk.n_frames > 0 ? chunk.group : -1;
    }
    if (gradients.grad_hidden != nullptr) {
      zero_gap<aligned>(chunk, inputs.n_units, gradients.grad_hidden);
    }
    if (gradients.grad_projected != nullptr) {
      zero_gap<aligned>(chunk, inputs.n_attention, gradients.grad_projected);
    }
  }
  if (chunk.n_frames == 0) {
    return;
  }
  const LanePlace<octets> place(blockIdx.y);
  sum_t grad_query[octets][OCTET] = {};
  ChunkSlopes<sum_t> slopes = slopes_of_chunk<aligned>(inputs, gradients, chunk, weight_slopes);
  backward_rows<score, dropout, aligned>(inputs, gradients, chunk, place, slopes, grad_query);
  if constexpr (score == Score::projected) {
    backward_tanh_rows<aligned>(inputs, gradients, chunk, place, slopes.grad_score, grad_query);
  }
  if (score != Score::uniform && parts.grad_query != nullptr) {
    place.template store<aligned>(grad_query, parts.grad_query + slot * inputs.n_scored(), inputs.n_scored());
  }
}

// Sums of one run of slots in order: a thread per number, a block row per run, a layer per group.
template <typename sum_t>
__global__ void __launch_bounds__(JOIN_THREADS) sum_run_kernel(
    const sum_t* __restrict__ parts,     // (slot, width), anything where a slot is left over
    const int64_t* __restrict__ groups,  // (slot)
    int64_t n_slots,
    int64_t width,
    double* __restrict__ run_sums) {  // (run, group, width)
  const int64_t at = static_cast<int64_t>(blockIdx.x) * JOIN_THREADS + threadIdx.x;
  const int64_t n_run = (n_slots + SUM_RUNS - 1) / SUM_RUNS;
  const int64_t first = blockIdx.y * n_run;
  const int64_t end = first + n_run < n_slots ? first + n_run : n_slots;
  if (at < width) {
    double sum = 0;
#pragma unroll 8
    for (int64_t slot = first; slot < end; ++slot) {
      const double part = static_cast<double>(parts[slot * width + at]);
      sum += groups[slot] == blockIdx.z ? part : 0.0;
    }
    run_sums[(static_cast<int64_t>(blockIdx.y) * gridDim.z + blockIdx.z) * width + at] = sum;
  }
}

template <typename sum_t>
__global__ void __launch_bounds__(JOIN_THREADS) sum_runs_kernel(
    const double* __restrict__ run_sums,  // (run, number)
    int64_t n_numbers,
    sum_t* __restrict__ sums) {  // (number)
  const int64_t at = static_cast<int64_t>(blockIdx.x) * JOIN_THREADS + threadIdx.x;
  if (at < n_numbers) {
    double sum = 0;
#pragma unroll 16
    for (int run = 0; run < SUM_RUNS; ++run) {
      sum += run_sums[run * n_numbers + at];
    }
    sums[at] = static_cast<sum_t>(sum);
  }
}

}  // namespace serfast
