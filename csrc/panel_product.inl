// The product of a few rows with one panel of a matrix: the inner loop of every product on the CPU.
//
// A panel is PANEL_PACKS packs wide and stored row by row, (inner, PANEL_PACKS packs). Every sum runs over the inner dimension in
// order, in one chain of its own: neither the number of rows nor the instruction set's width changes it.

constexpr int PANEL_PACKS = 4;
// Rows whose sums fit into the registers beside one row of the panel.
constexpr int PANEL_ROWS = SERFAST_REGISTER_BYTES == 64 ? 6 : 3;

// sums[row][pack] += sum_k rows[row][k * stride] panel[k][pack].
template <typename scalar_t, int n_rows>
SERFAST_INLINE void multiply_panel(
    const scalar_t* const* rows,  // (n_rows) pointers to (inner)
    int64_t n_inner,
    const scalar_t* panel,  // (inner, PANEL_PACKS, lane)
    Pack<scalar_t> (*sums)[PANEL_PACKS],
    int64_t stride = 1) {
  using Register = typename Pack<scalar_t>::Register;
  constexpr int n_lanes = Pack<scalar_t>::n_lanes;
  for (int part = 0; part < Pack<scalar_t>::n_registers; ++part) {
    Register sum[n_rows][PANEL_PACKS];
    for (int row = 0; row < n_rows; ++row) {
      for (int pack = 0; pack < PANEL_PACKS; ++pack) {
        sum[row][pack] = sums[row][pack].part[part];
      }
    }
    const scalar_t* line = panel + part * Pack<scalar_t>::n_register_lanes;
    for (int64_t k = 0; k < n_inner; ++k, line += PANEL_PACKS * n_lanes) {
      Register factor[PANEL_PACKS];
      for (int pack = 0; pack < PANEL_PACKS; ++pack) {
        __builtin_memcpy(&factor[pack], line + pack * n_lanes, SERFAST_REGISTER_BYTES);
      }
      for (int row = 0; row < n_rows; ++row) {
        const scalar_t value = rows[row][k * stride];
        for (int pack = 0; pack < PANEL_PACKS; ++pack) {
          sum[row][pack] += value * factor[pack];
        }
      }
    }
    for (int row = 0; row < n_rows; ++row) {
      for (int pack = 0; pack < PANEL_PACKS; ++pack) {
        sums[row][pack].part[part] = sum[row][pack];
      }
    }
  }
}
