// Rows and vectors of numbers: the inner loops of attention_pool on the CPU, with dropout where asked.
//
// Included by attention_pool_kernel.inl. Sums run in lanes, in an order that depends on the number of units alone.

#include "half.inl"
#include "philox.inl"

// a * b + c, or c alone in the lanes that dropout drops.
template <typename sum_t, bool dropout>
SERFAST_INLINE Pack<sum_t> multiply_add_if(
    const Pack<sum_t>& a, const Pack<sum_t>& b, const Pack<sum_t>& c, uint64_t bits) {
  if constexpr (dropout) {
    return multiply_add_kept(a, b, c, bits);
  } else {
    return multiply_add(a, b, c);
  }
}

// The pack of a row that starts n_left numbers before its end.
template <bool whole, typename scalar_t>
SERFAST_INLINE Pack<SumType<scalar_t>> load_part(const scalar_t* lanes, int64_t n_left) {
  return whole ? load(lanes) : load_first(lanes, n_left);
}

template <bool whole, typename scalar_t>
SERFAST_INLINE void store_part(scalar_t* lanes, const Pack<SumType<scalar_t>>& pack, int64_t n_left) {
  whole ? store(lanes, pack) : store_first(lanes, pack, n_left);
}

// Where the row is streamed, its units fill whole packs.
template <bool whole, typename scalar_t>
SERFAST_INLINE void store_or_stream_part(
    scalar_t* lanes, const Pack<SumType<scalar_t>>& pack, int64_t n_left, bool is_streamed) {
  if constexpr (sizeof(scalar_t) == sizeof(SumType<scalar_t>)) {
    if (is_streamed) {
      stream(lanes, pack);
      return;
    }
  }
  store_part<whole>(lanes, pack, n_left);
}

// One block of units of a tile: sums = sums * rescale + sum_t weights[t] m_t rows_t.
template <typename scalar_t, bool dropout, bool whole>
SERFAST_INLINE void add_block(
    const scalar_t* rows,  // (frame, unit), from the block's first unit
    int64_t n_units,
    int64_t n_left,
    int64_t n_frames,
    const uint64_t* kept,  // (frame, block), from the block
    const SumType<scalar_t>* weights,
    SumType<scalar_t> rescale,
    SumType<scalar_t>* sums) {  // (unit), from the block's first unit
  using sum_t = SumType<scalar_t>;
  constexpr int n_lanes = Pack<sum_t>::n_lanes;
  constexpr int n_packs = BLOCK_UNITS / n_lanes;
  Pack<sum_t> sum[n_packs];
  for (int i = 0; i < n_packs; ++i) {
    sum[i] = broadcast(sum_t(0));
  }
  for (int64_t frame = 0; frame < n_frames; ++frame) {
    const Pack<sum_t> weight = broadcast(weights[frame]);
    const uint64_t bits = dropout ? kept[frame * blocks_of(n_units)] : 0;
    for (int i = 0; i < n_packs; ++i) {
      if (whole || i * n_lanes < n_left) {
        const Pack<sum_t> row = load_part<whole>(rows + frame * n_units + i * n_lanes, n_left - i * n_lanes);
        sum[i] = multiply_add_if<sum_t, dropout>(weight, row, sum[i], bits >> (i * n_lanes));
      }
    }
  }
  for (int i = 0; i < n_packs; ++i) {
    if (whole || i * n_lanes < n_left) {
      const Pack<sum_t> before = load_part<whole>(sums + i * n_lanes, n_left - i * n_lanes);
      store_part<whole>(sums + i * n_lanes, multiply_add(before, broadcast(rescale), sum[i]), n_left - i * n_lanes);
    }
  }
}

// sums = sums * rescale + sum_t weights[t] m_t rows_t over the frames of one tile.
template <typename scalar_t, bool dropout>
void add_rows(
    const scalar_t* rows,  // (frame, unit)
    int64_t n_units,
    int64_t n_frames,
    const uint64_t* kept,              // (frame, block), or null without dropout
    const SumType<scalar_t>* weights,  // (frame)
    SumType<scalar_t> rescale,
    SumType<scalar_t>* sums) {  // (unit)
  for (int64_t unit = 0; unit < n_units; unit += BLOCK_UNITS) {
    const int64_t n_left = n_units - unit;
    const uint64_t* bits = dropout ? kept + unit / BLOCK_UNITS : nullptr;
    if (n_left >= BLOCK_UNITS) {
      add_block<scalar_t, dropout, true>(rows + unit, n_units, n_left, n_frames, bits, weights, rescale, sums + unit);
    } else {
      add_block<scalar_t, dropout, false>(rows + unit, n_units, n_left, n_frames, bits, weights, rescale, sums + unit);
    }
  }
}

// Independent sums, enough to keep the multipliers busy, whatever the number of lanes: the packs of one block.
template <typename sum_t>
constexpr int N_SUMS = BLOCK_UNITS / Pack<sum_t>::n_lanes;

template <typename sum_t>
SERFAST_INLINE sum_t total_of(Pack<sum_t>* sums) {
  for (int width = N_SUMS<sum_t> / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) {
      sums[i] = sums[i] + sums[i + width];
    }
  }
  return sum_of_lanes(sums[0]);
}

// One block of units of vector . (m row), or of vector . tanh(row), into one sum per pack.
template <typename scalar_t, bool through_tanh, bool dropout, bool whole>
SERFAST_INLINE void product_block(
    const SumType<scalar_t>* vector,  // (unit), from the block's first unit
    const scalar_t* row,              // (unit), from the block's first unit
    uint64_t bits,
    int64_t n_left,
    Pack<SumType<scalar_t>>* sums) {
  using sum_t = SumType<scalar_t>;
  constexpr int n_lanes = Pack<sum_t>::n_lanes;
  for (int i = 0; i < N_SUMS<sum_t>; ++i) {
    const int at = i * n_lanes;
    if (whole || at < n_left) {
      const Pack<sum_t> value = load_part<whole>(row + at, n_left - at);
      const Pack<sum_t> factor = load_part<whole>(vector + at, n_left - at);
      sums[i] = multiply_add_if<sum_t, dropout>(factor, through_tanh ? tanh(value) : value, sums[i], bits >> at);
    }
  }
}

// vector . (m row), or vector . tanh(row).
template <typename scalar_t, bool through_tanh, bool dropout>
SERFAST_INLINE SumType<scalar_t> product_of(
    const SumType<scalar_t>* vector,  // (unit)
    const scalar_t* row,              // (unit)
    const uint64_t* kept,             // (block), or null without dropout
    int64_t n_units) {
  using sum_t = SumType<scalar_t>;
  Pack<sum_t> sums[N_SUMS<sum_t>];
  for (int i = 0; i < N_SUMS<sum_t>; ++i) {
    sums[i] = broadcast(sum_t(0));
  }
  int64_t unit = 0;
  for (; unit + BLOCK_UNITS <= n_units; unit += BLOCK_UNITS) {
    product_block<scalar_t, through_tanh, dropout, true>(
        vector + unit, row + unit, dropout ? kept[unit / BLOCK_UNITS] : 0, n_units - unit, sums);
  }
  if (unit < n_units) {
    product_block<scalar_t, through_tanh, dropout, false>(
        vector + unit, row + unit, dropout ? kept[unit / BLOCK_UNITS] : 0, n_units - unit, sums);
  }
  return total_of(sums);
}

// sums += weight * addend.
template <typename sum_t>
SERFAST_INLINE void add_scaled(const sum_t* addend, sum_t weight, int64_t n, sum_t* sums) {
  for (int64_t i = 0; i < n; i += Pack<sum_t>::n_lanes) {
    const Pack<sum_t> sum = load_first(sums + i, n - i);
    store_first(sums + i, multiply_add(load_first(addend + i, n - i), broadcast(weight), sum), n - i);
  }
}

// What one tile of frames brings to the gradients of its hidden vectors.
template <typename sum_t>
struct TileSlopes {
  sum_t weights[TILE_FRAMES];      // alpha_t / (1 - p)
  sum_t grad_scores[TILE_FRAMES];  // ds_t
};

// One block of units of a tile: dh_t = weights[t] m_t g + grad_scores[t] w; w is null unless scores come from it alone.
template <typename scalar_t, bool dropout, bool with_query, bool whole>
SERFAST_INLINE void slope_block(
    const TileSlopes<SumType<scalar_t>>& slopes,
    int64_t n_units,
    int64_t n_left,
    int64_t n_frames,
    const uint64_t* kept,                   // (frame, block), from the block
    const scalar_t* next_rows,              // (frame, unit), from the block's first unit
    const SumType<scalar_t>* grad_context,  // (unit), from the block's first unit
    const SumType<scalar_t>* query,         // (unit), from the block's first unit
    scalar_t* grad_hidden,                  // (frame, unit), from the block's first unit
    bool is_streamed) {
  using sum_t = SumType<scalar_t>;
  constexpr int n_lanes = Pack<sum_t>::n_lanes;
  constexpr int n_packs = N_SUMS<sum_t>;
  Pack<sum_t> slope[n_packs];
  Pack<sum_t> direction[n_packs];
  for (int i = 0; i < n_packs; ++i) {
    slope[i] = direction[i] = broadcast(sum_t(0));
    if (whole || i * n_lanes < n_left) {
      slope[i] = load_part<whole>(grad_context + i * n_lanes, n_left - i * n_lanes);
      direction[i] = with_query ? load_part<whole>(query + i * n_lanes, n_left - i * n_lanes) : slope[i];
    }
  }
  for (int64_t frame = 0; frame < n_frames; ++frame) {
    prefetch<BLOCK_UNITS>(next_rows + frame * n_units);
    const Pack<sum_t> weight = broadcast(slopes.weights[frame]);
    const Pack<sum_t> grad_score = broadcast(with_query ? slopes.grad_scores[frame] : sum_t(0));
    const uint64_t bits = dropout ? kept[frame * blocks_of(n_units)] : 0;
    for (int i = 0; i < n_packs; ++i) {
      if (whole || i * n_lanes < n_left) {
        const Pack<sum_t> through_score = with_query ? direction[i] * grad_score : grad_score;
        const Pack<sum_t> grad =
            multiply_add_if<sum_t, dropout>(slope[i], weight, through_score, bits >> (i * n_lanes));
        store_or_stream_part<whole>(
            grad_hidden + frame * n_units + i * n_lanes, grad, n_left - i * n_lanes, is_streamed);
      }
    }
  }
}

// dh_t of one tile. Meanwhile the rows of the next one come into the cache.
template <typename scalar_t, bool dropout, bool with_query>
void slope_rows(
    const TileSlopes<SumType<scalar_t>>& slopes,
    int64_t n_units,
    int64_t n_frames,
    const uint64_t* kept,                   // (frame, block), or null without dropout
    const scalar_t* next_rows,              // (frame, unit), those of the next tile
    const SumType<scalar_t>* grad_context,  // (unit)
    const SumType<scalar_t>* query,         // (unit), or null
    scalar_t* grad_hidden,                  // (frame, unit)
    bool is_streamed) {
  for (int64_t unit = 0; unit < n_units; unit += BLOCK_UNITS) {
    const int64_t n_left = n_units - unit;
    const uint64_t* bits = dropout ? kept + unit / BLOCK_UNITS : nullptr;
    const SumType<scalar_t>* direction = with_query ? query + unit : nullptr;
    if (n_left >= BLOCK_UNITS) {
      slope_block<scalar_t, dropout, with_query, true>(
          slopes, n_units, n_left, n_frames, bits, next_rows + unit, grad_context + unit, direction, grad_hidden + unit,
          is_streamed);
    } else {
      slope_block<scalar_t, dropout, with_query, false>(
          slopes, n_units, n_left, n_frames, bits, next_rows + unit, grad_context + unit, direction, grad_hidden + unit,
          is_streamed);
    }
  }
}
