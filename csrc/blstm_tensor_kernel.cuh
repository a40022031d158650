// blstm on clusters of blocks with tensor cores (sm_90 and newer; blstm.h has the equations), up to 256 units.
//
// Like the kernels of blstm_cluster_kernel.cuh a cluster runs one direction of a tile of utterances through time, and a
// block owns 32 units. But a slice of the recurrent matrix lies in registers, in the order that products read it, and
// blocks hand each other states, or slopes, through mailboxes. Only factors of products are rounded, to the 10 bits of
// mantissa that halfs and TF32 numbers have, and sums are float32. Powers of two bring into the reach of halfs each row
// of the matrix, all states and, backward, the slopes of each utterance at each step.
//
// A sum runs over all units of the layer forward, and over the units of a block, then over the blocks, backward, in one
// order: no other utterance and no tile changes it.

#pragma once

#include "approximate.cuh"
#include "blstm_cluster_kernel.cuh"
#include "half.cuh"
#include "half_factors.cuh"
#include "mailbox.cuh"

namespace serfast {

// Units of one warp: the rows of its two products are the gates (i, f) and (g, o) of each.
constexpr int WARP_UNITS = PRODUCT_ROWS / 2;
constexpr int FORWARD_WARPS = CLUSTER_UNITS / WARP_UNITS;
constexpr int FORWARD_THREADS = WARP_THREADS * FORWARD_WARPS;
// Utterances, of a product's columns, that a lane holds.
constexpr int LANE_UTTERANCES = 2;
// States lie in [-1, 1]: as halfs they are to 2^14.
constexpr float STATE_SCALE = 1 << 14;

constexpr float LOG2_E = 1.44269504f;

// With relative errors of 4e-6 at most for inputs to 60, where rounding to a half has 5e-4.
__device__ inline float quick_sigmoid(float x) { return approximate_inverse(1.0f + approximate_exp2(-LOG2_E * x)); }

// Both ways and then one of the results: lanes of a warp would take both anyway.
__device__ inline float quick_tanh(float x) {
  const float square = x * x;
  const float series = fmaf(square, fmaf(square, fmaf(square, -17.0f / 315, 2.0f / 15), -1.0f / 3), 1.0f);
  const float direct = fmaf(-2.0f, approximate_inverse(1.0f + approximate_exp2(2.0f * LOG2_E * x)), 1.0f);
  return fabsf(x) < 0.25f ? x * series : direct;
}

// The same number, or place in shared memory, in a register: left alone, the compiler may look up at every step which
// block and thread it runs in.
__device__ inline int kept(int number) {
#if defined(__CUDA_ARCH__)
  asm volatile("mov.b32 %0, %0;" : "+r"(number));
#endif
  return number;
}

__device__ inline unsigned char* kept(unsigned char* shared) {
#if defined(__CUDA_ARCH__)
  asm volatile("mov.b64 %0, %0;" : "+l"(shared));
  __builtin_assume(__isShared(shared));
#endif
  return shared;
}

// Shared memory of a block, forward.
template <int n_blocks>
struct ForwardMemory {
  static constexpr int n_padded = n_blocks * CLUSTER_UNITS;
  static constexpr int n_resident = n_blocks > 4 ? 2 : 3;  // blocks whose registers a multiprocessor must hold
  static constexpr uint32_t n_bytes = CLUSTER_TILE * n_padded * sizeof(Float16);  // of the states of a step
  static constexpr int stride = column_stride(n_padded);

  alignas(16) Float16 states[2][CLUSTER_TILE][stride];
  alignas(16) Float16 own[FORWARD_WARPS][CLUSTER_TILE][WARP_UNITS];  // what each warp is about to send
  Mailbox mailbox;
};

// Grid (tile and block of a cluster, direction).
template <int n_blocks>
__global__ void __launch_bounds__(FORWARD_THREADS, ForwardMemory<n_blocks>::n_resident)
    blstm_tensor_kernel(BlstmForward<float> layer, BlstmBatch batch) {
#if SERFAST_HAS_CLUSTERS
  using Memory = ForwardMemory<n_blocks>;
  extern __shared__ __align__(16) unsigned char shared[];
  Memory& memory = *reinterpret_cast<Memory*>(shared);
  __shared__ BlstmBlock<CLUSTER_TILE> block;
  const auto cluster = cooperative_groups::this_cluster();
  const int thread = kept(static_cast<int>(threadIdx.x));
  const int warp = thread / WARP_THREADS;
  const int lane = thread % WARP_THREADS;
  const int column_lane = lane % COLUMN_LANES;
  const int first_unit = kept(static_cast<int>(cluster.block_rank())) * CLUSTER_UNITS + warp * WARP_UNITS;
  const int64_t unit = first_unit + lane / COLUMN_LANES;
  const bool is_reverse = batch.is_reverse(blockIdx.y);
  const bool is_first = thread == 0;
  const int n_steps = static_cast<int>(block.fill(batch, blockIdx.x / n_blocks));
  if (n_steps == 0) {
    return;  // and so do all blocks of the cluster
  }
  for (int i = thread; i < CLUSTER_TILE * Memory::stride; i += FORWARD_THREADS) {
    memory.states[0][i / Memory::stride][i % Memory::stride] = Float16{0};
  }
  if (is_first) {
    memory.mailbox.open(Memory::n_bytes);
  }
  HalfFactors<Memory::n_padded / SLAB> factors[2];        // of (i, f) and (g, o)
  const float* matrix = block.matrix(layer, blockIdx.y);  // (gate, unit, before)
  const int64_t n_units = layer.n_units;
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {
    factors[pair].load(column_lane, [&](int gate, int before) {
      const bool exists = unit < n_units && before < n_units;
      return exists ? matrix[((2 * pair + gate) * n_units + unit) * n_units + before] : 0.0f;
    });
    factors[pair].inverses[0] /= STATE_SCALE;
    factors[pair].inverses[1] /= STATE_SCALE;
  }
  cluster.sync();
  // A lane sends all that its warp has of one utterance, to every fourth block.
  const int sent_utterance = lane % CLUSTER_TILE;
  constexpr int n_letters = (n_blocks + COLUMN_LANES - 1) / COLUMN_LANES;
  Memory* peers[n_letters];
#pragma unroll
  for (int i = 0; i < n_letters; ++i) {
    const int peer = lane / CLUSTER_TILE + i * COLUMN_LANES;
    peers[i] = peer < n_blocks ? cluster.map_shared_rank(&memory, peer) : nullptr;
  }
  int lengths[LANE_UTTERANCES];
  float cells[LANE_UTTERANCES] = {};
  FourNumbers<float> next[LANE_UTTERANCES];
  int64_t places[LANE_UTTERANCES];  // (row, direction, unit) as one index, of the present step
  const int64_t row_numbers = layer.n_directions * layer.n_units;
  const int64_t stride = is_reverse ? -row_numbers : row_numbers;
#pragma unroll
  for (int i = 0; i < LANE_UTTERANCES; ++i) {
    const int utterance = column_lane * LANE_UTTERANCES + i;
    lengths[i] = unit < layer.n_units ? static_cast<int>(block.lengths[utterance]) : 0;
    places[i] = (block.row(utterance, 0, is_reverse) * layer.n_directions + blockIdx.y) * layer.n_units + unit;
    next[i] = lengths[i] > 0 ? FourNumbers<float>::load(layer.projected, places[i]) : FourNumbers<float>{};
  }
  for (int step = 0; step < n_steps; ++step) {
    FourNumbers<float> gates[LANE_UTTERANCES] = {next[0], next[1]};
#pragma unroll
    for (int i = 0; i < LANE_UTTERANCES; ++i) {  // on its way through all of this step
      const bool exists = step + 1 < lengths[i];
      next[i] = exists ? FourNumbers<float>::load(layer.projected, places[i] + stride) : FourNumbers<float>{};
    }
    if (step > 0) {
      memory.mailbox.wait(step, Memory::n_bytes, is_first);
    }
    float sums[2][N_CHAINS][4] = {};
#pragma unroll
    for (int slab = 0; slab < Memory::n_padded / SLAB; ++slab) {
      const Float16* column = &memory.states[step % 2][lane / COLUMN_LANES][slab * SLAB];
      const uint4 words = reinterpret_cast<const uint4*>(column)[column_lane];
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        add_slab(sums[pair], factors[pair], slab, words);
      }
    }
    float hidden[LANE_UTTERANCES];
#pragma unroll
    for (int i = 0; i < LANE_UTTERANCES; ++i) {
#pragma unroll
      for (int gate = 0; gate < N_GATES; ++gate) {
        const int at = gate % 2 * LANE_UTTERANCES + i;
        const float sum = sums[gate / 2][0][at] + sums[gate / 2][1][at];
        gates[i].number[gate] = fmaf(sum, factors[gate / 2].inverses[gate % 2], gates[i].number[gate]);
      }
      const float input = quick_sigmoid(gates[i].number[0]);
      const float forget = quick_sigmoid(gates[i].number[1]);
      const float candidate = quick_tanh(gates[i].number[2]);
      const float output = quick_sigmoid(gates[i].number[3]);
      cells[i] = fmaf(forget, cells[i], input * candidate);
      hidden[i] = output * quick_tanh(cells[i]);
      gates[i] = {{input, forget, candidate, output}};
      from_sum(STATE_SCALE * hidden[i], memory.own[warp][column_lane * LANE_UTTERANCES + i][lane / COLUMN_LANES]);
    }
    __syncwarp();
    if (step + 1 < n_steps) {
      const uint4 words = *reinterpret_cast<const uint4*>(memory.own[warp][sent_utterance]);
      const uint32_t letter[LANE_WORDS] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int i = 0; i < n_letters; ++i) {
        if (peers[i] != nullptr) {
          Float16* theirs = &peers[i]->states[(step + 1) % 2][sent_utterance][first_unit];
          peers[i]->mailbox.send(reinterpret_cast<uint32_t*>(theirs), letter, step + 1);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < LANE_UTTERANCES; ++i) {
      if (step < lengths[i]) {
        layer.hidden[places[i]] = hidden[i];
        if (layer.gates != nullptr) {
          layer.cell[places[i]] = cells[i];
          gates[i].store(layer.gates, places[i]);
        }
      }
      places[i] += stride;
    }
  }
  cluster.sync();  // nobody leaves while others look for it
#endif
}

}  // namespace serfast
