// Chunks of utterances on CUDA: which frames a block takes, and how its threads read eight units at a time.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>

#include "attention_pool.h"

namespace serfast {

constexpr int WARP_THREADS = 32;
constexpr int BLOCK_THREADS = 128;
constexpr int BLOCK_WARPS = BLOCK_THREADS / WARP_THREADS;
// Blocks that must fit a multiprocessor. Unasked, the compiler makes room for more of them and spills registers.
template <typename scalar_t>
constexpr int MULTIPROCESSOR_BLOCKS = sizeof(SumType<scalar_t>) == sizeof(float) ? 4 : 2;
// Frames of one block. A longer utterance is split here, whatever the batch.
constexpr int BLOCK_FRAMES = 64;
// Units of one thread: what one dropout draw serves, and one or two 16-byte loads.
constexpr int OCTET = DRAW_UNITS;

// Where the utterances are.
struct Layout {
  const int64_t* first_rows;  // (batch)
  const int64_t* lengths;     // (batch)
  const int64_t* seeds;       // (batch), or null without dropout
  const int64_t* groups;      // (batch), or null for one group
  int64_t n_utterances;
  int64_t n_rows;
  int64_t n_groups;

  // A slot is room for what one chunk brings. There are enough of them however the rows are shared out.
  SERFAST_HOST_DEVICE int64_t n_slots() const { return n_rows / BLOCK_FRAMES + n_utterances; }

  __device__ int64_t first_slot(int64_t index) const {
    const int64_t row = first_rows[index] < n_rows ? first_rows[index] : n_rows;
    return row / BLOCK_FRAMES + index;
  }

  __device__ Utterance utterance(int64_t index) const {
    return utterance_within_rows(first_rows, lengths, index, n_utterances, n_rows);
  }
};

// Neighbouring frames of one utterance; none where a slot is left over.
struct BlockChunk {
  int64_t utterance;
  int64_t group;
  int64_t first_row;
  int64_t first_frame;  // within the utterance
  int n_frames;
  uint64_t seed;
};

// The last utterance whose slots start at or before `slot`. The lanes of a warp look at 32 places at once.
__device__ inline int64_t utterance_of_slot(const Layout& layout, int64_t slot) {
  const int lane = threadIdx.x % WARP_THREADS;
  int64_t first = 0;
  int64_t n_left = layout.n_utterances;
  while (n_left > 1) {
    const int64_t stride = (n_left + WARP_THREADS - 1) / WARP_THREADS;
    const int64_t probe = lane * stride;
    const bool is_before = probe < n_left && layout.first_slot(first + probe) <= slot;
    const int n_before = __popc(__ballot_sync(0xFFFFFFFFu, is_before));
    const int64_t skipped = n_before > 0 ? (n_before - 1) * stride : 0;
    first += skipped;
    n_left = stride < n_left - skipped ? stride : n_left - skipped;
  }
  return first;
}

__device__ inline BlockChunk chunk_of_slot(const Layout& layout, int64_t slot) {
  const int64_t index = utterance_of_slot(layout, slot);
  const Utterance utterance = layout.utterance(index);
  const int64_t first_frame = (slot - layout.first_slot(index)) * BLOCK_FRAMES;
  const int64_t n_left = first_frame < 0 ? 0 : utterance.n_frames - first_frame;  // a slot before the first utterance
  const int64_t n_frames = n_left < BLOCK_FRAMES ? n_left : BLOCK_FRAMES;
  return {
      index,
      layout.groups == nullptr ? 0 : group_within(layout.groups[index], layout.n_groups),
      utterance.first_row + first_frame,
      first_frame,
      n_frames > 0 ? static_cast<int>(n_frames) : 0,
      layout.seeds == nullptr ? 0 : static_cast<uint64_t>(layout.seeds[index])};
}

// Sum over the lanes of a warp, the same in every lane.
template <typename sum_t>
__device__ sum_t warp_sum(sum_t value) {
  for (int distance = WARP_THREADS / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
  }
  return value;
}

template <typename sum_t>
__device__ sum_t warp_maximum(sum_t value) {
  for (int distance = WARP_THREADS / 2; distance > 0; distance /= 2) {
    const sum_t other = __shfl_xor_sync(0xFFFFFFFFu, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// Sum over the threads of the block, the same in every thread. All of them must call it.
template <typename sum_t>
__device__ sum_t block_sum(sum_t value) {
  __shared__ sum_t sums[BLOCK_WARPS];
  value = warp_sum(value);
  if (threadIdx.x % WARP_THREADS == 0) {
    sums[threadIdx.x / WARP_THREADS] = value;
  }
  __syncthreads();
  sum_t total = 0;
  for (int warp = 0; warp < BLOCK_WARPS; ++warp) {
    total += sums[warp];
  }
  __syncthreads();
  return total;
}

__device__ inline float to_sum(float value) { return value; }
__device__ inline double to_sum(double value) { return value; }
__device__ inline float to_sum(BFloat16 value) { return __bfloat162float(__ushort_as_bfloat16(value.bits)); }
__device__ inline float to_sum(Float16 value) { return __half2float(__ushort_as_half(value.bits)); }

__device__ inline void from_sum(float value, float& stored) { stored = value; }
__device__ inline void from_sum(double value, double& stored) { stored = value; }
__device__ inline void from_sum(float value, BFloat16& stored) {
  stored.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
__device__ inline void from_sum(float value, Float16& stored) {
  stored.bits = __half_as_ushort(__float2half_rn(value));
}

template <typename scalar_t>
struct alignas(16) OctetStorage {
  scalar_t number[OCTET];
};

// Eight neighbouring numbers, those beyond n_left zero. `aligned`: rows are whole octets on 16-byte boundaries.
template <bool aligned, typename scalar_t>
__device__ void load_octet(const scalar_t* numbers, int64_t n_left, SumType<scalar_t>* octet) {
  if constexpr (aligned) {
    const OctetStorage<scalar_t> stored = *reinterpret_cast<const OctetStorage<scalar_t>*>(numbers);
    for (int i = 0; i < OCTET; ++i) {
      octet[i] = to_sum(stored.number[i]);
    }
  } else {
    for (int i = 0; i < OCTET; ++i) {
      octet[i] = i < n_left ? to_sum(numbers[i]) : SumType<scalar_t>(0);
    }
  }
}

template <bool aligned, typename scalar_t>
__device__ void store_octet(scalar_t* numbers, int64_t n_left, const SumType<scalar_t>* octet) {
  if constexpr (aligned) {
    OctetStorage<scalar_t> stored;
    for (int i = 0; i < OCTET; ++i) {
      from_sum(octet[i], stored.number[i]);
    }
    *reinterpret_cast<OctetStorage<scalar_t>*>(numbers) = stored;
  } else {
    for (int i = 0; i < OCTET && i < n_left; ++i) {
      from_sum(octet[i], numbers[i]);
    }
  }
}

// A bit for each unit of an octet: whether dropout keeps it.
template <bool dropout>
__device__ uint32_t kept_octet(uint64_t seed, int64_t frame, int64_t octet, uint32_t threshold) {
  if constexpr (!dropout) {
    return 0xFFu;
  }
  const PhiloxDraw draw = philox_draw(seed, static_cast<uint32_t>(frame), static_cast<uint32_t>(octet));
  uint32_t kept = 0;
  for (int i = 0; i < OCTET; ++i) {
    kept |= static_cast<uint32_t>((draw.word[i / 2] >> (16 * (i % 2)) & 0xFFFFu) >= threshold) << i;
  }
  return kept;
}

// How the threads of a block share the octets of one slice of a row: `width` of them side by side, `n_sets` times over.
struct ThreadPlace {
  int width;
  int n_sets;
  int set;        // this thread's; it takes frames set, set + n_sets, ... of a tile
  int64_t octet;  // this thread's
  bool works;

  __device__ ThreadPlace(int64_t n_numbers, int64_t slice, int n_frames) {
    const int64_t n_octets = (n_numbers + OCTET - 1) / OCTET;
    width = static_cast<int>(n_octets < BLOCK_THREADS ? n_octets : BLOCK_THREADS);
    n_sets = BLOCK_THREADS / width < n_frames ? BLOCK_THREADS / width : n_frames;
    set = static_cast<int>(threadIdx.x) / width;
    octet = slice * BLOCK_THREADS + static_cast<int>(threadIdx.x) % width;
    works = set < n_sets && octet < n_octets;
  }
};

// Adds up what the sets summed for each octet, in order, and writes it to sums from the slice's first unit on.
template <bool aligned, typename sum_t>
__device__ void write_sums(const ThreadPlace& place, const sum_t* own, int64_t n_numbers, sum_t* sums) {
  __shared__ sum_t shared[BLOCK_THREADS][OCTET];
  for (int i = 0; i < OCTET; ++i) {
    shared[threadIdx.x][i] = own[i];
  }
  __syncthreads();
  if (place.works && place.set == 0) {
    sum_t total[OCTET];
    for (int i = 0; i < OCTET; ++i) {
      total[i] = own[i];
      for (int set = 1; set < place.n_sets; ++set) {
        total[i] += shared[threadIdx.x + set * place.width][i];
      }
    }
    store_octet<aligned>(sums + place.octet * OCTET, n_numbers - place.octet * OCTET, total);
  }
  __syncthreads();
}

}  // namespace serfast
