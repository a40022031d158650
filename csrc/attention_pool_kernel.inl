// CPU body of attention_pool (attention_pool.h has the equations). Included once per instruction set by
// attention_pool_cpu.cpp; a chunk is at most CHUNK_FRAMES frames of one utterance.

#include "attention_pool_rows.inl"

// The tile of a chunk that starts at one of its frames.
SERFAST_INLINE Chunk tile_of(const Chunk& chunk, int64_t frame) {
  const int64_t n_left = chunk.n_frames - frame;
  return {
      chunk.utterance, chunk.first_row + frame, chunk.first_frame + frame, n_left < TILE_FRAMES ? n_left : TILE_FRAMES,
      chunk.seed};
}

// Scores of one tile, minus infinity beyond its last frame.
template <typename scalar_t, Score score>
SERFAST_INLINE void score_tile(
    const AttentionPoolInputs<scalar_t>& inputs,
    const Chunk& tile,
    scalar_t* scores) {  // (TILE_FRAMES)
  for (int64_t frame = 0; frame < TILE_FRAMES; ++frame) {
    scores[frame] = -static_cast<scalar_t>(__builtin_inf());
  }
  for (int64_t frame = 0; frame < tile.n_frames; ++frame) {
    const int64_t row = tile.first_row + frame;
    if constexpr (score == Score::query) {
      scores[frame] = score_of<scalar_t, false>(inputs.query, inputs.hidden + row * inputs.n_units, inputs.n_units);
    } else {
      scores[frame] =
          score_of<scalar_t, true>(inputs.query, inputs.projected + row * inputs.n_attention, inputs.n_attention);
    }
  }
}

// Turns the scores of one tile into exp(score - new maximum), updates the running maximum and sum, and returns what
// earlier sums must be multiplied by.
template <typename scalar_t>
SERFAST_INLINE scalar_t update_softmax(
    scalar_t* scores,  // (TILE_FRAMES)
    SoftmaxSum<scalar_t>& softmax) {
  constexpr int n_lanes = Pack<scalar_t>::n_lanes;
  scalar_t maximum = softmax.maximum;
  for (int frame = 0; frame < TILE_FRAMES; ++frame) {
    maximum = scores[frame] > maximum ? scores[frame] : maximum;
  }
  const scalar_t rescale = exp_of(softmax.maximum - maximum);
  Pack<scalar_t> total = broadcast(scalar_t(0));
  for (int frame = 0; frame < TILE_FRAMES; frame += n_lanes) {
    const Pack<scalar_t> terms = exp_nonpositive(load(scores + frame) - broadcast(maximum));
    store(scores + frame, terms);
    total = total + terms;
  }
  softmax = {maximum, softmax.sum * rescale + sum_of_lanes(total)};
  return rescale;
}

// One chunk of the forward pass: scores to where the weights will be, the unscaled context, maximum and sum.
template <typename scalar_t, Score score, bool dropout>
void pool_frames(
    const AttentionPoolInputs<scalar_t>& inputs,
    const Chunk& chunk,
    scalar_t* scores,   // (row)
    scalar_t* context,  // (unit)
    SoftmaxSum<scalar_t>& softmax) {
  __builtin_memset(context, 0, inputs.n_units * sizeof(scalar_t));
  softmax = {-static_cast<scalar_t>(__builtin_inf()), scalar_t(0)};
  for (int64_t first = 0; first < chunk.n_frames; first += TILE_FRAMES) {
    const Chunk tile = tile_of(chunk, first);
    scalar_t weights[TILE_FRAMES];
    scalar_t rescale = scalar_t(1);
    if constexpr (score == Score::uniform) {
      for (int frame = 0; frame < TILE_FRAMES; ++frame) {
        weights[frame] = scalar_t(1);
      }
    } else {
      score_tile<scalar_t, score>(inputs, tile, weights);
      __builtin_memcpy(scores + tile.first_row, weights, tile.n_frames * sizeof(scalar_t));
      rescale = update_softmax(weights, softmax);
    }
    add_rows<scalar_t, dropout>(
        inputs.hidden + tile.first_row * inputs.n_units, inputs.n_units, tile, inputs.dropout_threshold, weights,
        rescale, context);
  }
  if constexpr (score == Score::uniform) {
    softmax = {scalar_t(0), static_cast<scalar_t>(chunk.n_frames)};
  }
}

// exp(scores - maximum) / sum in place, or 1 / sum where the scores are uniform.
template <typename scalar_t>
SERFAST_INLINE void weights_of_scores(
    const SoftmaxSum<scalar_t>& softmax,
    bool is_uniform,
    int64_t n_frames,
    scalar_t* scores) {  // (frame)
  const Pack<scalar_t> share = broadcast(scalar_t(1) / softmax.sum);
  for (int64_t i = 0; i < n_frames; i += Pack<scalar_t>::n_lanes) {
    Pack<scalar_t> weights = share;
    if (!is_uniform) {
      weights = exp_nonpositive(load_first(scores + i, n_frames - i) - broadcast(softmax.maximum)) * share;
    }
    store_first(scores + i, weights, n_frames - i);
  }
}

template <typename scalar_t>
void join_chunks(
    const AttentionPoolInputs<scalar_t>& inputs,
    const scalar_t* chunk_contexts,             // (chunk, unit)
    const SoftmaxSum<scalar_t>* chunk_softmax,  // (chunk)
    int64_t n_chunks,
    int64_t n_frames,
    scalar_t* weights,    // (frame)
    scalar_t* context) {  // (unit)
  __builtin_memset(context, 0, inputs.n_units * sizeof(scalar_t));
  if (n_chunks == 0) {
    return;
  }
  SoftmaxSum<scalar_t> softmax = {chunk_softmax[0].maximum, scalar_t(0)};
  for (int64_t chunk = 1; chunk < n_chunks; ++chunk) {
    const scalar_t maximum = chunk_softmax[chunk].maximum;
    softmax.maximum = maximum > softmax.maximum ? maximum : softmax.maximum;
  }
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
    softmax.sum += chunk_softmax[chunk].sum * exp_of(chunk_softmax[chunk].maximum - softmax.maximum);
  }
  const scalar_t scale = dropout_scale<scalar_t>(inputs.dropout_threshold) / softmax.sum;
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
    const scalar_t factor = scale * exp_of(chunk_softmax[chunk].maximum - softmax.maximum);
    add_scaled(chunk_contexts + chunk * inputs.n_units, factor, inputs.n_units, context);
  }
  weights_of_scores(softmax, inputs.score() == Score::uniform, n_frames, weights);
}

template <typename scalar_t>
scalar_t delta(
    const scalar_t* context,       // (unit)
    const scalar_t* grad_context,  // (unit)
    int64_t n_units,
    const scalar_t* attention_weights,       // (frame)
    const scalar_t* grad_attention_weights,  // (frame), or null
    int64_t n_frames) {
  const scalar_t through_context = score_of<scalar_t, false>(grad_context, context, n_units);
  if (grad_attention_weights == nullptr) {
    return through_context;
  }
  return through_context + score_of<scalar_t, false>(attention_weights, grad_attention_weights, n_frames);
}

// Eq. 8, one frame: dz = ds w (1 - u^2) to grad_projected, and dw += ds u, each where needed.
template <typename scalar_t>
SERFAST_INLINE void backward_tanh(
    const AttentionPoolInputs<scalar_t>& inputs,
    int64_t row,
    scalar_t grad_score,
    scalar_t* grad_projected,  // (row, attention), or null
    scalar_t* grad_query) {    // (attention), or null
  const Pack<scalar_t> slope = broadcast(grad_score);
  for (int64_t unit = 0; unit < inputs.n_attention; unit += Pack<scalar_t>::n_lanes) {
    const int64_t n_left = inputs.n_attention - unit;
    const int64_t at = row * inputs.n_attention + unit;
    const Pack<scalar_t> activation = tanh(load_first(inputs.projected + at, n_left));
    if (grad_projected != nullptr) {
      const Pack<scalar_t> rest = broadcast(scalar_t(1)) - activation * activation;
      store_first(grad_projected + at, slope * load_first(inputs.query + unit, n_left) * rest, n_left);
    }
    if (grad_query != nullptr) {
      store_first(grad_query + unit, multiply_add(slope, activation, load_first(grad_query + unit, n_left)), n_left);
    }
  }
}

// One chunk of the backward pass.
template <typename scalar_t, Score score, bool dropout>
void backward_frames(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const Chunk& chunk,
    scalar_t delta,
    scalar_t* grad_query) {  // (unit) or (attention), or null
  const scalar_t scale = dropout_scale<scalar_t>(inputs.dropout_threshold);
  const scalar_t* grad_context = gradients.grad_context + chunk.utterance * inputs.n_units;
  for (int64_t first = 0; first < chunk.n_frames; first += TILE_FRAMES) {
    const Chunk tile = tile_of(chunk, first);
    scalar_t grad_scores[TILE_FRAMES];
    for (int64_t frame = 0; frame < tile.n_frames; ++frame) {
      const int64_t row = tile.first_row + frame;
      const scalar_t weight = gradients.attention_weights[row];
      const scalar_t slope = slope_row<scalar_t, score != Score::uniform, dropout>(
          inputs, tile, frame, grad_context, weight * scale, gradients.grad_hidden);
      const scalar_t through_weight =
          gradients.grad_attention_weights == nullptr ? scalar_t(0) : gradients.grad_attention_weights[row];
      grad_scores[frame] = weight * (slope * scale + through_weight - delta);
      if constexpr (score == Score::query) {
        if (gradients.grad_hidden != nullptr) {
          add_scaled(inputs.query, grad_scores[frame], inputs.n_units, gradients.grad_hidden + row * inputs.n_units);
        }
      }
      if constexpr (score == Score::projected) {
        backward_tanh(inputs, row, grad_scores[frame], gradients.grad_projected, grad_query);
      }
    }
    if constexpr (score == Score::query) {
      if (grad_query != nullptr) {
        add_rows<scalar_t, false>(
            inputs.hidden + tile.first_row * inputs.n_units, inputs.n_units, tile, 0, grad_scores, scalar_t(1),
            grad_query);
      }
    }
  }
}

// Calls a kernel with the kind of score and whether there is dropout as template arguments.
#define SERFAST_WITH_SCORE(KERNEL, ...)                                                             \
  switch (inputs.score()) {                                                                         \
    case Score::uniform:                                                                            \
      return inputs.dropout_threshold == 0 ? KERNEL<scalar_t, Score::uniform, false>(__VA_ARGS__)   \
                                           : KERNEL<scalar_t, Score::uniform, true>(__VA_ARGS__);   \
    case Score::query:                                                                              \
      return inputs.dropout_threshold == 0 ? KERNEL<scalar_t, Score::query, false>(__VA_ARGS__)     \
                                           : KERNEL<scalar_t, Score::query, true>(__VA_ARGS__);     \
    case Score::projected:                                                                          \
      return inputs.dropout_threshold == 0 ? KERNEL<scalar_t, Score::projected, false>(__VA_ARGS__) \
                                           : KERNEL<scalar_t, Score::projected, true>(__VA_ARGS__); \
  }

template <typename scalar_t>
void pool_chunk(
    const AttentionPoolInputs<scalar_t>& inputs,
    const Chunk& chunk,
    scalar_t* scores,   // (row)
    scalar_t* context,  // (unit)
    SoftmaxSum<scalar_t>& softmax) {
  SERFAST_WITH_SCORE(pool_frames, inputs, chunk, scores, context, softmax)
}

template <typename scalar_t>
void backward_chunk(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const Chunk& chunk,
    scalar_t delta,
    scalar_t* grad_query) {  // (unit) or (attention), or null
  SERFAST_WITH_SCORE(backward_frames, inputs, gradients, chunk, delta, grad_query)
}

#undef SERFAST_WITH_SCORE

template <typename scalar_t>
struct Kernels {
  static constexpr AttentionPoolKernels<scalar_t> table = {
      pool_chunk<scalar_t>, join_chunks<scalar_t>, delta<scalar_t>, backward_chunk<scalar_t>};
};

template struct Kernels<float>;
template struct Kernels<double>;
