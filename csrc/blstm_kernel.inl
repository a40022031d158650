// CPU body of blstm (blstm.h has the equations). Included once per instruction set and type by
// blstm_cpu_<type>.cpp.

#include "panel_product.inl"

template <typename scalar_t>
SERFAST_INLINE int64_t n_blocks_of(int64_t n_units) {
  return (n_units + Pack<scalar_t>::n_lanes - 1) / Pack<scalar_t>::n_lanes;
}

// Panels of columns of the backward product: PANEL_PACKS blocks of units each.
template <typename scalar_t>
SERFAST_INLINE int64_t n_column_panels_of(int64_t n_units) {
  return (n_blocks_of<scalar_t>(n_units) + PANEL_PACKS - 1) / PANEL_PACKS;
}

// Units of whole column panels: what a row of working memory holds.
template <typename scalar_t>
SERFAST_INLINE int64_t padded_units_of(int64_t n_units) {
  return n_column_panels_of<scalar_t>(n_units) * PANEL_PACKS * Pack<scalar_t>::n_lanes;
}

// 1 / (1 + exp(-x)), from the exponential that cannot overflow.
template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> sigmoid(const Pack<scalar_t>& x) {
  const Pack<scalar_t> zero = broadcast(scalar_t(0));
  const Pack<scalar_t> one = broadcast(scalar_t(1));
  const Pack<scalar_t> decay = exp_nonpositive(with_sign_of(x, broadcast(scalar_t(-1))));
  return where_less(x, zero, decay, one) / (one + decay);
}

template <typename scalar_t>
int64_t n_scratch(int64_t n_units, int64_t n_utterances) {
  return 3 * n_utterances * padded_units_of<scalar_t>(n_units);
}

// Asks for the projected numbers that an utterance needs next: those of the next block, or of the next step.
template <typename scalar_t>
SERFAST_INLINE void fetch_next(
    const BlstmForward<scalar_t>& layer, const BlstmTile& tile, int64_t utterance, int64_t step, int64_t block) {
  constexpr int n_numbers = N_GATES * Pack<scalar_t>::n_lanes;
  const int64_t n_blocks = n_blocks_of<scalar_t>(layer.n_units);
  const bool is_last = block + 1 == n_blocks;
  const int64_t row = tile.row(utterance, step + (is_last && step + 1 < tile.lengths[utterance]));
  const int64_t place = (row * layer.n_directions + tile.direction) * n_blocks + (is_last ? 0 : block + 1);
  prefetch<n_numbers>(layer.projected + place * n_numbers);
}

// One block of units of n_rows utterances at one step: gates, cell, hidden.
template <typename scalar_t, int n_rows>
SERFAST_INLINE void forward_block(
    const BlstmForward<scalar_t>& layer,
    const BlstmTile& tile,
    int64_t first_utterance,
    int64_t step,
    int64_t block,
    const scalar_t* before,  // (utterance, padded unit), hidden of the step before
    scalar_t* after,         // like before, of this step
    scalar_t* cell) {        // like before, overwritten
  constexpr int n_lanes = Pack<scalar_t>::n_lanes;
  const int64_t n_blocks = n_blocks_of<scalar_t>(layer.n_units);
  const int64_t n_padded = padded_units_of<scalar_t>(layer.n_units);
  const scalar_t* states[n_rows];
  Pack<scalar_t> gates[n_rows][N_GATES];
  int64_t rows[n_rows];  // (row, direction) as one index
  for (int i = 0; i < n_rows; ++i) {
    states[i] = before + (first_utterance + i) * n_padded;
    rows[i] = tile.row(first_utterance + i, step) * layer.n_directions + tile.direction;
    for (int gate = 0; gate < N_GATES; ++gate) {
      gates[i][gate] = load(layer.projected + ((rows[i] * n_blocks + block) * N_GATES + gate) * n_lanes);
    }
  }
  for (int i = 0; i < n_rows; ++i) {
    fetch_next(layer, tile, first_utterance + i, step, block);
    prefetch_to_write<n_lanes>(layer.hidden + rows[i] * layer.n_units + block * n_lanes);
    if (layer.gates != nullptr) {
      prefetch_to_write<N_GATES * n_lanes>(layer.gates + (rows[i] * n_blocks + block) * N_GATES * n_lanes);
      prefetch_to_write<n_lanes>(layer.cell + (rows[i] * n_blocks + block) * n_lanes);
    }
  }
  if (step > 0) {
    const int64_t matrix = tile.group * layer.n_directions + tile.direction;
    const scalar_t* panel = layer.recurrent + (matrix * n_blocks + block) * layer.n_units * N_GATES * n_lanes;
    multiply_panel<scalar_t, n_rows>(states, layer.n_units, panel, gates);
  }
  for (int i = 0; i < n_rows; ++i) {
    const int64_t state = (first_utterance + i) * n_padded + block * n_lanes;
    const Pack<scalar_t> input = sigmoid(gates[i][0]);
    const Pack<scalar_t> forget = sigmoid(gates[i][1]);
    const Pack<scalar_t> candidate = tanh(gates[i][2]);
    const Pack<scalar_t> output = sigmoid(gates[i][3]);
    const Pack<scalar_t> memory = multiply_add(forget, load(cell + state), input * candidate);
    const Pack<scalar_t> hidden = output * tanh(memory);
    store(cell + state, memory);
    store(after + state, hidden);
    store_first(layer.hidden + rows[i] * layer.n_units + block * n_lanes, hidden, layer.n_units - block * n_lanes);
    if (layer.gates != nullptr) {
      const int64_t place = rows[i] * n_blocks + block;
      scalar_t* saved = layer.gates + place * N_GATES * n_lanes;
      store(saved, input);
      store(saved + n_lanes, forget);
      store(saved + 2 * n_lanes, candidate);
      store(saved + 3 * n_lanes, output);
      store(layer.cell + place * n_lanes, memory);
    }
  }
}

// One block of units of one utterance at one step: slopes of its gates to grad_projected, and of the cell before.
template <typename scalar_t>
SERFAST_INLINE void backward_block(
    const BlstmBackward<scalar_t>& layer,
    const BlstmTile& tile,
    int64_t utterance,
    int64_t step,
    int64_t block,
    const scalar_t* grad_state,  // (padded unit), handed back by the step behind
    scalar_t* grad_cell) {       // like grad_state, overwritten
  constexpr int n_lanes = Pack<scalar_t>::n_lanes;
  const int64_t n_blocks = n_blocks_of<scalar_t>(layer.n_units);
  const int64_t row = tile.row(utterance, step) * layer.n_directions + tile.direction;
  const int64_t place = row * n_blocks + block;
  const Pack<scalar_t> one = broadcast(scalar_t(1));
  const scalar_t* gates = layer.gates + place * N_GATES * n_lanes;
  const Pack<scalar_t> input = load(gates);
  const Pack<scalar_t> forget = load(gates + n_lanes);
  const Pack<scalar_t> candidate = load(gates + 2 * n_lanes);
  const Pack<scalar_t> output = load(gates + 3 * n_lanes);
  const Pack<scalar_t> memory = tanh(load(layer.cell + place * n_lanes));
  Pack<scalar_t> memory_before = broadcast(scalar_t(0));
  if (step > 0) {
    const int64_t row_before = tile.row(utterance, step - 1) * layer.n_directions + tile.direction;
    const int64_t place_before = row_before * n_blocks + block;
    memory_before = load(layer.cell + place_before * n_lanes);
    prefetch<N_GATES * n_lanes>(layer.gates + place_before * N_GATES * n_lanes);
    prefetch<n_lanes>(layer.grad_hidden + row_before * layer.n_units + block * n_lanes);
    prefetch_to_write<N_GATES * n_lanes>(layer.grad_projected + place_before * N_GATES * n_lanes);
  }
  const Pack<scalar_t> from_above =
      load_first(layer.grad_hidden + row * layer.n_units + block * n_lanes, layer.n_units - block * n_lanes);
  const Pack<scalar_t> slope = from_above + load(grad_state + block * n_lanes);
  const Pack<scalar_t> cell_slope =
      multiply_add(slope * output, one - memory * memory, load(grad_cell + block * n_lanes));
  scalar_t* grad_gates = layer.grad_projected + place * N_GATES * n_lanes;
  store(grad_gates, cell_slope * candidate * input * (one - input));
  store(grad_gates + n_lanes, cell_slope * memory_before * forget * (one - forget));
  store(grad_gates + 2 * n_lanes, cell_slope * input * (one - candidate * candidate));
  store(grad_gates + 3 * n_lanes, slope * memory * output * (one - output));
  store(grad_cell + block * n_lanes, cell_slope * forget);
}

// grad_state of n_rows utterances from the slopes of one step's gates.
template <typename scalar_t, int n_rows>
SERFAST_INLINE void hand_back(
    const BlstmBackward<scalar_t>& layer,
    const BlstmTile& tile,
    int64_t first_utterance,
    int64_t step,
    scalar_t* grad_state) {  // (utterance, padded unit)
  constexpr int n_lanes = Pack<scalar_t>::n_lanes;
  const int64_t n_blocks = n_blocks_of<scalar_t>(layer.n_units);
  const int64_t n_panels = n_column_panels_of<scalar_t>(layer.n_units);
  const int64_t n_inner = n_blocks * N_GATES * n_lanes;
  const scalar_t* slopes[n_rows];
  for (int i = 0; i < n_rows; ++i) {
    const int64_t row = tile.row(first_utterance + i, step);
    slopes[i] = layer.grad_projected + (row * layer.n_directions + tile.direction) * n_inner;
  }
  const int64_t first_panel = (tile.group * layer.n_directions + tile.direction) * n_panels;
  for (int64_t panel = 0; panel < n_panels; ++panel) {
    Pack<scalar_t> sums[n_rows][PANEL_PACKS];
    for (int i = 0; i < n_rows; ++i) {
      for (int pack = 0; pack < PANEL_PACKS; ++pack) {
        sums[i][pack] = broadcast(scalar_t(0));
      }
    }
    const scalar_t* matrix = layer.recurrent + (first_panel + panel) * n_inner * PANEL_PACKS * n_lanes;
    multiply_panel<scalar_t, n_rows>(slopes, n_inner, matrix, sums);
    for (int i = 0; i < n_rows; ++i) {
      for (int pack = 0; pack < PANEL_PACKS; ++pack) {
        scalar_t* state = grad_state + ((first_utterance + i) * n_panels + panel) * PANEL_PACKS * n_lanes;
        store(state + pack * n_lanes, sums[i][pack]);
      }
    }
  }
}

// Calls work<n_rows>(first) for groups of n_rows of the utterances [first, n), then for the fewer that are left.
template <int n_rows, typename Work>
SERFAST_INLINE void for_each_group(int64_t first, int64_t n, const Work& work) {
  for (; first + n_rows <= n; first += n_rows) {
    work.template operator()<n_rows>(first);
  }
  if constexpr (n_rows > 1) {
    for_each_group<n_rows - 1>(first, n, work);
  }
}

template <typename scalar_t>
struct ForwardStep {
  const BlstmForward<scalar_t>& layer;
  const BlstmTile& tile;
  int64_t step;
  int64_t block;
  const scalar_t* before;
  scalar_t* after;
  scalar_t* cell;

  template <int n_rows>
  SERFAST_INLINE void operator()(int64_t first) const {
    forward_block<scalar_t, n_rows>(layer, tile, first, step, block, before, after, cell);
  }
};

template <typename scalar_t>
struct BackwardStep {
  const BlstmBackward<scalar_t>& layer;
  const BlstmTile& tile;
  int64_t step;
  scalar_t* grad_state;

  template <int n_rows>
  SERFAST_INLINE void operator()(int64_t first) const {
    hand_back<scalar_t, n_rows>(layer, tile, first, step, grad_state);
  }
};

// Utterances of the tile that have a frame at the step: the tile is sorted, so they are its first ones.
SERFAST_INLINE int64_t n_active(const BlstmTile& tile, int64_t step, int64_t n) {
  while (n > 0 && tile.lengths[n - 1] <= step) {
    --n;
  }
  return n;
}

template <typename scalar_t>
void forward_tile(const BlstmForward<scalar_t>& layer, const BlstmTile& tile, scalar_t* scratch) {
  const int64_t n_numbers = tile.n_utterances * padded_units_of<scalar_t>(layer.n_units);
  const int64_t n_blocks = n_blocks_of<scalar_t>(layer.n_units);
  __builtin_memset(scratch, 0, 3 * n_numbers * sizeof(scalar_t));
  scalar_t* cell = scratch;
  scalar_t* before = scratch + n_numbers;
  scalar_t* after = before + n_numbers;
  int64_t n = tile.n_utterances;
  for (int64_t step = 0; (n = n_active(tile, step, n)) > 0; ++step) {
    for (int64_t block = 0; block < n_blocks; ++block) {
      for_each_group<PANEL_ROWS>(0, n, ForwardStep<scalar_t>{layer, tile, step, block, before, after, cell});
    }
    scalar_t* swapped = before;
    before = after;
    after = swapped;
  }
}

template <typename scalar_t>
void backward_tile(const BlstmBackward<scalar_t>& layer, const BlstmTile& tile, scalar_t* scratch) {
  const int64_t n_padded = padded_units_of<scalar_t>(layer.n_units);
  const int64_t n_numbers = tile.n_utterances * n_padded;
  const int64_t n_blocks = n_blocks_of<scalar_t>(layer.n_units);
  __builtin_memset(scratch, 0, 2 * n_numbers * sizeof(scalar_t));
  scalar_t* grad_cell = scratch;
  scalar_t* grad_state = scratch + n_numbers;
  for (int64_t step = tile.n_utterances > 0 ? tile.lengths[0] - 1 : -1; step >= 0; --step) {
    const int64_t n = n_active(tile, step, tile.n_utterances);
    for (int64_t utterance = 0; utterance < n; ++utterance) {
      for (int64_t block = 0; block < n_blocks; ++block) {
        backward_block(
            layer, tile, utterance, step, block, grad_state + utterance * n_padded, grad_cell + utterance * n_padded);
      }
    }
    if (step > 0) {
      for_each_group<PANEL_ROWS>(0, n, BackwardStep<scalar_t>{layer, tile, step, grad_state});
    }
  }
}

template <typename scalar_t>
void pack_forward(
    const scalar_t* recurrent,  // (gate, unit, unit before)
    int64_t n_units,
    scalar_t* packed) {  // (block, unit before, gate, lane)
  constexpr int n_lanes = Pack<scalar_t>::n_lanes;
  const int64_t n_blocks = n_blocks_of<scalar_t>(n_units);
  for (int64_t block = 0; block < n_blocks; ++block) {
    for (int64_t before = 0; before < n_units; ++before) {
      for (int64_t gate = 0; gate < N_GATES; ++gate) {
        for (int64_t unit = block * n_lanes; unit < (block + 1) * n_lanes; ++unit) {
          *packed++ = unit < n_units ? recurrent[(gate * n_units + unit) * n_units + before] : scalar_t(0);
        }
      }
    }
  }
}

template <typename scalar_t>
void pack_backward(
    const scalar_t* recurrent,  // (gate, unit, unit before)
    int64_t n_units,
    scalar_t* packed) {  // (column panel, block, gate, lane, unit before)
  constexpr int n_lanes = Pack<scalar_t>::n_lanes;
  const int64_t n_blocks = n_blocks_of<scalar_t>(n_units);
  const int64_t n_panels = n_column_panels_of<scalar_t>(n_units);
  constexpr int64_t n_columns = PANEL_PACKS * n_lanes;
  for (int64_t panel = 0; panel < n_panels; ++panel) {
    for (int64_t block = 0; block < n_blocks; ++block) {
      for (int64_t gate = 0; gate < N_GATES; ++gate) {
        for (int64_t unit = block * n_lanes; unit < (block + 1) * n_lanes; ++unit) {
          const scalar_t* line = recurrent + (gate * n_units + unit) * n_units;
          for (int64_t before = panel * n_columns; before < (panel + 1) * n_columns; ++before) {
            *packed++ = unit < n_units && before < n_units ? line[before] : scalar_t(0);
          }
        }
      }
    }
  }
}

template <typename scalar_t>
struct BlstmTable {
  static constexpr BlstmKernels<scalar_t> table = {
      n_scratch<scalar_t>, forward_tile<scalar_t>, backward_tile<scalar_t>, pack_forward<scalar_t>,
      pack_backward<scalar_t>};
};
