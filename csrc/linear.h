// linear: every row times a matrix, summed in an order that neither the number of rows nor a row's place changes.
//
//   y_ro = b_o + sum_i x_ri w_oi
//
// Each sum is one chain over i in ascending order that starts at b_o, contracted into fused multiply-adds where the
// processor has them. A row therefore has the same bits alone and among any others, on any number of threads.

#pragma once

#include <cstdint>

#include "vector.h"

namespace serfast {

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
};

}  // namespace serfast
