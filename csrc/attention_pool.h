// attention_pool: the frames of each utterance pooled into one context vector (Huang and Narayanan, 2016).
//
//   scores        s_t = w . h_t (eq. 9),  w . tanh(z_t) with z_t = W h_t projected beforehand (eq. 8),  or all equal
//   weights       alpha_t = exp(s_t - max s) / sum_t exp(s_t - max s), over the utterance's own frames
//   context       c = sum_t alpha_t m_t h_t / (1 - p), m_t 0 or 1 per element (philox.h), all 1 without dropout
//
// Backward, with g = dL/dc, G_t = dL/dalpha_t and q_t = g m_t / (1 - p):
//
//   r_t = q_t . h_t + G_t
//   delta = sum_t alpha_t r_t = g . c + sum_t alpha_t G_t
//   ds_t = alpha_t (r_t - delta)
//
//   eq. 9:    dh_t = alpha_t q_t + ds_t w
//             dw = sum_t ds_t h_t
//   eq. 8:    u_t = tanh(z_t)
//             dh_t = alpha_t q_t  (and what comes through z_t)
//             dw = sum_t ds_t u_t
//             dz_t = ds_t w (1 - u_t^2)
//   uniform:  dh_t = alpha_t q_t
//
// Utterances may name a group, and each group has a query of its own. An utterance is a first row and a length; first
// rows ascend and utterances do not overlap. Rows of no utterance get zero weights and zero gradients. A length of 0 is
// an empty slot: its context is zero.

#pragma once

#include <cstdint>

#include "groups.h"
#include "half.h"
#include "philox.h"

namespace serfast {

enum class Score { uniform, query, projected };

// Frames whose scores and sums are worked on together, while their hidden vectors are in the nearest cache.
constexpr int TILE_FRAMES = 16;
// Frames one CPU task takes. A longer utterance is split here whatever the batch, the processor and the threads.
constexpr int64_t CHUNK_FRAMES = 256;
// Dropout probabilities are multiples of 1 / DROPOUT_STEPS.
constexpr uint32_t DROPOUT_STEPS = 65536;

struct Utterance {
  int64_t first_row;
  int64_t n_frames;
  int64_t next_row;  // where the next utterance starts, or the number of rows
};

// The part of utterance `index` that lies within the rows, whatever its length claims.
SERFAST_HOST_DEVICE Utterance utterance_within_rows(
    const int64_t* first_rows,  // (batch)
    const int64_t* lengths,     // (batch)
    int64_t index,
    int64_t n_utterances,
    int64_t n_rows) {
  const int64_t first = first_rows[index] < n_rows ? first_rows[index] : n_rows;
  const int64_t following = index + 1 < n_utterances ? first_rows[index + 1] : n_rows;
  const int64_t n_frames = lengths[index] < n_rows - first ? lengths[index] : n_rows - first;
  return {first, n_frames > 0 ? n_frames : 0, following < n_rows ? following : n_rows};
}

// 1 / (1 - p) for the quantised p.
template <typename scalar_t>
SERFAST_HOST_DEVICE scalar_t dropout_scale(uint32_t threshold) {
  return static_cast<scalar_t>(DROPOUT_STEPS) / static_cast<scalar_t>(DROPOUT_STEPS - threshold);
}

// What forward and backward read. Queries, weights and contexts are kept in the type of the sums.
template <typename scalar_t>
struct AttentionPoolInputs {
  const scalar_t* hidden;          // (row, unit)
  const SumType<scalar_t>* query;  // (group, unit) or (group, attention); null when scores are uniform
  const scalar_t* projected;       // (row, attention); null unless eq. 8
  int64_t n_units;
  int64_t n_attention;
  uint32_t dropout_threshold;  // round(65536 p); 0 without dropout

  SERFAST_HOST_DEVICE Score score() const {
    return query == nullptr ? Score::uniform : projected == nullptr ? Score::query : Score::projected;
  }

  // Numbers of one group's query.
  SERFAST_HOST_DEVICE int64_t n_scored() const { return projected == nullptr ? n_units : n_attention; }
};

// What backward reads beside them, and what it writes. A gradient that nobody needs is null.
template <typename scalar_t>
struct AttentionPoolGradients {
  const SumType<scalar_t>* context;                 // (batch, unit)
  const SumType<scalar_t>* attention_weights;       // (row)
  const SumType<scalar_t>* grad_context;            // (batch, unit)
  const SumType<scalar_t>* grad_attention_weights;  // (row), or null for zero
  scalar_t* grad_hidden;                            // (row, unit)
  scalar_t* grad_projected;                         // (row, attention)
};

}  // namespace serfast
