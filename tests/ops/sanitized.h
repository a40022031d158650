// What the sanitized programs share: SERFAST_KERNEL, a file name, compiled for one instruction set, and exact buffers.
//
// Built by test_sanitizers.py with SERFAST_REGISTER_BYTES 16, 32 or 64. Include it with the headers of the kernel
// already included.

#pragma once

#include <algorithm>
#include <cstdio>
#include <memory>
#include <vector>

#include "vector.h"

#if SERFAST_REGISTER_BYTES == 64
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#elif SERFAST_REGISTER_BYTES == 32
#pragma GCC target("avx2,fma,f16c")
#endif

namespace serfast::watched {
#include "vector.inl"

#include SERFAST_KERNEL
}  // namespace serfast::watched

namespace serfast {

// Zeros, with nothing behind them that may be touched.
template <typename number_t>
std::unique_ptr<number_t[]> zeros(int64_t n) {
  return std::make_unique<number_t[]>(n);
}

}  // namespace serfast
