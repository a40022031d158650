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

inline float tf32_of(uint32_t bits) {
  bits &= ~0x1FFFu;  // tensor cores look at no more
  float number;
  std::memcpy(&number, &bits, sizeof(number));
  return number;
}

// What a lane brings.
struct Factors {
  uint32_t a[4];
  uint32_t b[2];
};

// number(word, place): one of the `depth` / 8 numbers of a word.
template <int depth, typename Number>
void add_product(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Number& number) {
  const auto& brought = emulated::bring(0xFFFFFFFFu, Factors{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, "a product");
  const auto factors = [&](int lane) -> const Factors& {
    return *reinterpret_cast<const Factors*>(brought[lane].bytes);
  };
  const int lane = static_cast<int>(emulated::device().current->lane);
  constexpr int n_packed = depth / 8;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4;
    const int column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < depth; ++k) {
      const int half = k / (depth / 2);
      const int holder = k % (depth / 2) / n_packed;
      const float factor = number(factors(4 * row + holder).a[2 * half + i / 2], k % n_packed);
      sums[i] += factor * number(factors(4 * column + holder).b[half], k % n_packed);  // the product is exact
    }
  }
}

inline void add_half_product(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  add_product<16>(sums, a, b, half_of);
}

inline void add_tf32_product(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  add_product<8>(sums, a, b, [](uint32_t word, int) { return tf32_of(word); });
}

// To nearest, halves away from zero.
inline uint32_t to_tf32(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof(bits));
  return std::isfinite(number) ? (bits + 0x1000) & ~0x1FFFu : bits;
}

}  // namespace serfast
