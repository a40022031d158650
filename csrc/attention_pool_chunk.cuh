// Chunks of utterances on CUDA: which frames a warp takes, and how its lanes read eight units at a time.

#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "attention_pool.h"
#include "half.cuh"
#include "warp.cuh"

namespace serfast {

// Warps of a block work alone, so few of them spread small batches best.
constexpr int BLOCK_WARPS = 2;
constexpr int BLOCK_THREADS = BLOCK_WARPS * WARP_THREADS;
// Blocks that must fit a multiprocessor. Unasked, the compiler makes room for more of them and spills registers.
constexpr int MULTIPROCESSOR_BLOCKS = 4;
// Frames of one warp: each lane holds the score of one. A longer utterance is split here, whatever the batch.
constexpr int WARP_FRAMES = WARP_THREADS;
// Units of one lane: what one dropout draw serves, and one or two 16-byte loads.
constexpr int OCTET = DRAW_UNITS;
constexpr int LOAD_BYTES = 16;

// The most octets of a row that a lane keeps in registers. Wider rows are shared out in slices.
constexpr int MOST_OCTETS = 2;

// Rows that a lane loads at once: enough bytes on their way to keep the memory busy, few enough for its registers.
template <typename scalar_t, int octets>
constexpr int ROWS_AT_ONCE = (sizeof(SumType<scalar_t>) == sizeof(float) ? 4 : 2) / octets;

// Where the utterances are.
struct Layout {
  const int64_t* first_rows;  // (batch)
  const int64_t* lengths;     // (batch)
  const int64_t* seeds;       // (batch), or null without dropout
  const int64_t* groups;      // (batch), or null for one group
  int64_t n_utterances;
  int64_t n_rows;
  int64_t n_groups;

  // A slot is the work of one warp, and room for what it brings. There are enough of them however the rows are shared.
  SERFAST_HOST_DEVICE int64_t n_slots() const { return (n_rows + WARP_FRAMES - 1) / WARP_FRAMES + n_utterances; }

  __device__ int64_t first_slot(int64_t index) const {
    const int64_t row = first_rows[index] < n_rows ? first_rows[index] : n_rows;
    return (row + WARP_FRAMES - 1) / WARP_FRAMES + index;
  }

  __device__ Utterance utterance(int64_t index) const {
    return utterance_within_rows(first_rows, lengths, index, n_utterances, n_rows);
  }
};

// Neighbouring rows: frames of one utterance, then rows of none, which get zeros. Either may be absent.
struct WarpChunk {
  int64_t utterance;
  int64_t group;
  int64_t first_row;
  int64_t first_frame;  // within the utterance
  int n_frames;
  int n_rows;
  uint64_t seed;
};

// The last utterance whose slots start at or before `slot`, or the first. The lanes look at 32 places at once.
__device__ inline int64_t utterance_of_slot(const Layout& layout, int64_t slot) {
  const int lane = threadIdx.x % WARP_THREADS;
  int64_t first = 0;
  int64_t n_left = layout.n_utterances;
  while (n_left > 1) {
    const int64_t stride = (n_left + WARP_THREADS - 1) / WARP_THREADS;
    const int64_t probe = lane * stride;
    const bool is_before = probe < n_left && layout.first_slot(first + probe) <= slot;
    const int n_before = __popc(__ballot_sync(WHOLE_WARP, is_before));
    const int64_t skipped = n_before > 0 ? (n_before - 1) * stride : 0;
    first += skipped;
    n_left = stride < n_left - skipped ? stride : n_left - skipped;
  }
  return first;
}

__device__ inline int rows_of_chunk(int64_t n_left) {
  const int64_t at_most = n_left < WARP_FRAMES ? n_left : WARP_FRAMES;
  return at_most > 0 ? static_cast<int>(at_most) : 0;
}

__device__ inline WarpChunk chunk_of_slot(const Layout& layout, int64_t slot) {
  const int64_t index = utterance_of_slot(layout, slot);
  const Utterance utterance = layout.utterance(index);
  const int64_t place = slot - layout.first_slot(index);
  if (place < 0) {  // before the first utterance
    const int64_t first_row = slot * WARP_FRAMES;
    return {index, 0, first_row, 0, 0, rows_of_chunk(utterance.first_row - first_row), 0};
  }
  const int64_t first_frame = place * WARP_FRAMES;
  const int64_t first_row = utterance.first_row + first_frame;
  return {
      index,
      layout.groups == nullptr ? 0 : group_within(layout.groups[index], layout.n_groups),
      first_row,
      first_frame,
      rows_of_chunk(utterance.n_frames - first_frame),
      rows_of_chunk(utterance.next_row - first_row),
      layout.seeds == nullptr ? 0 : static_cast<uint64_t>(layout.seeds[index])};
}

// Eight neighbouring numbers as they lie in memory, in pieces of 16 bytes.
template <typename scalar_t>
struct Octet {
  static constexpr int PIECE = LOAD_BYTES / static_cast<int>(sizeof(scalar_t));
  struct alignas(LOAD_BYTES) Piece {
    scalar_t number[PIECE];
  };
  Piece pieces[OCTET / PIECE];

  __device__ scalar_t& operator[](int i) { return pieces[i / PIECE].number[i % PIECE]; }
  __device__ SumType<scalar_t> operator[](int i) const { return to_sum(pieces[i / PIECE].number[i % PIECE]); }
};

// Those beyond n_left are zero. `aligned`: rows are whole pieces on their boundaries.
template <bool aligned, typename scalar_t>
__device__ Octet<scalar_t> load_octet(const scalar_t* numbers, int64_t n_left) {
  Octet<scalar_t> octet = {};
  if constexpr (aligned) {
    using Piece = typename Octet<scalar_t>::Piece;
    for (int first = 0; first < OCTET; first += Octet<scalar_t>::PIECE) {
      if (first < n_left) {
        octet.pieces[first / Octet<scalar_t>::PIECE] = *reinterpret_cast<const Piece*>(numbers + first);
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < OCTET; ++i) {
      if (i < n_left) {
        octet[i] = numbers[i];
      }
    }
  }
  return octet;
}

template <bool aligned, typename scalar_t>
__device__ void store_octet(scalar_t* numbers, int64_t n_left, const SumType<scalar_t>* sums) {
  Octet<scalar_t> octet;
#pragma unroll
  for (int i = 0; i < OCTET; ++i) {
    from_sum(sums[i], octet[i]);
  }
  if constexpr (aligned) {
    using Piece = typename Octet<scalar_t>::Piece;
    for (int first = 0; first < OCTET; first += Octet<scalar_t>::PIECE) {
      if (first < n_left) {
        *reinterpret_cast<Piece*>(numbers + first) = octet.pieces[first / Octet<scalar_t>::PIECE];
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < OCTET; ++i) {
      if (i < n_left) {
        numbers[i] = octet[i];
      }
    }
  }
}

// A bit for each unit of an octet: whether dropout keeps it. Halves of words are compared where they lie.
template <bool dropout>
__device__ uint32_t kept_octet(uint64_t seed, int64_t frame, int64_t octet, uint32_t threshold) {
  if constexpr (!dropout) {
    return 0xFFu;
  }
  const PhiloxDraw draw = philox_draw(seed, static_cast<uint32_t>(frame), static_cast<uint32_t>(octet));
  const uint32_t shifted = threshold << 16;
  uint32_t kept = 0;
#pragma unroll
  for (int i = 0; i < OCTET; ++i) {
    const uint32_t word = i % 2 == 0 ? draw.word[i / 2] << 16 : draw.word[i / 2];
    kept |= word >= shifted ? 1u << i : 0u;
  }
  return kept;
}

// The octets of a row that one lane takes, of one slice of the row.
template <int octets>
struct LanePlace {
  int64_t first_octet;

  __device__ explicit LanePlace(int64_t slice)
      : first_octet(slice * octets * WARP_THREADS + threadIdx.x % WARP_THREADS) {}

  __device__ int64_t octet(int k) const { return first_octet + k * WARP_THREADS; }
  __device__ int64_t unit(int k) const { return octet(k) * OCTET; }

  // Writes this lane's sums to where they belong in a row.
  template <bool aligned, typename sum_t>
  __device__ void store(const sum_t (*sums)[OCTET], sum_t* row, int64_t n_numbers) const {
#pragma unroll
    for (int k = 0; k < octets; ++k) {
      store_octet<aligned>(row + unit(k), n_numbers - unit(k), sums[k]);
    }
  }
};

// Some rows of a chunk on their way to the registers of a lane.
template <typename scalar_t, int octets>
struct RowsAtOnce {
  static constexpr int ROWS = ROWS_AT_ONCE<scalar_t, octets>;
  Octet<scalar_t> numbers[ROWS][octets];

  // Those of frames [first, first + ROWS) of the chunk; absent ones are zero.
  template <bool aligned>
  __device__ void load(
      const LanePlace<octets>& place, const WarpChunk& chunk, int first, const scalar_t* rows, int64_t width) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const scalar_t* row = rows + (chunk.first_row + first + r) * width;
      const int64_t n_numbers = first + r < chunk.n_frames ? width : 0;
#pragma unroll
      for (int k = 0; k < octets; ++k) {
        numbers[r][k] = load_octet<aligned>(row + place.unit(k), n_numbers - place.unit(k));
      }
    }
  }
};

// The sum over the lanes of a warp, the same in every lane.
template <typename sum_t>
__device__ sum_t warp_sum(sum_t value) {
  for (int distance = WARP_THREADS / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(WHOLE_WARP, value, distance);
  }
  return value;
}

// Zeroes the chunk's rows that belong to no utterance.
template <bool aligned, typename scalar_t>
__device__ void zero_gap(const WarpChunk& chunk, int64_t width, scalar_t* rows) {  // (row, width)
  constexpr int step = aligned ? Octet<scalar_t>::PIECE : 1;
  const int64_t end = (chunk.first_row + chunk.n_rows) * width;
  const int64_t begin = (chunk.first_row + chunk.n_frames) * width;
  for (int64_t at = begin + threadIdx.x % WARP_THREADS * step; at < end; at += WARP_THREADS * step) {
    if constexpr (aligned) {
      *reinterpret_cast<typename Octet<scalar_t>::Piece*>(rows + at) = {};
    } else {
      rows[at] = scalar_t{};
    }
  }
}

}  // namespace serfast
