// Rows and vectors of numbers: the inner loops of attention_pool on the CPU, with dropout where asked.
//
// Included by attention_pool_kernel.inl. Sums run in lanes, in an order that depends on the number of units alone.

#include "philox.inl"

// Units worked on together: what one draw of dropout bits serves.
constexpr int BLOCK_UNITS = DRAW_BLOCK;

// Sums over the block of units of the frames of one tile, into sums (sums * rescale + sum_t weights[t] m_t rows_t).
template <typename scalar_t, bool dropout, bool whole>
SERFAST_INLINE void add_block(
    const scalar_t* rows,  // (frame, unit), from the block's first unit
    int64_t n_units,
    int64_t first_unit,
    const Chunk& tile,
    uint32_t threshold,
    const scalar_t* weights,  // (frame)
    scalar_t rescale,
    scalar_t* sums) {  // (unit), from the block's first unit
  constexpr int n_lanes = Pack<scalar_t>::n_lanes;
  constexpr int n_packs = BLOCK_UNITS / n_lanes;
  const int64_t n_left = n_units - first_unit;
  Pack<scalar_t> sum[n_packs];
  for (int i = 0; i < n_packs; ++i) {
    sum[i] = broadcast(scalar_t(0));
  }
  for (int64_t frame = 0; frame < tile.n_frames; ++frame) {
    uint16_t bits[BLOCK_UNITS];
    if constexpr (dropout) {
      draw_bits(
          tile.seed, static_cast<uint32_t>(tile.first_frame + frame), static_cast<uint32_t>(first_unit / DRAW_UNITS),
          bits);
    }
    const Pack<scalar_t> weight = broadcast(weights[frame]);
    for (int i = 0; i < n_packs; ++i) {
      if (whole || i * n_lanes < n_left) {
        const scalar_t* lanes = rows + frame * n_units + i * n_lanes;
        Pack<scalar_t> row = whole ? load(lanes) : load_first(lanes, n_left - i * n_lanes);
        if constexpr (dropout) {
          row = keep(row, bits + i * n_lanes, threshold);
        }
        sum[i] = multiply_add(weight, row, sum[i]);
      }
    }
  }
  for (int i = 0; i < n_packs; ++i) {
    if (whole || i * n_lanes < n_left) {
      const Pack<scalar_t> before = load_first(sums + i * n_lanes, n_left - i * n_lanes);
      store_first(sums + i * n_lanes, multiply_add(before, broadcast(rescale), sum[i]), n_left - i * n_lanes);
    }
  }
}

// sums = sums * rescale + sum_t weights[t] m_t rows_t over the frames of one tile.
template <typename scalar_t, bool dropout>
SERFAST_INLINE void add_rows(
    const scalar_t* rows,  // (frame, unit)
    int64_t n_units,
    const Chunk& tile,
    uint32_t threshold,
    const scalar_t* weights,  // (frame)
    scalar_t rescale,
    scalar_t* sums) {  // (unit)
  int64_t unit = 0;
  for (; unit + BLOCK_UNITS <= n_units; unit += BLOCK_UNITS) {
    add_block<scalar_t, dropout, true>(rows + unit, n_units, unit, tile, threshold, weights, rescale, sums + unit);
  }
  if (unit < n_units) {
    add_block<scalar_t, dropout, false>(rows + unit, n_units, unit, tile, threshold, weights, rescale, sums + unit);
  }
}

// vector . row, or vector . tanh(row).
template <typename scalar_t, bool through_tanh>
SERFAST_INLINE scalar_t score_of(const scalar_t* vector, const scalar_t* row, int64_t n_units) {
  constexpr int n_lanes = Pack<scalar_t>::n_lanes;
  constexpr int n_sums = 4;  // enough independent sums to keep the multipliers busy
  Pack<scalar_t> sum[n_sums];
  for (int i = 0; i < n_sums; ++i) {
    sum[i] = broadcast(scalar_t(0));
  }
  int64_t unit = 0;
  for (; unit + n_sums * n_lanes <= n_units; unit += n_sums * n_lanes) {
    for (int i = 0; i < n_sums; ++i) {
      const Pack<scalar_t> value = load(row + unit + i * n_lanes);
      sum[i] = multiply_add(load(vector + unit + i * n_lanes), through_tanh ? tanh(value) : value, sum[i]);
    }
  }
  for (; unit < n_units; unit += n_lanes) {
    const Pack<scalar_t> value = load_first(row + unit, n_units - unit);
    sum[0] = multiply_add(load_first(vector + unit, n_units - unit), through_tanh ? tanh(value) : value, sum[0]);
  }
  return sum_of_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// sums += weight * addend.
template <typename scalar_t>
SERFAST_INLINE void add_scaled(const scalar_t* addend, scalar_t weight, int64_t n, scalar_t* sums) {
  for (int64_t i = 0; i < n; i += Pack<scalar_t>::n_lanes) {
    const Pack<scalar_t> sum = load_first(sums + i, n - i);
    store_first(sums + i, multiply_add(load_first(addend + i, n - i), broadcast(weight), sum), n - i);
  }
}

// One block of units of one frame: adds m g . h to sums, one per pack, and writes weight * m g to grad_hidden.
template <typename scalar_t, bool needs_sums, bool dropout, bool whole>
SERFAST_INLINE void slope_block(
    const AttentionPoolInputs<scalar_t>& inputs,
    int64_t row,
    int64_t first_unit,
    const uint16_t* bits,          // (BLOCK_UNITS)
    const scalar_t* grad_context,  // (unit)
    scalar_t weight,
    scalar_t* grad_hidden,  // (row, unit), or null
    Pack<scalar_t>* sums) {
  constexpr int n_lanes = Pack<scalar_t>::n_lanes;
  for (int i = 0; i < BLOCK_UNITS / n_lanes; ++i) {
    const int64_t unit = first_unit + i * n_lanes;
    const int64_t n_left = inputs.n_units - unit;
    if (whole || n_left > 0) {
      Pack<scalar_t> slope = whole ? load(grad_context + unit) : load_first(grad_context + unit, n_left);
      if constexpr (dropout) {
        slope = keep(slope, bits + i * n_lanes, inputs.dropout_threshold);
      }
      if constexpr (needs_sums) {
        const scalar_t* lanes = inputs.hidden + row * inputs.n_units + unit;
        sums[i] = multiply_add(slope, whole ? load(lanes) : load_first(lanes, n_left), sums[i]);
      }
      if (grad_hidden != nullptr) {
        store_first(grad_hidden + row * inputs.n_units + unit, slope * broadcast(weight), n_left);
      }
    }
  }
}

// m g . h_t of one frame (zero where the scores are uniform and nobody needs it); writes weight * m g to grad_hidden.
template <typename scalar_t, bool needs_sums, bool dropout>
SERFAST_INLINE scalar_t slope_row(
    const AttentionPoolInputs<scalar_t>& inputs,
    const Chunk& tile,
    int64_t frame,
    const scalar_t* grad_context,  // (unit)
    scalar_t weight,
    scalar_t* grad_hidden) {  // (row, unit), or null
  constexpr int n_packs = BLOCK_UNITS / Pack<scalar_t>::n_lanes;
  Pack<scalar_t> sums[n_packs];
  for (int i = 0; i < n_packs; ++i) {
    sums[i] = broadcast(scalar_t(0));
  }
  for (int64_t unit = 0; unit < inputs.n_units; unit += BLOCK_UNITS) {
    uint16_t bits[BLOCK_UNITS];
    if constexpr (dropout) {
      draw_bits(
          tile.seed, static_cast<uint32_t>(tile.first_frame + frame), static_cast<uint32_t>(unit / DRAW_UNITS), bits);
    }
    if (unit + BLOCK_UNITS <= inputs.n_units) {
      slope_block<scalar_t, needs_sums, dropout, true>(
          inputs, tile.first_row + frame, unit, bits, grad_context, weight, grad_hidden, sums);
    } else {
      slope_block<scalar_t, needs_sums, dropout, false>(
          inputs, tile.first_row + frame, unit, bits, grad_context, weight, grad_hidden, sums);
    }
  }
  for (int width = n_packs / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) {
      sums[i] = sums[i] + sums[i + width];
    }
  }
  return sum_of_lanes(sums[0]);
}
