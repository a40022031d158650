// Half precision of the emulated device, converted by torch's own headers.

#pragma once

#include <torch/headeronly/util/Half.h>

#include <cstdint>

using __half = c10::Half;

inline __half __ushort_as_half(uint16_t bits) { return __half(bits, __half::from_bits()); }
inline uint16_t __half_as_ushort(__half number) { return number.x; }
inline float __half2float(__half number) { return static_cast<float>(number); }
inline __half __float2half_rn(float number) { return __half(number); }
