// blstm: one LSTM layer of one or both directions over packed rows, each utterance from its own first frame to its last.
//
// With the gates i, f, g, o in torch.nn.LSTM's order, x_t W' and both biases summed beforehand into p_t, and the state
// that a direction has before its first frame zero:
//
//   a_t = p_t + h_{t-1} R'       i, f, o = sigmoid(a)       g = tanh(a)
//   c_t = f c_{t-1} + i g        h_t = o tanh(c_t)
//
// Backward, with dh_t the slope that comes from above plus what the next step hands back, and dc likewise:
//
//   do = dh_t tanh(c_t) o (1 - o)              dc_t = dh_t o (1 - tanh(c_t)^2) + dc_{t+1} f_{t+1}
//   di = dc_t g i (1 - i)    df = dc_t c_{t-1} f (1 - f)    dg = dc_t i (1 - g^2)
//   dh_{t-1} += (di, df, dg, do) R
//
// "Panel order" keeps the four gates of a unit together: numbers of a row run over (direction, block of units, gate,
// unit in the block), the last block padded with zeros. One block of units is one pack of lanes. Every utterance uses
// the recurrent matrices of its group.

#pragma once

#include <cstdint>

namespace serfast {

constexpr int N_GATES = 4;
// The direction that runs from the last frame to the first; the other one is 0.
constexpr int64_t REVERSE = 1;

// Utterances of one group that one task runs through time together, longest first, in one direction.
struct BlstmTile {
  const int64_t* first_rows;  // (utterance)
  const int64_t* lengths;     // (utterance), descending
  int64_t n_utterances;
  int64_t group;
  int64_t direction;  // its place among those of the layer
  bool is_reverse;

  // The row at which an utterance is at one step of the direction.
  int64_t row(int64_t utterance, int64_t step) const {
    const int64_t frame = is_reverse ? lengths[utterance] - 1 - step : step;
    return first_rows[utterance] + frame;
  }
};

template <typename scalar_t>
struct BlstmForward {
  const scalar_t* projected;  // (row, direction, block, gate, lane)
  const scalar_t* recurrent;  // (group, direction, block, unit, gate, lane)
  scalar_t* hidden;           // (row, direction, unit)
  scalar_t* cell;             // (row, direction, block, lane), or null
  scalar_t* gates;            // like projected, or null
  int64_t n_directions;
  int64_t n_units;
};

template <typename scalar_t>
struct BlstmBackward {
  const scalar_t* grad_hidden;  // (row, direction, unit)
  const scalar_t* recurrent;    // (group, direction, column panel, block, gate, lane, column), zero beyond the units
  const scalar_t* cell;         // (row, direction, block, lane)
  const scalar_t* gates;        // (row, direction, block, gate, lane)
  scalar_t* grad_projected;     // like gates
  int64_t n_directions;
  int64_t n_units;
};

}  // namespace serfast
