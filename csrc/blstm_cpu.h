// The table of blstm kernels that each instruction set fills.

#pragma once

#include "blstm.h"

namespace serfast {

template <typename scalar_t>
struct BlstmKernels {
  // Numbers of working memory that one task needs.
  int64_t (*n_scratch)(int64_t n_units, int64_t n_utterances);

  void (*forward_tile)(const BlstmForward<scalar_t>& layer, const BlstmTile& tile, scalar_t* scratch);

  void (*backward_tile)(const BlstmBackward<scalar_t>& layer, const BlstmTile& tile, scalar_t* scratch);

  // The recurrent matrix of one group and direction (gate, unit, unit) as forward_tile and as backward_tile read it.
  void (*pack_forward)(const scalar_t* recurrent, int64_t n_units, scalar_t* packed);
  void (*pack_backward)(const scalar_t* recurrent, int64_t n_units, scalar_t* packed);
};

}  // namespace serfast
