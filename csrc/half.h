// Half-precision numbers as they lie in memory, and what their sums are kept in.

#pragma once

#include <cstdint>

namespace serfast {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

// Sums of half types, and of float, run in float.
template <typename scalar_t>
struct SumTypeOf {
  using type = float;
};

template <>
struct SumTypeOf<double> {
  using type = double;
};

template <typename scalar_t>
using SumType = typename SumTypeOf<scalar_t>::type;

}  // namespace serfast
