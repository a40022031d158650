// How the CPU cuts attention_pool into tasks, and the table of kernels that each instruction set fills.

#pragma once

#include "attention_pool.h"

namespace serfast {

// Neighbouring frames of one utterance: one task, or one tile of it.
struct Chunk {
  int64_t utterance;
  int64_t first_row;
  int64_t first_frame;  // within the utterance
  int64_t n_frames;
  uint64_t seed;  // of the utterance's dropout
};

// sum = sum_t exp(s_t - maximum) over the frames seen so far.
template <typename scalar_t>
struct SoftmaxSum {
  scalar_t maximum;
  scalar_t sum;
};

template <typename scalar_t>
struct AttentionPoolKernels {
  // Forward, one chunk: scores to where the weights will be, context without its factor 1 / sum, maximum and sum.
  void (*pool_chunk)(
      const AttentionPoolInputs<scalar_t>& inputs,
      const Chunk& chunk,
      scalar_t* scores,   // (row)
      scalar_t* context,  // (unit)
      SoftmaxSum<scalar_t>& softmax);

  // Forward, one utterance: its chunks joined in order, its scores turned into weights.
  void (*join_chunks)(
      const AttentionPoolInputs<scalar_t>& inputs,
      const scalar_t* chunk_contexts,             // (chunk, unit)
      const SoftmaxSum<scalar_t>* chunk_softmax,  // (chunk)
      int64_t n_chunks,
      int64_t n_frames,
      scalar_t* weights,   // (frame)
      scalar_t* context);  // (unit)

  // Backward, one utterance: delta = g . c + sum_t alpha_t G_t.
  scalar_t (*delta)(
      const scalar_t* context,       // (unit)
      const scalar_t* grad_context,  // (unit)
      int64_t n_units,
      const scalar_t* attention_weights,       // (frame)
      const scalar_t* grad_attention_weights,  // (frame), or null
      int64_t n_frames);

  // Backward, one chunk: the gradients of its rows, and its part of the query's where that is needed.
  void (*backward_chunk)(
      const AttentionPoolInputs<scalar_t>& inputs,
      const AttentionPoolGradients<scalar_t>& gradients,
      const Chunk& chunk,
      scalar_t delta,
      scalar_t* grad_query);  // (unit) or (attention)
};

}  // namespace serfast
