// blstm on the CPU: tensors to pointers, utterances to tiles, tiles to threads.

#include "blstm_cpu.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

#include "cpu_capability.h"
#include "huge_pages.h"
#include "tensors.h"
#include "vector.h"

namespace serfast {
namespace {

// Utterances that share a pass over the recurrent matrix: enough to hide reading it, few enough for the cache.
constexpr int64_t TILE_UTTERANCES = 48;

// The utterances of a batch dealt out to tiles of like total length, each sorted longest first.
class Tiles {
 public:
  Tiles(const Tensor& first_rows, const Tensor& lengths) {
    const int64_t n_utterances = lengths.numel();
    const int64_t* length = lengths.const_data_ptr<int64_t>();
    std::vector<int64_t> order(n_utterances);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length[a] > length[b]; });
    const int64_t n_threads = torch::stable::get_num_threads();
    const int64_t n_wanted =
        std::max((n_threads + N_DIRECTIONS - 1) / N_DIRECTIONS, (n_utterances + TILE_UTTERANCES - 1) / TILE_UTTERANCES);
    const int64_t n_tiles = std::min(n_wanted, n_utterances);
    for (int64_t tile = 0; tile < n_tiles; ++tile) {
      starts_.push_back(static_cast<int64_t>(lengths_.size()));
      for (int64_t place = tile; place < n_utterances; place += n_tiles) {
        first_rows_.push_back(first_rows.const_data_ptr<int64_t>()[order[place]]);
        lengths_.push_back(length[order[place]]);
      }
    }
    starts_.push_back(n_utterances);
  }

  // Calls work(tile, scratch) for every tile in both directions.
  template <typename scalar_t, typename Work>
  void run(const Tensor& like, int64_t n_units, const Work& work) const {
    const int64_t n_tasks = N_DIRECTIONS * (static_cast<int64_t>(starts_.size()) - 1);
    int64_t n_largest = 0;
    for (size_t tile = 0; tile + 1 < starts_.size(); ++tile) {
      n_largest = std::max(n_largest, starts_[tile + 1] - starts_[tile]);
    }
    const int64_t n_scratch = kernels<BlstmKernels<scalar_t>>().n_scratch(n_units, n_largest);
    Tensor scratch = torch::stable::new_empty(like, {n_tasks, n_scratch});
    scalar_t* numbers = scratch.mutable_data_ptr<scalar_t>();
    torch::stable::parallel_for(0, n_tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t start = starts_[task / N_DIRECTIONS];
        const BlstmTile tile = {
            first_rows_.data() + start, lengths_.data() + start, starts_[task / N_DIRECTIONS + 1] - start,
            task % N_DIRECTIONS};
        work(tile, numbers + task * n_scratch);
      }
    });
  }

 private:
  std::vector<int64_t> first_rows_;
  std::vector<int64_t> lengths_;
  std::vector<int64_t> starts_;  // (tile + 1)
};

template <typename scalar_t>
std::tuple<Tensor, Tensor, Tensor> forward(
    const Tensor& projected, const Tensor& recurrent, const Tiles& tiles, bool saves) {
  const int64_t n_rows = projected.size(0);
  const int64_t n_units = recurrent.size(2);
  Tensor hidden = torch::stable::new_empty(projected, {n_rows, N_DIRECTIONS * n_units});
  Tensor cell = torch::stable::new_empty(projected, {saves ? n_rows : 0, projected.size(1) / N_GATES});
  Tensor gates = torch::stable::new_empty(projected, {saves ? n_rows : 0, projected.size(1)});
  for (const Tensor& result : {hidden, cell, gates}) {
    use_huge_pages(result);
  }
  Tensor packed = torch::stable::new_empty(projected, {projected.size(1), n_units});
  kernels<BlstmKernels<scalar_t>>().pack_forward(
      recurrent.const_data_ptr<scalar_t>(), n_units, packed.mutable_data_ptr<scalar_t>());
  const BlstmForward<scalar_t> layer = {
      projected.const_data_ptr<scalar_t>(),
      packed.const_data_ptr<scalar_t>(),
      hidden.mutable_data_ptr<scalar_t>(),
      saves ? cell.mutable_data_ptr<scalar_t>() : nullptr,
      saves ? gates.mutable_data_ptr<scalar_t>() : nullptr,
      n_units};
  tiles.run<scalar_t>(projected, n_units, [&](const BlstmTile& tile, scalar_t* scratch) {
    kernels<BlstmKernels<scalar_t>>().forward_tile(layer, tile, scratch);
  });
  return {hidden, cell, gates};
}

std::tuple<Tensor, Tensor, Tensor> blstm_recurrence(
    const Tensor& projected,   // (row, direction * block * gate * lane)
    const Tensor& recurrent,   // (direction, gate * unit, unit)
    const Tensor& first_rows,  // (batch)
    const Tensor& lengths,     // (batch)
    bool saves) {
  const Tiles tiles(dense(first_rows), dense(lengths));
  const Tensor rows = dense(projected);
  const Tensor matrix = dense(recurrent);
  return with_sum_type_of(projected, [&](auto zero) { return forward<decltype(zero)>(rows, matrix, tiles, saves); });
}

template <typename scalar_t>
Tensor backward(
    const Tensor& grad_hidden, const Tensor& recurrent, const Tensor& cell, const Tensor& gates, const Tiles& tiles) {
  const int64_t n_units = recurrent.size(2);
  const int64_t n_lanes = PACK_BYTES / static_cast<int64_t>(sizeof(scalar_t));
  const int64_t n_columns = (n_units + N_GATES * n_lanes - 1) / (N_GATES * n_lanes) * (N_GATES * n_lanes);
  Tensor grad_projected = torch::stable::new_empty(gates, gates.sizes());
  use_huge_pages(grad_projected);
  Tensor packed = torch::stable::new_empty(gates, {gates.size(1), n_columns});
  kernels<BlstmKernels<scalar_t>>().pack_backward(
      recurrent.const_data_ptr<scalar_t>(), n_units, packed.mutable_data_ptr<scalar_t>());
  const BlstmBackward<scalar_t> layer = {grad_hidden.const_data_ptr<scalar_t>(),
                                         packed.const_data_ptr<scalar_t>(),
                                         cell.const_data_ptr<scalar_t>(),
                                         gates.const_data_ptr<scalar_t>(),
                                         grad_projected.mutable_data_ptr<scalar_t>(),
                                         n_units};
  tiles.run<scalar_t>(gates, n_units, [&](const BlstmTile& tile, scalar_t* scratch) {
    kernels<BlstmKernels<scalar_t>>().backward_tile(layer, tile, scratch);
  });
  return grad_projected;
}

Tensor blstm_recurrence_backward(
    const Tensor& grad_hidden,  // (row, direction * unit)
    const Tensor& recurrent,    // (direction, gate * unit, unit)
    const Tensor& first_rows,   // (batch)
    const Tensor& lengths,      // (batch)
    const Tensor& cell,         // (row, direction * block * lane)
    const Tensor& gates) {      // (row, direction * block * gate * lane)
  const Tiles tiles(dense(first_rows), dense(lengths));
  const Tensor slopes = dense(grad_hidden);
  const Tensor matrix = dense(recurrent);
  return with_sum_type_of(
      gates, [&](auto zero) { return backward<decltype(zero)>(slopes, matrix, cell, gates, tiles); });
}

STABLE_TORCH_LIBRARY_IMPL(serfast, CPU, library) {
  library.impl("blstm_recurrence", TORCH_BOX(&blstm_recurrence));
  library.impl("blstm_recurrence_backward", TORCH_BOX(&blstm_recurrence_backward));
}

}  // namespace
}  // namespace serfast
