// How the CPU cuts attention_pool into tasks, and the table of kernels that each instruction set fills.

#pragma once

#include "attention_pool.h"

namespace serfast {

// Neighbouring frames of one utterance: one task, or one tile of it.
struct Chunk {
  int64_t utterance;
  int64_t group;
  int64_t first_row;
  int64_t first_frame;  // within the utterance
  int64_t n_frames;
  uint64_t seed;  // of the utterance's dropout
};

// Units whose dropout bits share a word.
constexpr int BLOCK_UNITS = 64;

constexpr int64_t blocks_of(int64_t n_units) { return (n_units + BLOCK_UNITS - 1) / BLOCK_UNITS; }

// sum = sum_t exp(s_t - maximum) over the frames seen so far.
template <typename sum_t>
struct SoftmaxSum {
  sum_t maximum;
  sum_t sum;
};

template <typename scalar_t>
struct AttentionPoolKernels {
  using sum_t = SumType<scalar_t>;

  // Forward, one chunk: scores to where the weights will be, context without its factor 1 / sum, maximum and sum.
  void (*pool_chunk)(
      const AttentionPoolInputs<scalar_t>& inputs,
      const Chunk& chunk,
      uint64_t* kept,  // (TILE_FRAMES, block), the dropout bits of a tile
      sum_t* scores,   // (row)
      sum_t* context,  // (unit)
      SoftmaxSum<sum_t>& softmax);

  // Forward, one utterance: its chunks joined in order, its scores turned into weights.
  void (*join_chunks)(
      const AttentionPoolInputs<scalar_t>& inputs,
      const sum_t* chunk_contexts,             // (chunk, unit)
      const SoftmaxSum<sum_t>* chunk_softmax,  // (chunk)
      int64_t n_chunks,
      int64_t n_frames,
      sum_t* weights,   // (frame)
      sum_t* context);  // (unit)

  // Backward, one utterance: delta = g . c + sum_t alpha_t G_t.
  sum_t (*delta)(
      const AttentionPoolInputs<scalar_t>& inputs,
      const sum_t* context,                 // (unit)
      const sum_t* grad_context,            // (unit)
      const sum_t* attention_weights,       // (frame)
      const sum_t* grad_attention_weights,  // (frame), or null
      int64_t n_frames);

  // Backward, one chunk: the gradients of its rows, and its part of the query's where that is needed. Rows may be
  // streamed past the caches where each starts at a multiple of PACK_BYTES.
  void (*backward_chunk)(
      const AttentionPoolInputs<scalar_t>& inputs,
      const AttentionPoolGradients<scalar_t>& gradients,
      const Chunk& chunk,
      sum_t delta,
      bool is_streamed,
      uint64_t* kept,      // (TILE_FRAMES, block), the dropout bits of a tile
      sum_t* grad_query);  // (unit) or (attention), or null
};

}  // namespace serfast
