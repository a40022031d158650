// Factors of products on tensor cores that are halfs of float32 numbers: brought near to the largest half by powers of
// two, so that no half overflows, and next to nothing is lost but bits of the mantissa.
//
// What a product sums over lies in columns of memory. Which column number is which row of b in tensor_core.cuh is the
// loads' choice: of every 32 numbers a lane has eight that lie together, four for each of two products. These do not add
// to each other's sums, so that they run at once.

#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "tensor_core.cuh"
#include "warp.cuh"

namespace serfast {

constexpr int PRODUCT_ROWS = 16;
constexpr int N_CHAINS = 2;
// Words of a column that a lane loads at once, and the lanes that share one.
constexpr int LANE_WORDS = 4;
constexpr int COLUMN_LANES = 4;
// Halfs of a column that all lanes load at once.
constexpr int SLAB = 2 * LANE_WORDS * COLUMN_LANES;
// Halfs reach from 2^-24 to 2^16: the largest number of a row is brought to between 2^14 and 2^15.
constexpr int HALF_EXPONENT = 15;

// Columns of n numbers lie this many halfs apart: an odd number of slabs, so that neighbours are in other banks.
constexpr int column_stride(int n) { return n | SLAB; }

// A power of two for numbers whose absolute values are at most `largest`, as bits: it brings that to between 2^14 and
// 2^15, and if it is below 2^-112, as near to it as a float and its inverse permit.
class ColumnScale {
 public:
  __device__ explicit ColumnScale(uint32_t largest)
      : exponent_(largest >> MANTISSA_BITS > HALF_EXPONENT ? largest >> MANTISSA_BITS : HALF_EXPONENT) {}

  __device__ float scale() const { return power(2 * BIAS + HALF_EXPONENT - 1 - exponent_); }
  __device__ float inverse() const { return power(exponent_ - (HALF_EXPONENT - 1)); }

 private:
  static constexpr uint32_t MANTISSA_BITS = 23;
  static constexpr uint32_t BIAS = 127;

  __device__ static float power(uint32_t exponent) { return __uint_as_float(exponent << MANTISSA_BITS); }

  uint32_t exponent_;  // of the largest number, with the bias
};

// Two rows of a lane, 8 apart, over n_slabs slabs of a column.
template <int n_slabs>
struct HalfFactors {
  uint32_t words[n_slabs][N_CHAINS][LANE_WORDS];
  float inverses[2];  // of what the rows were multiplied with

  // number(row, at): row 0 or 1, at a place of the column. Called by a whole warp.
  template <typename Number>
  __device__ void load(int column_lane, const Number& number) {
    int exponents[2];
    for (int row = 0; row < 2; ++row) {
      float largest = 0.0f;
      for (int slab = 0; slab < n_slabs; ++slab) {
        for (int i = 0; i < 2 * LANE_WORDS; ++i) {
          largest = fmaxf(largest, fabsf(number(row, slab * SLAB + column_lane * 2 * LANE_WORDS + i)));
        }
      }
      for (int distance = 1; distance < COLUMN_LANES; distance *= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(WHOLE_WARP, largest, distance));
      }
      int exponent = 0;
      if (isfinite(largest)) {
        frexpf(largest, &exponent);
      }
      exponents[row] = HALF_EXPONENT - exponent;
      inverses[row] = ldexpf(1.0f, -exponents[row]);
    }
#pragma unroll
    for (int slab = 0; slab < n_slabs; ++slab) {
#pragma unroll
      for (int word = 0; word < N_CHAINS * LANE_WORDS; ++word) {
        const int chain = word / LANE_WORDS;
        const int row = word % 2;
        const int at = slab * SLAB + column_lane * 2 * LANE_WORDS + chain * LANE_WORDS + word % LANE_WORDS / 2 * 2;
        words[slab][chain][word % LANE_WORDS] =
            packed_halfs(ldexpf(number(row, at), exponents[row]), ldexpf(number(row, at + 1), exponents[row]));
      }
    }
  }
};

// sums (chain) += factors of a slab times the words that a lane has of its column there.
template <int n_slabs>
__device__ void add_slab(
    float (&sums)[N_CHAINS][4], const HalfFactors<n_slabs>& factors, int slab, const uint4& words) {
  add_half_product(sums[0], factors.words[slab][0], {words.x, words.y});
  add_half_product(sums[1], factors.words[slab][1], {words.z, words.w});
}

}  // namespace serfast
