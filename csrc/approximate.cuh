// Functions as the hardware has them, which are fast and not exact (PTX ISA, "Floating point instructions").

#pragma once

#include <cuda_runtime.h>

namespace serfast {

// 2^x to a relative 2^-22. Results that are too small for float32 are 0.
__device__ inline float approximate_exp2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

// 1 / x to a relative 2^-23. Of infinity it is 0.
__device__ inline float approximate_inverse(float x) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
  return inverse;
}

}  // namespace serfast
