// Utterances of blstm dealt out to the blocks of a grid on CUDA: tiles of those of one group, in the batch's order.
//
// How many utterances each group has is known on the device alone. With n utterances in the groups before it, the first
// tile of a group is n / tile_utterances + group: then no two groups share a tile, and few tiles are empty.

#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "blstm.h"
#include "groups.h"
#include "warp.cuh"

namespace serfast {

struct BlstmBatch {
  const int64_t* first_rows;  // (batch)
  const int64_t* lengths;     // (batch)
  const int64_t* groups;      // (batch), or null where there is one group
  int64_t n_utterances;
  int64_t n_rows;
  int64_t n_groups;
  int64_t first_direction;

  // Tiles that are enough, however the utterances are grouped.
  int64_t n_tiles(int tile_utterances) const {
    return (n_utterances + tile_utterances - 1) / tile_utterances + n_groups - 1;
  }

  __device__ bool is_reverse(int64_t direction) const { return first_direction + direction == REVERSE; }

  __device__ int64_t group(int64_t index) const {
    return groups == nullptr ? 0 : group_within(groups[index], n_groups);
  }

  // The first tile of a group. Called by every thread of a block.
  __device__ int64_t first_tile(int64_t group, int tile_utterances) const {
    int64_t n_before = 0;
    for (int64_t first = 0; first < n_utterances; first += blockDim.x) {
      const int64_t index = first + threadIdx.x;
      n_before += __syncthreads_count(index < n_utterances && this->group(index) < group);
    }
    return n_before / tile_utterances + group;
  }
};

// One block's utterances, in shared memory: row of the first frame and frames, none beyond the group or the rows.
template <int tile_utterances>
struct BlstmBlock {
  int64_t first_rows[tile_utterances];
  int64_t lengths[tile_utterances];
  int64_t group;

  // The most frames of an utterance. Called by every thread.
  __device__ int64_t fill(const BlstmBatch& batch, int64_t tile) {
    int64_t own = 0;  // the last group that starts at this tile or before it
    int64_t own_first = 0;
    for (int64_t end = batch.n_groups; end - own > 1;) {
      const int64_t middle = (own + end) / 2;
      const int64_t first = batch.first_tile(middle, tile_utterances);
      if (first <= tile) {
        own = middle;
        own_first = first;
      } else {
        end = middle;
      }
    }
    if (threadIdx.x < WARP_THREADS) {
      find(batch, own, (tile - own_first) * tile_utterances);
    }
    __syncthreads();
    int64_t most = 0;
    for (int i = 0; i < tile_utterances; ++i) {
      most = lengths[i] > most ? lengths[i] : most;
    }
    return most;
  }

  // The group's recurrent matrix of one direction of a layer.
  template <typename Layer>
  __device__ auto matrix(const Layer& layer, int64_t direction) const {
    return layer.recurrent + (group * layer.n_directions + direction) * N_GATES * layer.n_units * layer.n_units;
  }

  // The row at which utterance i is at one step.
  __device__ int64_t row(int i, int64_t step, bool is_reverse) const {
    return first_rows[i] + (is_reverse ? lengths[i] - 1 - step : step);
  }

 private:
  // Those of a group but for its first n_skipped. Called by one warp.
  __device__ void find(const BlstmBatch& batch, int64_t own, int64_t n_skipped) {
    const unsigned lane = threadIdx.x;
    if (lane < tile_utterances) {
      lengths[lane] = 0;
      first_rows[lane] = 0;
    }
    if (lane == 0) {
      group = own;
    }
    __syncwarp();
    int64_t place = -n_skipped;  // in the tile, of the group's next utterance
    for (int64_t first = 0; first < batch.n_utterances && place < tile_utterances; first += WARP_THREADS) {
      const int64_t index = first + lane;
      const bool is_own = index < batch.n_utterances && batch.group(index) == own;
      const unsigned all = __ballot_sync(WHOLE_WARP, is_own);
      const int64_t at = place + __popc(all & ((1u << lane) - 1));
      if (is_own && at >= 0 && at < tile_utterances) {
        const int64_t n_left = batch.n_rows - batch.first_rows[index];
        const int64_t length = batch.lengths[index] < n_left ? batch.lengths[index] : n_left;
        first_rows[at] = batch.first_rows[index];
        lengths[at] = length > 0 ? length : 0;
      }
      place += __popc(all);
    }
  }
};

}  // namespace serfast
