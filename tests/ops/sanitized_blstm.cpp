// Runs the CPU kernels of blstm on buffers of exactly the size they need.

#include "blstm_cpu.h"

#define SERFAST_KERNEL "blstm_kernel.inl"
#include "sanitized.h"

namespace serfast {
namespace {

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

template <typename scalar_t>
void run_layer(std::vector<int64_t> lengths, int64_t n_units, bool saves) {
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
  const int64_t n_cells = n_rows * N_DIRECTIONS * n_padded;
  const auto recurrent = zeros<scalar_t>(N_DIRECTIONS * N_GATES * n_units * n_units);
  const auto packed = zeros<scalar_t>(N_DIRECTIONS * N_GATES * n_padded * n_units);
  const auto packed_backward = zeros<scalar_t>(N_DIRECTIONS * N_GATES * n_padded * n_columns);
  const auto projected = zeros<scalar_t>(n_cells * N_GATES);
  const auto hidden = zeros<scalar_t>(n_rows * N_DIRECTIONS * n_units);
  const auto cell = zeros<scalar_t>(n_cells);
  const auto gates = zeros<scalar_t>(n_cells * N_GATES);
  const auto grad_projected = zeros<scalar_t>(n_cells * N_GATES);
  kernels.pack_forward(recurrent.get(), n_units, packed.get());
  kernels.pack_backward(recurrent.get(), n_units, packed_backward.get());
  const BlstmForward<scalar_t> layer = {
      projected.get(), packed.get(), hidden.get(), saves ? cell.get() : nullptr, saves ? gates.get() : nullptr,
      n_units};
  const BlstmBackward<scalar_t> slopes = {hidden.get(), packed_backward.get(), cell.get(),
                                          gates.get(),  grad_projected.get(),  n_units};
  for (const int64_t direction : {0, 1}) {
    const BlstmTile tile = {first_rows.data(), lengths.data(), n_utterances, direction};
    const auto scratch = zeros<scalar_t>(kernels.n_scratch(n_units, n_utterances));
    kernels.forward_tile(layer, tile, scratch.get());
    kernels.backward_tile(slopes, tile, scratch.get());
  }
}

template <typename scalar_t>
void run_all() {
  for (const int64_t n_units : {1, 7, 8, 9, 16, 17, 63, 65}) {
    run_layer<scalar_t>({1}, n_units, true);
    run_layer<scalar_t>({5}, n_units, false);
    run_layer<scalar_t>({2, 7, 1}, n_units, true);
    run_layer<scalar_t>({4, 1, 6, 3, 3, 9, 2, 5, 1, 8, 2, 7, 6}, n_units, true);
  }
}

}  // namespace
}  // namespace serfast

int main() {
  serfast::run_all<float>();
  serfast::run_all<double>();
  std::puts("watched");
}
