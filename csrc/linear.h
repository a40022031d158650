// linear: every row times a matrix, summed in an order that neither the number of rows nor a row's place changes.
//
//   y_ro = b_o + sum_i x_ri w_oi
//
// Each sum is one chain over i in ascending order that starts at b_o, contracted into fused multiply-adds where the
// processor has them. A row therefore has the same bits alone and among any others, on any number of threads. Tensor
// cores (half types on CUDA) take 16 products at a time in ascending order instead, and add b_o last.
//
// Backward:  dx_ri = sum_o dy_ro w_oi, the same product with the weight transposed
//            dw_oi = sum_r dy_ro x_ri, over chunks of CHUNK_ROWS rows in order, each in one chain

#pragma once

#include <cstdint>

#include "vector.h"

namespace serfast {

// Rows whose outer products are summed in registers before they are added to the sum: short chains err less.
constexpr int64_t CHUNK_ROWS = 128;

// Outputs of a panel: a slice of the weight, transposed so that its outputs lie side by side.
template <typename scalar_t>
constexpr int PANEL_OUTPUTS = 4 * PACK_BYTES / static_cast<int>(sizeof(scalar_t));

template <typename scalar_t>
struct LinearInputs {
  const scalar_t* rows;    // (row, n_in)
  const scalar_t* weight;  // (n_out, n_in)
  const scalar_t* bias;    // (n_out), or null for zero
  int64_t n_in;
  int64_t n_out;
};

// What the gradient of the weight sums over the rows.
template <typename scalar_t>
struct OuterProducts {
  const scalar_t* left;   // (row, n_left), rows left_stride apart
  const scalar_t* right;  // (row, n_right)
  int64_t n_left;
  int64_t n_right;
  int64_t left_stride;
};

template <typename scalar_t>
struct LinearKernels {
  // The weights of PANEL_OUTPUTS outputs from first_out, zero beyond the last one.
  void (*pack_panel)(
      const LinearInputs<scalar_t>& inputs,
      int64_t first_out,
      scalar_t* panel);  // (n_in, PANEL_OUTPUTS)

  // The outputs of rows [begin, end).
  void (*multiply_rows)(
      const LinearInputs<scalar_t>& inputs,
      const scalar_t* panels,  // (panel, n_in, PANEL_OUTPUTS)
      int64_t begin,
      int64_t end,
      scalar_t* outputs);  // (row, n_out)

  // sums[i] += sum_r left_ri right_r for the outputs i in [begin, end) of one chunk of rows.
  void (*add_outer_products)(
      const OuterProducts<scalar_t>& factors,
      const scalar_t* panels,  // (panel, row of the chunk, PANEL_OUTPUTS), the chunk's rows of `right`
      int64_t first_row,
      int64_t n_rows,
      int64_t begin,
      int64_t end,
      scalar_t* sums);  // (n_left, n_right)

  // The rows [first_row, first_row + n_rows) of `right` in panels, zero beyond the last column.
  void (*pack_rows)(
      const OuterProducts<scalar_t>& factors,
      int64_t first_row,
      int64_t n_rows,
      scalar_t* panels);  // (panel, n_rows, PANEL_OUTPUTS)
};

}  // namespace serfast
