// csrc/approximate.cuh for the emulated device: as far from exact as the PTX ISA permits, now above and now below.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "cuda_runtime.h"

namespace serfast {

inline float flushed(float number) {
  return std::fabs(number) < std::numeric_limits<float>::min() ? std::copysign(0.0f, number) : number;
}

// As far off as a relative error of 2^-n_bits.
inline float disturbed(float number, int n_bits) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof(bits));
  return flushed(number + std::ldexp(bits % 2 == 0 ? number : -number, -n_bits));
}

inline float approximate_exp2(float x) { return disturbed(std::exp2(flushed(x)), 22); }
inline float approximate_inverse(float x) { return disturbed(1 / flushed(x), 23); }

}  // namespace serfast
