// bfloat16 of the emulated device, converted by torch's own headers.

#pragma once

#include <torch/headeronly/util/BFloat16.h>

#include <cstdint>

using __nv_bfloat16 = c10::BFloat16;

inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t bits) { return __nv_bfloat16(bits, __nv_bfloat16::from_bits()); }
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 number) { return number.x; }
inline float __bfloat162float(__nv_bfloat16 number) { return static_cast<float>(number); }
inline __nv_bfloat16 __float2bfloat16_rn(float number) { return __nv_bfloat16(number); }
