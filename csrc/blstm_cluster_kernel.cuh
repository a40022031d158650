// blstm on clusters of blocks (sm_90 and newer; blstm.h has the equations), in float32, up to 256 units.
//
// A cluster runs one direction of a tile of utterances through time. Each of its blocks owns 32 units: their slice of
// the recurrent matrix stays in its shared memory, and at every step the blocks hand each other what all of them need.
// A lane of a warp is a unit. For the product a warp is a part of the inner numbers, all utterances at once; for what
// follows it is an utterance, whose cell and slopes stay in registers. Sums run over the inner numbers of a part, then
// over the parts, in order: no other utterance and no tile changes them.

#pragma once

#include <cooperative_groups.h>

#include "blstm_kernel.cuh"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define SERFAST_HAS_CLUSTERS 1
#else
#define SERFAST_HAS_CLUSTERS 0
#endif

namespace serfast {

// Units of a block.
constexpr int CLUSTER_UNITS = 32;
constexpr int MOST_CLUSTER_BLOCKS = 8;
// Utterances of a cluster, and parts of the inner numbers: both are the warps of a block.
constexpr int CLUSTER_TILE = BLSTM_THREADS / CLUSTER_UNITS;
// Blocks that a layer of n_units needs.
inline int cluster_blocks(int64_t n_units) {
  int n_blocks = 1;
  while (n_blocks * CLUSTER_UNITS < n_units) {
    n_blocks *= 2;
  }
  return n_blocks;
}

// Shared memory of a block, forward: matrix (before, own unit, gate), two states (utterance, unit), parts (part,
// utterance, own unit, gate).
inline int64_t cluster_bytes(int n_blocks) {
  const int64_t n_padded = n_blocks * CLUSTER_UNITS;
  const int64_t n_parts = CLUSTER_TILE * CLUSTER_TILE * CLUSTER_UNITS * N_GATES;
  return (n_padded * CLUSTER_UNITS * N_GATES + 2 * CLUSTER_TILE * n_padded + n_parts) * sizeof(float);
}

// Backward: matrix (unit, own unit before, gate), two sets of slopes (utterance, unit, gate), parts (part, utterance,
// own unit).
inline int64_t cluster_backward_bytes(int n_blocks) {
  const int64_t n_padded = n_blocks * CLUSTER_UNITS;
  const int64_t n_parts = CLUSTER_TILE * CLUSTER_TILE * CLUSTER_UNITS;
  return (n_padded * CLUSTER_UNITS * N_GATES + 2 * CLUSTER_TILE * n_padded * N_GATES + n_parts) * sizeof(float);
}

// What a thread is in its cluster.
struct ClusterPlace {
  int n_blocks;
  int n_padded;  // units of all blocks, those beyond the layer's included
  int lane;
  int warp;
  int unit;
  int first_unit;

  __device__ ClusterPlace(int blocks, int rank)
      : n_blocks(blocks),
        n_padded(blocks * CLUSTER_UNITS),
        lane(static_cast<int>(threadIdx.x) % CLUSTER_UNITS),
        warp(static_cast<int>(threadIdx.x) / CLUSTER_UNITS),
        unit(rank * CLUSTER_UNITS + lane),
        first_unit(rank * CLUSTER_UNITS) {}

  // Units of the layer that this thread's part of a product sums over.
  __device__ int n_part() const { return n_padded / CLUSTER_TILE; }
};

// The block's slice of a matrix (gate, unit, before), zero beyond the units: (before, own unit, gate), or backward
// (unit, own unit before, gate).
template <bool is_backward>
__device__ void load_slice(
    const float* __restrict__ matrix, int64_t n_units, const ClusterPlace& place, FourNumbers<float>* slice) {
  const int n_numbers = N_GATES * CLUSTER_UNITS * place.n_padded;
  for (int i = threadIdx.x; i < n_numbers; i += BLSTM_THREADS) {
    // Neighbouring threads read neighbouring numbers of a row.
    const int width = is_backward ? CLUSTER_UNITS : place.n_padded;
    const int height = is_backward ? place.n_padded : CLUSTER_UNITS;
    const int gate = i / (width * height);
    const int unit = (is_backward ? 0 : place.first_unit) + i / width % height;
    const int before = (is_backward ? place.first_unit : 0) + i % width;
    const int own = (is_backward ? before : unit) - place.first_unit;
    const int other = is_backward ? unit : before;
    const bool exists = unit < n_units && before < n_units;
    slice[other * CLUSTER_UNITS + own].number[gate] =
        exists ? matrix[(gate * n_units + unit) * n_units + before] : 0.0f;
  }
}

// Grid (tile and block of a cluster, direction).
__global__ void __launch_bounds__(BLSTM_THREADS) blstm_cluster_kernel(BlstmForward<float> layer, BlstmBatch batch) {
#if SERFAST_HAS_CLUSTERS
  extern __shared__ __align__(16) unsigned char shared[];
  const auto cluster = cooperative_groups::this_cluster();
  const int n_blocks = static_cast<int>(cluster.num_blocks());
  const ClusterPlace place(n_blocks, static_cast<int>(cluster.block_rank()));
  const bool is_reverse = batch.is_reverse(blockIdx.y);
  const int n_state = CLUSTER_TILE * place.n_padded;
  FourNumbers<float>* slice = reinterpret_cast<FourNumbers<float>*>(shared);
  FourNumbers<float>* parts = slice + place.n_padded * CLUSTER_UNITS;
  float* states = reinterpret_cast<float*>(parts + CLUSTER_TILE * CLUSTER_TILE * CLUSTER_UNITS);
  __shared__ BlstmBlock<CLUSTER_TILE> block;
  const int64_t n_steps = block.fill(batch, blockIdx.x / n_blocks);
  if (n_steps == 0) {
    return;  // and so do all blocks of the cluster
  }
  load_slice<false>(block.matrix(layer, blockIdx.y), layer.n_units, place, slice);
  for (int i = threadIdx.x; i < n_state; i += BLSTM_THREADS) {
    states[i] = 0.0f;
  }
  cluster.sync();
  float cell = 0.0f;
  for (int64_t step = 0; step < n_steps; ++step) {
    const bool is_frame = step < block.lengths[place.warp];
    const bool exists = is_frame && place.unit < layer.n_units;
    const int64_t row = block.row(place.warp, step, is_reverse);
    const int64_t at = (row * layer.n_directions + blockIdx.y) * layer.n_units + place.unit;
    FourNumbers<float> gates = {};  // on its way while the product runs
    if (exists) {
      gates = FourNumbers<float>::load(layer.projected, at);
    }
    const float* state = states + step % 2 * n_state + place.warp * place.n_part();
    const FourNumbers<float>* matrix = slice + place.warp * place.n_part() * CLUSTER_UNITS + place.lane;
    FourNumbers<float> sums[CLUSTER_TILE] = {};
    for (int before = 0; before < place.n_part(); before += N_GATES) {
      FourNumbers<float> factors[N_GATES];
      for (int k = 0; k < N_GATES; ++k) {
        factors[k] = matrix[(before + k) * CLUSTER_UNITS];
      }
      for (int i = 0; i < CLUSTER_TILE; ++i) {
        const auto hidden = FourNumbers<float>::load(state + i * place.n_padded + before, 0);
        for (int k = 0; k < N_GATES; ++k) {
          for (int gate = 0; gate < N_GATES; ++gate) {
            sums[i].number[gate] = fma(hidden.number[k], factors[k].number[gate], sums[i].number[gate]);
          }
        }
      }
    }
    for (int i = 0; i < CLUSTER_TILE; ++i) {
      parts[(place.warp * CLUSTER_TILE + i) * CLUSTER_UNITS + place.lane] = sums[i];
    }
    __syncthreads();
    if (is_frame) {
      for (int part = 0; part < CLUSTER_TILE; ++part) {
        const FourNumbers<float> own = parts[(part * CLUSTER_TILE + place.warp) * CLUSTER_UNITS + place.lane];
        for (int gate = 0; gate < N_GATES; ++gate) {
          gates.number[gate] += own.number[gate];
        }
      }
      const float input = sigmoid(gates.number[0]);
      const float forget = sigmoid(gates.number[1]);
      const float candidate = tanh(gates.number[2]);
      const float output = sigmoid(gates.number[3]);
      cell = forget * cell + input * candidate;
      const float hidden = output * tanh(cell);
      for (int peer = 0; peer < n_blocks; ++peer) {
        float* theirs = cluster.map_shared_rank(states, peer) + (step + 1) % 2 * n_state;
        theirs[place.warp * place.n_padded + place.unit] = hidden;
      }
      if (exists) {
        layer.hidden[at] = hidden;
        if (layer.gates != nullptr) {
          layer.cell[at] = cell;
          FourNumbers<float>{{input, forget, candidate, output}}.store(layer.gates, at);
        }
      }
    }
    cluster.sync();  // nobody leaves, or writes over a state, while others read it
  }
#endif
}

// Grid (tile and block of a cluster, direction).
__global__ void __launch_bounds__(BLSTM_THREADS)
    blstm_cluster_backward_kernel(BlstmBackward<float> layer, BlstmBatch batch) {
#if SERFAST_HAS_CLUSTERS
  extern __shared__ __align__(16) unsigned char shared[];
  const auto cluster = cooperative_groups::this_cluster();
  const int n_blocks = static_cast<int>(cluster.num_blocks());
  const ClusterPlace place(n_blocks, static_cast<int>(cluster.block_rank()));
  const bool is_reverse = batch.is_reverse(blockIdx.y);
  const int n_slopes = CLUSTER_TILE * place.n_padded;
  FourNumbers<float>* slice = reinterpret_cast<FourNumbers<float>*>(shared);
  FourNumbers<float>* slopes = slice + place.n_padded * CLUSTER_UNITS;
  float* parts = reinterpret_cast<float*>(slopes + 2 * n_slopes);
  __shared__ BlstmBlock<CLUSTER_TILE> block;
  const int64_t n_steps = block.fill(batch, blockIdx.x / n_blocks);
  if (n_steps == 0) {
    return;  // and so do all blocks of the cluster
  }
  load_slice<true>(block.matrix(layer, blockIdx.y), layer.n_units, place, slice);
  cluster.sync();
  float grad_state = 0.0f;
  float grad_cell = 0.0f;
  for (int64_t step = n_steps - 1; step >= 0; --step) {
    FourNumbers<float> own = {};
    if (step < block.lengths[place.warp] && place.unit < layer.n_units) {
      const auto index = [&](int64_t row) {
        return (row * layer.n_directions + blockIdx.y) * layer.n_units + place.unit;
      };
      const int64_t at_before = step > 0 ? index(block.row(place.warp, step - 1, is_reverse)) : -1;
      const int64_t at = index(block.row(place.warp, step, is_reverse));
      own = blstm_slopes(layer, at, at_before, step + 1 < block.lengths[place.warp] ? grad_state : 0.0f, grad_cell);
    }
    if (step == 0) {
      break;
    }
    for (int peer = 0; peer < n_blocks; ++peer) {
      FourNumbers<float>* theirs = cluster.map_shared_rank(slopes, peer) + step % 2 * n_slopes;
      theirs[place.warp * place.n_padded + place.unit] = own;
    }
    cluster.sync();  // also: nobody writes over slopes while others read them
    const FourNumbers<float>* slope = slopes + step % 2 * n_slopes + place.warp * place.n_part();
    const FourNumbers<float>* matrix = slice + place.warp * place.n_part() * CLUSTER_UNITS + place.lane;
    float sums[CLUSTER_TILE] = {};
    for (int unit = 0; unit < place.n_part(); ++unit) {
      const FourNumbers<float> factors = matrix[unit * CLUSTER_UNITS];
      for (int i = 0; i < CLUSTER_TILE; ++i) {
        const FourNumbers<float> theirs = slope[i * place.n_padded + unit];
        for (int gate = 0; gate < N_GATES; ++gate) {
          sums[i] = fma(theirs.number[gate], factors.number[gate], sums[i]);
        }
      }
    }
    for (int i = 0; i < CLUSTER_TILE; ++i) {
      parts[(place.warp * CLUSTER_TILE + i) * CLUSTER_UNITS + place.lane] = sums[i];
    }
    __syncthreads();
    grad_state = 0.0f;
    for (int part = 0; part < CLUSTER_TILE; ++part) {
      grad_state += parts[(part * CLUSTER_TILE + place.warp) * CLUSTER_UNITS + place.lane];
    }
  }
#endif
}

}  // namespace serfast
