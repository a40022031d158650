// Products of small matrices by one warp on tensor cores (sm_80 and newer; PTX ISA, "Matrix multiply-accumulate").
//
// sums (16, 8) += a (16, depth) b (depth, 8). With g = lane / 4 and t = lane % 4, a lane holds of
//
//   sums          (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1)
//   a, depth 16   columns 2t and 2t + 1 of row g, of row g + 8, then columns 2t + 8 and 2t + 9 of both
//   b, depth 16   rows 2t and 2t + 1 of column g, then rows 2t + 8 and 2t + 9
//   a, depth 8    column t of row g, of row g + 8, then column t + 4 of both
//   b, depth 8    row t of column g, then row t + 4
//
// Depth 16 is two halfs in a word, the first in its lower bits; depth 8 is one TF32 number in a word.

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

__device__ inline void add_tf32_product(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The nearest TF32 number: a float whose mantissa has 10 bits.
__device__ inline uint32_t to_tf32(float number) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(number));
  return bits;
}

}  // namespace serfast
