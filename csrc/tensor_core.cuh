// Products of small matrices by one warp on tensor cores (sm_80 and newer; PTX ISA, "Matrix multiply-accumulate").
//
// sums (16, 8) += a (16, 16) b (16, 8). With g = lane / 4 and t = lane % 4, a lane holds of
//
//   sums          (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1)
//   a             columns 2t and 2t + 1 of row g, of row g + 8, then columns 2t + 8 and 2t + 9 of both
//   b             rows 2t and 2t + 1 of column g, then rows 2t + 8 and 2t + 9
//
// two halfs in a word, the first in its lower bits.

#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace serfast {

__device__ inline void add_half_product(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Both numbers as the nearest halfs.
__device__ inline uint32_t packed_halfs(float low, float high) {
  uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

}  // namespace serfast
