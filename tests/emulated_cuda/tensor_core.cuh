// csrc/tensor_core.cuh for the emulated device: every lane sums its four numbers from what all lanes brought.

#pragma once

#include <torch/headeronly/util/Half.h>

#include "cuda_runtime.h"

namespace serfast {

inline float half_of(uint32_t word, int place) {
  static const std::vector<float> numbers = [] {
    std::vector<float> all;
    for (unsigned bits = 0; bits < 1u << 16; ++bits) {
      all.push_back(c10::Half(static_cast<uint16_t>(bits), c10::Half::from_bits()));
    }
    return all;
  }();
  return numbers[word >> 16 * place & 0xFFFF];
}

// What a lane brings.
struct Factors {
  uint32_t a[4];
  uint32_t b[2];
};

inline void add_half_product(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const auto& brought = emulated::bring(0xFFFFFFFFu, Factors{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, "a product");
  const auto factors = [&](int lane) -> const Factors& {
    return *reinterpret_cast<const Factors*>(brought[lane].bytes);
  };
  const int lane = static_cast<int>(emulated::device().current->lane);
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4;
    const int column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const int half = k / 8;
      const int holder = k % 8 / 2;
      const float factor = half_of(factors(4 * row + holder).a[2 * half + i / 2], k % 2);
      sums[i] += factor * half_of(factors(4 * column + holder).b[half], k % 2);  // the product is exact
    }
  }
}

inline uint32_t packed_halfs(float low, float high) {
  const auto bits = [](float number) { return uint32_t(c10::Half(number).x); };
  return bits(low) | bits(high) << 16;
}

}  // namespace serfast
