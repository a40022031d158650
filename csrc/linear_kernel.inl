// CPU body of linear (linear.h has the equation). Included once per instruction set and type by linear_cpu_<type>.cpp.

#include "panel_product.inl"

// Rows that stay in the second cache while every panel passes by.
constexpr int64_t ROW_BLOCK = 96;

template <typename scalar_t>
void pack_panel(
    const LinearInputs<scalar_t>& inputs,
    int64_t first_out,
    scalar_t* panel) {  // (n_in, PANEL_OUTPUTS)
  constexpr int n_outputs = PANEL_OUTPUTS<scalar_t>;
  const int64_t n_left = inputs.n_out - first_out;
  for (int64_t in = 0; in < inputs.n_in; ++in) {
    for (int64_t out = n_left; out < n_outputs; ++out) {
      panel[in * n_outputs + out] = scalar_t(0);
    }
  }
  for (int64_t out = 0; out < n_outputs && out < n_left; ++out) {
    const scalar_t* weight = inputs.weight + (first_out + out) * inputs.n_in;
    for (int64_t in = 0; in < inputs.n_in; ++in) {
      panel[in * n_outputs + out] = weight[in];
    }
  }
}

// The outputs of one panel for n_rows rows from `first_row`.
template <typename scalar_t, int n_rows>
SERFAST_INLINE void multiply_tile(
    const LinearInputs<scalar_t>& inputs,
    const scalar_t* panel,  // (n_in, PANEL_OUTPUTS)
    int64_t first_row,
    int64_t first_out,
    scalar_t* outputs) {  // (row, n_out)
  constexpr int n_lanes = Pack<scalar_t>::n_lanes;
  const int64_t n_left = inputs.n_out - first_out;
  const scalar_t* rows[n_rows];
  Pack<scalar_t> sums[n_rows][PANEL_PACKS];
  for (int row = 0; row < n_rows; ++row) {
    rows[row] = inputs.rows + (first_row + row) * inputs.n_in;
    prefetch_to_write<PANEL_PACKS * n_lanes>(outputs + (first_row + row) * inputs.n_out + first_out);
    for (int pack = 0; pack < PANEL_PACKS; ++pack) {
      sums[row][pack] = broadcast(scalar_t(0));
      if (inputs.bias != nullptr && pack * n_lanes < n_left) {
        sums[row][pack] = load_first(inputs.bias + first_out + pack * n_lanes, n_left - pack * n_lanes);
      }
    }
  }
  multiply_panel<scalar_t, n_rows>(rows, inputs.n_in, panel, sums);
  for (int row = 0; row < n_rows; ++row) {
    scalar_t* output = outputs + (first_row + row) * inputs.n_out + first_out;
    for (int pack = 0; pack < PANEL_PACKS && pack * n_lanes < n_left; ++pack) {
      store_first(output + pack * n_lanes, sums[row][pack], n_left - pack * n_lanes);
    }
  }
}

// The outputs of one panel for rows [begin, end): whole tiles, then tiles of half the size.
template <typename scalar_t, int n_rows>
SERFAST_INLINE void multiply_tiles(
    const LinearInputs<scalar_t>& inputs,
    const scalar_t* panel,  // (n_in, PANEL_OUTPUTS)
    int64_t begin,
    int64_t end,
    int64_t first_out,
    scalar_t* outputs) {  // (row, n_out)
  for (; begin + n_rows <= end; begin += n_rows) {
    multiply_tile<scalar_t, n_rows>(inputs, panel, begin, first_out, outputs);
  }
  if constexpr (n_rows > 1) {
    multiply_tiles<scalar_t, n_rows / 2>(inputs, panel, begin, end, first_out, outputs);
  }
}

template <typename scalar_t>
void multiply_rows(
    const LinearInputs<scalar_t>& inputs,
    const scalar_t* panels,  // (panel, n_in, PANEL_OUTPUTS)
    int64_t begin,
    int64_t end,
    scalar_t* outputs) {  // (row, n_out)
  constexpr int n_outputs = PANEL_OUTPUTS<scalar_t>;
  static_assert(n_outputs == PANEL_PACKS * Pack<scalar_t>::n_lanes, "a panel is PANEL_PACKS packs wide");
  for (int64_t row = begin; row < end; row += ROW_BLOCK) {
    const int64_t last = row + ROW_BLOCK < end ? row + ROW_BLOCK : end;
    for (int64_t out = 0; out < inputs.n_out; out += n_outputs) {
      multiply_tiles<scalar_t, PANEL_ROWS>(inputs, panels + out * inputs.n_in, row, last, out, outputs);
    }
  }
}

template <typename scalar_t>
void pack_rows(
    const OuterProducts<scalar_t>& factors,
    int64_t first_row,
    int64_t n_rows,
    scalar_t* panels) {  // (panel, n_rows, PANEL_OUTPUTS)
  constexpr int n_outputs = PANEL_OUTPUTS<scalar_t>;
  for (int64_t first = 0; first < factors.n_right; first += n_outputs) {
    const int64_t n_left = factors.n_right - first;
    for (int64_t row = first_row; row < first_row + n_rows; ++row, panels += n_outputs) {
      const scalar_t* line = factors.right + row * factors.n_right + first;
      for (int place = 0; place < n_outputs; place += Pack<scalar_t>::n_lanes) {
        store(panels + place, place < n_left ? load_first(line + place, n_left - place) : broadcast(scalar_t(0)));
      }
    }
  }
}

// Outer products of one panel and `n_lines` neighbouring numbers of the left rows, from `line`.
template <typename scalar_t, int n_lines>
SERFAST_INLINE void add_outer_tile(
    const OuterProducts<scalar_t>& factors,
    const scalar_t* panel,  // (row of the chunk, PANEL_OUTPUTS)
    int64_t first_row,
    int64_t n_rows,
    int64_t line,
    int64_t first_right,
    scalar_t* sums) {  // (n_left, n_right)
  constexpr int n_lanes = Pack<scalar_t>::n_lanes;
  const scalar_t* lines[n_lines];
  Pack<scalar_t> products[n_lines][PANEL_PACKS];
  for (int i = 0; i < n_lines; ++i) {
    lines[i] = factors.left + first_row * factors.left_stride + line + i;
    for (int pack = 0; pack < PANEL_PACKS; ++pack) {
      products[i][pack] = broadcast(scalar_t(0));
    }
  }
  multiply_panel<scalar_t, n_lines>(lines, n_rows, panel, products, factors.left_stride);
  const int64_t n_left = factors.n_right - first_right;
  for (int i = 0; i < n_lines; ++i) {
    scalar_t* sum = sums + (line + i) * factors.n_right + first_right;
    for (int pack = 0; pack < PANEL_PACKS && pack * n_lanes < n_left; ++pack) {
      const int64_t n = n_left - pack * n_lanes;
      store_first(sum + pack * n_lanes, load_first(sum + pack * n_lanes, n) + products[i][pack], n);
    }
  }
}

// The lines [begin, end) of one panel: whole tiles, then tiles of half the size.
template <typename scalar_t, int n_lines>
SERFAST_INLINE void add_outer_tiles(
    const OuterProducts<scalar_t>& factors,
    const scalar_t* panel,  // (row of the chunk, PANEL_OUTPUTS)
    int64_t first_row,
    int64_t n_rows,
    int64_t begin,
    int64_t end,
    int64_t first_right,
    scalar_t* sums) {  // (n_left, n_right)
  for (; begin + n_lines <= end; begin += n_lines) {
    add_outer_tile<scalar_t, n_lines>(factors, panel, first_row, n_rows, begin, first_right, sums);
  }
  if constexpr (n_lines > 1) {
    add_outer_tiles<scalar_t, n_lines / 2>(factors, panel, first_row, n_rows, begin, end, first_right, sums);
  }
}

template <typename scalar_t>
void add_outer_products(
    const OuterProducts<scalar_t>& factors,
    const scalar_t* panels,  // (panel, row of the chunk, PANEL_OUTPUTS)
    int64_t first_row,
    int64_t n_rows,
    int64_t begin,
    int64_t end,
    scalar_t* sums) {  // (n_left, n_right)
  constexpr int n_outputs = PANEL_OUTPUTS<scalar_t>;
  for (int64_t first = 0; first < factors.n_right; first += n_outputs) {
    add_outer_tiles<scalar_t, PANEL_ROWS>(factors, panels + first * n_rows, first_row, n_rows, begin, end, first, sums);
  }
}

template <typename scalar_t>
struct LinearTable {
  static constexpr LinearKernels<scalar_t> table = {
      pack_panel<scalar_t>, multiply_rows<scalar_t>, add_outer_products<scalar_t>, pack_rows<scalar_t>};
};
