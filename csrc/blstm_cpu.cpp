// blstm on the CPU: tensors to pointers, utterances to tiles, tiles to threads.

#include "blstm_cpu.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "cpu_capability.h"
#include "groups.h"
#include "result_memory.h"
#include "tensors.h"
#include "vector.h"

namespace serfast {
namespace {

// Utterances that share a pass over the recurrent matrix: enough to hide reading it, few enough for the cache.
constexpr int64_t TILE_UTTERANCES = 48;

// The utterances of each group dealt out to tiles of like total length, each sorted longest first.
class Tiles {
 public:
  Tiles(
      const Tensor& first_rows,             // (batch)
      const Tensor& lengths,                // (batch)
      const std::optional<Tensor>& groups,  // (batch)
      const Tensor& recurrent,              // (group, direction, gate * unit, unit)
      int64_t first_direction)
      : n_directions_(recurrent.size(1)), first_direction_(first_direction) {
    const int64_t n_groups = recurrent.size(0);
    std::vector<std::vector<int64_t>> members(n_groups);
    for (int64_t index = 0; index < lengths.numel(); ++index) {
      members[groups ? group_within(pointer<int64_t>(groups)[index], n_groups) : 0].push_back(index);
    }
    const int64_t n_chains = n_groups * n_directions_;
    const int64_t n_busy = (torch::stable::get_num_threads() + n_chains - 1) / n_chains;
    const int64_t* length = pointer<int64_t>(lengths);
    for (std::vector<int64_t>& order : members) {
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length[a] > length[b]; });
      const int64_t n_members = static_cast<int64_t>(order.size());
      const int64_t n_wanted = std::max(n_busy, (n_members + TILE_UTTERANCES - 1) / TILE_UTTERANCES);
      const int64_t n_tiles = std::min(n_wanted, n_members);
      for (int64_t tile = 0; tile < n_tiles; ++tile) {
        starts_.push_back(static_cast<int64_t>(lengths_.size()));
        groups_.push_back(&order - members.data());
        for (int64_t place = tile; place < n_members; place += n_tiles) {
          first_rows_.push_back(pointer<int64_t>(first_rows)[order[place]]);
          lengths_.push_back(length[order[place]]);
        }
      }
    }
    starts_.push_back(lengths.numel());
  }

  // Calls work(tile, scratch) for every tile in every direction.
  template <typename scalar_t, typename Work>
  void run(const Tensor& like, int64_t n_units, const Work& work) const {
    const int64_t n_tasks = n_directions_ * static_cast<int64_t>(groups_.size());
    int64_t n_largest = 0;
    for (size_t tile = 0; tile < groups_.size(); ++tile) {
      n_largest = std::max(n_largest, starts_[tile + 1] - starts_[tile]);
    }
    const int64_t n_scratch = kernels<BlstmKernels<scalar_t>>().n_scratch(n_units, n_largest);
    Tensor scratch = torch::stable::new_empty(like, {n_tasks, n_scratch});
    scalar_t* numbers = scratch.mutable_data_ptr<scalar_t>();
    torch::stable::parallel_for(0, n_tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t index = task / n_directions_;
        const int64_t direction = task % n_directions_;
        const int64_t start = starts_[index];
        const BlstmTile tile = {
            first_rows_.data() + start,
            lengths_.data() + start,
            starts_[index + 1] - start,
            groups_[index],
            direction,
            first_direction_ + direction == REVERSE};
        work(tile, numbers + task * n_scratch);
      }
    });
  }

 private:
  int64_t n_directions_;
  int64_t first_direction_;
  std::vector<int64_t> first_rows_;
  std::vector<int64_t> lengths_;
  std::vector<int64_t> groups_;  // (tile)
  std::vector<int64_t> starts_;  // (tile + 1)
};

// Every matrix of recurrent (group, direction, gate * unit, unit) as pack writes it, n_numbers each.
template <typename scalar_t, typename Pack>
Tensor packed(const Tensor& recurrent, int64_t n_numbers, Pack pack) {
  const int64_t n_units = recurrent.size(3);
  Tensor matrices = torch::stable::new_empty(recurrent, {recurrent.size(0) * recurrent.size(1), n_numbers});
  torch::stable::parallel_for(0, matrices.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t matrix = begin; matrix < end; ++matrix) {
      pack(
          recurrent.const_data_ptr<scalar_t>() + matrix * N_GATES * n_units * n_units, n_units,
          matrices.mutable_data_ptr<scalar_t>() + matrix * n_numbers);
    }
  });
  return matrices;
}

template <typename scalar_t>
std::tuple<Tensor, Tensor, Tensor> forward(
    const Tensor& projected, const Tensor& recurrent, const Tiles& tiles, bool saves) {
  const int64_t n_rows = projected.size(0);
  const int64_t n_directions = recurrent.size(1);
  const int64_t n_units = recurrent.size(3);
  Tensor hidden = new_result(projected, {n_rows, n_directions * n_units});
  Tensor cell = new_result(projected, {saves ? n_rows : 0, projected.size(1) / N_GATES});
  Tensor gates = new_result(projected, {saves ? n_rows : 0, projected.size(1)});
  const BlstmKernels<scalar_t>& kernel = kernels<BlstmKernels<scalar_t>>();
  const Tensor matrices = packed<scalar_t>(recurrent, projected.size(1) / n_directions * n_units, kernel.pack_forward);
  const BlstmForward<scalar_t> layer = {
      projected.const_data_ptr<scalar_t>(),
      matrices.const_data_ptr<scalar_t>(),
      hidden.mutable_data_ptr<scalar_t>(),
      saves ? cell.mutable_data_ptr<scalar_t>() : nullptr,
      saves ? gates.mutable_data_ptr<scalar_t>() : nullptr,
      n_directions,
      n_units};
  tiles.run<scalar_t>(
      projected, n_units, [&](const BlstmTile& tile, scalar_t* scratch) { kernel.forward_tile(layer, tile, scratch); });
  return {hidden, cell, gates};
}

std::tuple<Tensor, Tensor, Tensor> blstm_recurrence(
    const Tensor& projected,              // (row, direction * block * gate * lane)
    const Tensor& recurrent,              // (group, direction, gate * unit, unit)
    const Tensor& first_rows,             // (batch)
    const Tensor& lengths,                // (batch)
    const std::optional<Tensor>& groups,  // (batch)
    const std::optional<Tensor>&,         // what the gradient of `recurrent` needs on the CPU
    int64_t first_direction,
    bool,  // whether to be as exact on CUDA
    bool saves) {
  const Tiles tiles(dense(first_rows), dense(lengths), dense(groups), recurrent, first_direction);
  const Tensor rows = dense(projected);
  const Tensor matrices = dense(recurrent);
  return with_sum_type_of(projected, [&](auto zero) { return forward<decltype(zero)>(rows, matrices, tiles, saves); });
}

template <typename scalar_t>
Tensor backward(
    const Tensor& grad_hidden, const Tensor& recurrent, const Tensor& cell, const Tensor& gates, const Tiles& tiles) {
  const int64_t n_directions = recurrent.size(1);
  const int64_t n_units = recurrent.size(3);
  const int64_t n_lanes = PACK_BYTES / static_cast<int64_t>(sizeof(scalar_t));
  const int64_t n_columns = (n_units + N_GATES * n_lanes - 1) / (N_GATES * n_lanes) * (N_GATES * n_lanes);
  Tensor grad_projected = new_result(gates, gates.sizes());
  const BlstmKernels<scalar_t>& kernel = kernels<BlstmKernels<scalar_t>>();
  const Tensor matrices = packed<scalar_t>(recurrent, gates.size(1) / n_directions * n_columns, kernel.pack_backward);
  const BlstmBackward<scalar_t> layer = {
      grad_hidden.const_data_ptr<scalar_t>(),
      matrices.const_data_ptr<scalar_t>(),
      cell.const_data_ptr<scalar_t>(),
      gates.const_data_ptr<scalar_t>(),
      grad_projected.mutable_data_ptr<scalar_t>(),
      n_directions,
      n_units};
  tiles.run<scalar_t>(
      gates, n_units, [&](const BlstmTile& tile, scalar_t* scratch) { kernel.backward_tile(layer, tile, scratch); });
  return grad_projected;
}

Tensor blstm_recurrence_backward(
    const Tensor& grad_hidden,            // (row, direction * unit)
    const Tensor& recurrent,              // (group, direction, gate * unit, unit)
    const Tensor& first_rows,             // (batch)
    const Tensor& lengths,                // (batch)
    const std::optional<Tensor>& groups,  // (batch)
    const Tensor& cell,                   // (row, direction * block * lane)
    const Tensor& gates,                  // (row, direction * block * gate * lane)
    int64_t first_direction,
    bool) {  // whether to be as exact on CUDA
  const Tiles tiles(dense(first_rows), dense(lengths), dense(groups), recurrent, first_direction);
  const Tensor slopes = dense(grad_hidden);
  const Tensor matrices = dense(recurrent);
  return with_sum_type_of(
      gates, [&](auto zero) { return backward<decltype(zero)>(slopes, matrices, cell, gates, tiles); });
}

STABLE_TORCH_LIBRARY_IMPL(serfast, CPU, library) {
  library.impl("blstm_recurrence", TORCH_BOX(&blstm_recurrence));
  library.impl("blstm_recurrence_backward", TORCH_BOX(&blstm_recurrence_backward));
}

}  // namespace
}  // namespace serfast
