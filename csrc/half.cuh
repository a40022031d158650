// Half types on CUDA: to and from the type that sums are in.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "half.h"

namespace serfast {

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

}  // namespace serfast
