// Runs the CPU kernels of blstm on buffers of exactly the size they need.

#include "blstm_cpu.h"

#define SERFAST_KERNEL "blstm_kernel.inl"
#include "sanitized.h"

namespace serfast {
namespace {

constexpr int64_t N_GROUPS = 2;

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

template <typename scalar_t>
void run_layer(std::vector<int64_t> lengths, int64_t n_directions, int64_t n_units, bool saves) {
  const BlstmKernels<scalar_t>& kernels = watched::BlstmTable<scalar_t>::table;
  constexpr int64_t n_lanes = watched::Pack<scalar_t>::n_lanes;
  const int64_t n_padded = round_up(n_units, n_lanes);
  const int64_t n_columns = round_up(n_units, watched::PANEL_PACKS * n_lanes);
  const int64_t n_utterances = static_cast<int64_t>(lengths.size());
  std::sort(lengths.rbegin(), lengths.rend());
  std::vector<int64_t> first_rows;
  int64_t n_rows = 0;
  for (const int64_t length : lengths) {
    first_rows.push_back(n_rows);
    n_rows += length;
  }
  const int64_t n_cells = n_rows * n_directions * n_padded;
  const int64_t n_matrices = N_GROUPS * n_directions;
  const int64_t matrix_size = N_GATES * n_units * n_units;
  const auto recurrent = zeros<scalar_t>(n_matrices * matrix_size);
  const auto packed = zeros<scalar_t>(n_matrices * N_GATES * n_padded * n_units);
  const auto packed_backward = zeros<scalar_t>(n_matrices * N_GATES * n_padded * n_columns);
  const auto projected = zeros<scalar_t>(n_cells * N_GATES);
  const auto hidden = zeros<scalar_t>(n_rows * n_directions * n_units);
  const auto cell = zeros<scalar_t>(n_cells);
  const auto gates = zeros<scalar_t>(n_cells * N_GATES);
  const auto grad_projected = zeros<scalar_t>(n_cells * N_GATES);
  for (int64_t matrix = 0; matrix < n_matrices; ++matrix) {
    const scalar_t* own = recurrent.get() + matrix * matrix_size;
    kernels.pack_forward(own, n_units, packed.get() + matrix * N_GATES * n_padded * n_units);
    kernels.pack_backward(own, n_units, packed_backward.get() + matrix * N_GATES * n_padded * n_columns);
  }
  const BlstmForward<scalar_t> layer = {
      projected.get(), packed.get(), hidden.get(), saves ? cell.get() : nullptr, saves ? gates.get() : nullptr,
      n_directions,    n_units};
  const BlstmBackward<scalar_t> slopes = {hidden.get(),         packed_backward.get(), cell.get(), gates.get(),
                                          grad_projected.get(), n_directions,          n_units};
  for (int64_t task = 0; task < 2 * n_matrices; ++task) {
    const int64_t group = task / 2 % N_GROUPS;
    const int64_t direction = task / 2 / N_GROUPS;
    const BlstmTile tile = {first_rows.data(), lengths.data(), n_utterances, group, direction, task % 2 == REVERSE};
    const auto scratch = zeros<scalar_t>(kernels.n_scratch(n_units, n_utterances));
    kernels.forward_tile(layer, tile, scratch.get());
    kernels.backward_tile(slopes, tile, scratch.get());
  }
}

template <typename scalar_t>
void run_all() {
  for (const int64_t n_units : {1, 7, 8, 9, 16, 17, 63, 65}) {
    for (const int64_t n_directions : {1, 2}) {
      run_layer<scalar_t>({1}, n_directions, n_units, true);
      run_layer<scalar_t>({5}, n_directions, n_units, false);
      run_layer<scalar_t>({2, 7, 1}, n_directions, n_units, true);
      run_layer<scalar_t>({4, 1, 6, 3, 3, 9, 2, 5, 1, 8, 2, 7, 6}, n_directions, n_units, true);
    }
  }
}

}  // namespace
}  // namespace serfast

int main() {
  serfast::run_all<float>();
  serfast::run_all<double>();
  std::puts("watched");
}
