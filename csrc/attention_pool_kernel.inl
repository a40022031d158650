// CPU body of attention_pool (attention_pool.h has the equations). Included once per instruction set and
// type by attention_pool_cpu_<type>.cpp; a chunk is at most CHUNK_FRAMES frames of one utterance.

#include "attention_pool_rows.inl"

// The tile of a chunk that starts at one of its frames.
SERFAST_INLINE Chunk tile_of(const Chunk& chunk, int64_t frame) {
  Chunk tile = chunk;
  tile.first_row += frame;
  tile.first_frame += frame;
  tile.n_frames = chunk.n_frames - frame < TILE_FRAMES ? chunk.n_frames - frame : TILE_FRAMES;
  return tile;
}

// Scores of one tile, minus infinity beyond its last frame.
template <typename scalar_t, Score score>
SERFAST_INLINE void score_tile(
    const AttentionPoolInputs<scalar_t>& inputs,
    const Chunk& tile,
    SumType<scalar_t>* scores) {  // (TILE_FRAMES)
  const int64_t n_units = inputs.n_scored();
  const scalar_t* rows = (score == Score::query ? inputs.hidden : inputs.projected) + tile.first_row * n_units;
  for (int64_t frame = 0; frame < TILE_FRAMES; ++frame) {
    scores[frame] = -static_cast<SumType<scalar_t>>(__builtin_inf());
  }
  for (int64_t frame = 0; frame < tile.n_frames; ++frame) {
    scores[frame] = product_of<scalar_t, score == Score::projected, false>(
        inputs.query + tile.group * n_units, rows + frame * n_units, nullptr, n_units);
  }
}

// Turns the scores of one tile into exp(score - new maximum), updates the running maximum and sum, and returns what
// earlier sums must be multiplied by.
template <typename sum_t>
SERFAST_INLINE sum_t update_softmax(
    sum_t* scores,  // (TILE_FRAMES)
    SoftmaxSum<sum_t>& softmax) {
  sum_t maximum = softmax.maximum;
  for (int frame = 0; frame < TILE_FRAMES; ++frame) {
    maximum = scores[frame] > maximum ? scores[frame] : maximum;
  }
  const sum_t rescale = exp_of(softmax.maximum - maximum);
  Pack<sum_t> total = broadcast(sum_t(0));
  for (int frame = 0; frame < TILE_FRAMES; frame += Pack<sum_t>::n_lanes) {
    const Pack<sum_t> terms = exp_nonpositive(load(scores + frame) - broadcast(maximum));
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
    uint64_t* kept,              // (TILE_FRAMES, block)
    SumType<scalar_t>* scores,   // (row)
    SumType<scalar_t>* context,  // (unit)
    SoftmaxSum<SumType<scalar_t>>& softmax) {
  using sum_t = SumType<scalar_t>;
  __builtin_memset(context, 0, inputs.n_units * sizeof(sum_t));
  softmax = {-static_cast<sum_t>(__builtin_inf()), sum_t(0)};
  for (int64_t first = 0; first < chunk.n_frames; first += TILE_FRAMES) {
    const Chunk tile = tile_of(chunk, first);
    const scalar_t* rows = inputs.hidden + tile.first_row * inputs.n_units;
    if constexpr (dropout) {
      draw_frames<TILE_FRAMES>(
          rows, inputs.n_units, tile.seed, tile.first_frame, tile.n_frames, inputs.dropout_threshold, kept);
    }
    sum_t weights[TILE_FRAMES];
    sum_t rescale = sum_t(1);
    if constexpr (score == Score::uniform) {
      for (int frame = 0; frame < TILE_FRAMES; ++frame) {
        weights[frame] = sum_t(1);
      }
    } else {
      score_tile<scalar_t, score>(inputs, tile, weights);
      __builtin_memcpy(scores + tile.first_row, weights, tile.n_frames * sizeof(sum_t));
      rescale = update_softmax(weights, softmax);
    }
    add_rows<scalar_t, dropout>(rows, inputs.n_units, tile.n_frames, kept, weights, rescale, context);
  }
  if constexpr (score == Score::uniform) {
    softmax = {sum_t(0), static_cast<sum_t>(chunk.n_frames)};
  }
}

// exp(scores - maximum) / sum in place, or 1 / sum where the scores are uniform.
template <typename sum_t>
SERFAST_INLINE void weights_of_scores(
    const SoftmaxSum<sum_t>& softmax,
    bool is_uniform,
    int64_t n_frames,
    sum_t* scores) {  // (frame)
  const Pack<sum_t> share = broadcast(sum_t(1) / softmax.sum);
  for (int64_t i = 0; i < n_frames; i += Pack<sum_t>::n_lanes) {
    Pack<sum_t> weights = share;
    if (!is_uniform) {
      weights = exp_nonpositive(load_first(scores + i, n_frames - i) - broadcast(softmax.maximum)) * share;
    }
    store_first(scores + i, weights, n_frames - i);
  }
}

template <typename scalar_t>
void join_chunks(
    const AttentionPoolInputs<scalar_t>& inputs,
    const SumType<scalar_t>* chunk_contexts,             // (chunk, unit)
    const SoftmaxSum<SumType<scalar_t>>* chunk_softmax,  // (chunk)
    int64_t n_chunks,
    int64_t n_frames,
    SumType<scalar_t>* weights,    // (frame)
    SumType<scalar_t>* context) {  // (unit)
  using sum_t = SumType<scalar_t>;
  __builtin_memset(context, 0, inputs.n_units * sizeof(sum_t));
  if (n_chunks == 0) {
    return;
  }
  SoftmaxSum<sum_t> softmax = {chunk_softmax[0].maximum, sum_t(0)};
  for (int64_t chunk = 1; chunk < n_chunks; ++chunk) {
    const sum_t maximum = chunk_softmax[chunk].maximum;
    softmax.maximum = maximum > softmax.maximum ? maximum : softmax.maximum;
  }
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
    softmax.sum += chunk_softmax[chunk].sum * exp_of(chunk_softmax[chunk].maximum - softmax.maximum);
  }
  const sum_t scale = dropout_scale<sum_t>(inputs.dropout_threshold) / softmax.sum;
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
    const sum_t factor = scale * exp_of(chunk_softmax[chunk].maximum - softmax.maximum);
    add_scaled(chunk_contexts + chunk * inputs.n_units, factor, inputs.n_units, context);
  }
  weights_of_scores(softmax, inputs.score() == Score::uniform, n_frames, weights);
}

template <typename scalar_t>
SumType<scalar_t> delta(
    const AttentionPoolInputs<scalar_t>& inputs,
    const SumType<scalar_t>* context,                 // (unit)
    const SumType<scalar_t>* grad_context,            // (unit)
    const SumType<scalar_t>* attention_weights,       // (frame)
    const SumType<scalar_t>* grad_attention_weights,  // (frame), or null
    int64_t n_frames) {
  using sum_t = SumType<scalar_t>;
  const sum_t through_context = product_of<sum_t, false, false>(grad_context, context, nullptr, inputs.n_units);
  if (grad_attention_weights == nullptr) {
    return through_context;
  }
  return through_context +
         product_of<sum_t, false, false>(attention_weights, grad_attention_weights, nullptr, n_frames);
}

// Eq. 8, one frame: dz = ds w (1 - u^2) to grad_projected, and dw += ds u, each where needed.
template <typename scalar_t>
SERFAST_INLINE void backward_tanh(
    const scalar_t* projected,       // (attention)
    const SumType<scalar_t>* query,  // (attention)
    int64_t n_attention,
    SumType<scalar_t> grad_score,
    scalar_t* grad_projected,         // (attention), or null
    SumType<scalar_t>* grad_query) {  // (attention), or null
  using sum_t = SumType<scalar_t>;
  const Pack<sum_t> slope = broadcast(grad_score);
  for (int64_t unit = 0; unit < n_attention; unit += Pack<sum_t>::n_lanes) {
    const int64_t n_left = n_attention - unit;
    const Pack<sum_t> activation = tanh(load_first(projected + unit, n_left));
    if (grad_projected != nullptr) {
      const Pack<sum_t> rest = broadcast(sum_t(1)) - activation * activation;
      store_first(grad_projected + unit, slope * load_first(query + unit, n_left) * rest, n_left);
    }
    if (grad_query != nullptr) {
      store_first(grad_query + unit, multiply_add(slope, activation, load_first(grad_query + unit, n_left)), n_left);
    }
  }
}

// alpha_t / (1 - p) and ds_t of one tile.
template <typename scalar_t, Score score, bool dropout>
SERFAST_INLINE TileSlopes<SumType<scalar_t>> tile_slopes(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const Chunk& tile,
    SumType<scalar_t> delta,
    const uint64_t* kept) {  // (frame, block)
  using sum_t = SumType<scalar_t>;
  const sum_t scale = dropout_scale<sum_t>(inputs.dropout_threshold);
  const sum_t* grad_context = gradients.grad_context + tile.utterance * inputs.n_units;
  TileSlopes<sum_t> slopes;
  for (int64_t frame = 0; frame < tile.n_frames; ++frame) {
    const int64_t row = tile.first_row + frame;
    const sum_t weight = gradients.attention_weights[row];
    slopes.weights[frame] = weight * scale;
    if constexpr (score != Score::uniform) {
      const uint64_t* bits = dropout ? kept + frame * blocks_of(inputs.n_units) : nullptr;
      const sum_t slope = product_of<scalar_t, false, dropout>(
          grad_context, inputs.hidden + row * inputs.n_units, bits, inputs.n_units);
      const sum_t through_weight =
          gradients.grad_attention_weights == nullptr ? sum_t(0) : gradients.grad_attention_weights[row];
      slopes.grad_scores[frame] = weight * (slope * scale + through_weight - delta);
    }
  }
  return slopes;
}

// One chunk of the backward pass.
template <typename scalar_t, Score score, bool dropout>
void backward_frames(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const Chunk& chunk,
    SumType<scalar_t> delta,
    bool is_streamed,
    uint64_t* kept,                   // (TILE_FRAMES, block)
    SumType<scalar_t>* grad_query) {  // (unit) or (attention), or null
  using sum_t = SumType<scalar_t>;
  const int64_t n_units = inputs.n_units;
  const sum_t* query = inputs.query + (score == Score::uniform ? 0 : chunk.group * inputs.n_scored());
  for (int64_t first = 0; first < chunk.n_frames; first += TILE_FRAMES) {
    const Chunk tile = tile_of(chunk, first);
    const scalar_t* rows = inputs.hidden + tile.first_row * n_units;
    if constexpr (dropout) {
      draw_frames<TILE_FRAMES>(
          rows, n_units, tile.seed, tile.first_frame, tile.n_frames, inputs.dropout_threshold, kept);
    }
    const TileSlopes<sum_t> slopes = tile_slopes<scalar_t, score, dropout>(inputs, gradients, tile, delta, kept);
    if (gradients.grad_hidden != nullptr) {
      slope_rows<scalar_t, dropout, score == Score::query>(
          slopes, n_units, tile.n_frames, kept, rows + tile.n_frames * n_units,
          gradients.grad_context + chunk.utterance * n_units, query, gradients.grad_hidden + tile.first_row * n_units,
          is_streamed);
    }
    if constexpr (score == Score::query) {
      if (grad_query != nullptr) {
        add_rows<scalar_t, false>(rows, n_units, tile.n_frames, nullptr, slopes.grad_scores, sum_t(1), grad_query);
      }
    }
    if constexpr (score == Score::projected) {
      for (int64_t frame = 0; frame < tile.n_frames; ++frame) {
        const int64_t at = (tile.first_row + frame) * inputs.n_attention;
        backward_tanh(
            inputs.projected + at, query, inputs.n_attention, slopes.grad_scores[frame],
            gradients.grad_projected == nullptr ? nullptr : gradients.grad_projected + at, grad_query);
      }
    }
  }
  if (is_streamed) {
    fence_streams();
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
    uint64_t* kept,              // (TILE_FRAMES, block)
    SumType<scalar_t>* scores,   // (row)
    SumType<scalar_t>* context,  // (unit)
    SoftmaxSum<SumType<scalar_t>>& softmax) {
  SERFAST_WITH_SCORE(pool_frames, inputs, chunk, kept, scores, context, softmax)
}

template <typename scalar_t>
void backward_chunk(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const Chunk& chunk,
    SumType<scalar_t> delta,
    bool is_streamed,
    uint64_t* kept,                   // (TILE_FRAMES, block)
    SumType<scalar_t>* grad_query) {  // (unit) or (attention), or null
  SERFAST_WITH_SCORE(backward_frames, inputs, gradients, chunk, delta, is_streamed, kept, grad_query)
}

#undef SERFAST_WITH_SCORE

template <typename scalar_t>
struct AttentionPoolTable {
  static constexpr AttentionPoolKernels<scalar_t> table = {
      pool_chunk<scalar_t>, join_chunks<scalar_t>, delta<scalar_t>, backward_chunk<scalar_t>};
};
