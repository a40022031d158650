// What the CPU kernels of every instruction set share: constants, and the headers they need. No functions: code that
// is compiled for one instruction set lives in that set's namespace (for_each_isa.inl).

#pragma once

#include <cstdint>
#include <iterator>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define SERFAST_INLINE inline __attribute__((always_inline))

namespace serfast {

// Sums run over this many bytes of lanes on every instruction set, so their order does not depend on the processor.
constexpr int PACK_BYTES = 64;
// Horizontal sums fold a pack into one of these, then the lanes of that.
constexpr int QUARTER_BYTES = 16;

// How a number is laid out, and what exp and tanh need to know of it.
template <typename scalar_t>
struct Format;

template <>
struct Format<float> {
  using Bits = int32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Bits exponent_bias = 127;
  static constexpr float round_shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  static constexpr float log2_e = 1.44269504088896341f;
  static constexpr float ln2_high = 0.693359375f;  // few bits, so that n * ln2_high is exact
  static constexpr float ln2_low = -2.12194440e-4f;
  static constexpr float smallest_exponent = -87.33654f;  // exp of less is below the smallest normal number: 0
  static constexpr float largest_tanh = 10.0f;            // tanh of more rounds to 1
  static constexpr Bits sign_bit = INT32_MIN;
  // Taylor series of (exp(r) - 1) / r, highest power first: exp(r) errs by less than a fifth of an ulp for
  // |r| <= ln2 / 2.
  static constexpr float exp_series[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f};
};

template <>
struct Format<double> {
  using Bits = int64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Bits exponent_bias = 1023;
  static constexpr double round_shift = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double log2_e = 1.44269504088896340736;
  static constexpr double ln2_high = 6.93147180369123816490e-01;
  static constexpr double ln2_low = 1.90821492927058770002e-10;
  static constexpr double smallest_exponent = -708.39641853226408;
  static constexpr double largest_tanh = 20.0;
  static constexpr Bits sign_bit = INT64_MIN;
  static constexpr double exp_series[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1.0};
};

}  // namespace serfast
