// Philox4x32-10, the counter-based random numbers of dropout, one draw at a time.
//
// Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).

#pragma once

#include <cstdint>

#include "host_device.h"

namespace serfast {

constexpr int PHILOX_ROUNDS = 10;
constexpr uint32_t PHILOX_MULTIPLIER_0 = 0xD2511F53u;
constexpr uint32_t PHILOX_MULTIPLIER_1 = 0xCD9E8D57u;
constexpr uint32_t PHILOX_KEY_STEP_0 = 0x9E3779B9u;
constexpr uint32_t PHILOX_KEY_STEP_1 = 0xBB67AE85u;
constexpr int DRAW_UNITS = 8;  // units one draw serves: 4 words of two 16-bit halves

struct PhiloxDraw {
  uint32_t word[4];
};

// The four words of the counter (frame, octet, 0, 0) under the key (low, high half of the seed).
SERFAST_HOST_DEVICE PhiloxDraw philox_draw(uint64_t seed, uint32_t frame, uint32_t octet) {
  uint32_t key_0 = static_cast<uint32_t>(seed);
  uint32_t key_1 = static_cast<uint32_t>(seed >> 32);
  uint32_t x0 = frame, x1 = octet, x2 = 0, x3 = 0;
  for (int round = 0; round < PHILOX_ROUNDS; ++round) {
    const uint64_t product_0 = static_cast<uint64_t>(PHILOX_MULTIPLIER_0) * x0;
    const uint64_t product_1 = static_cast<uint64_t>(PHILOX_MULTIPLIER_1) * x2;
    x0 = static_cast<uint32_t>(product_1 >> 32) ^ x1 ^ key_0;
    x2 = static_cast<uint32_t>(product_0 >> 32) ^ x3 ^ key_1;
    x1 = static_cast<uint32_t>(product_1);
    x3 = static_cast<uint32_t>(product_0);
    key_0 += PHILOX_KEY_STEP_0;
    key_1 += PHILOX_KEY_STEP_1;
  }
  return {{x0, x1, x2, x3}};
}

// Whether dropout keeps one element: its 16 bits reach the threshold, round(65536 p).
SERFAST_HOST_DEVICE bool is_kept(uint64_t seed, int64_t frame, int64_t unit, uint32_t threshold) {
  const PhiloxDraw draw = philox_draw(seed, static_cast<uint32_t>(frame), static_cast<uint32_t>(unit / DRAW_UNITS));
  const int lane = static_cast<int>(unit % DRAW_UNITS);
  const uint32_t first_half = lane < 2 ? draw.word[0] : draw.word[1];
  const uint32_t second_half = lane < 6 ? draw.word[2] : draw.word[3];
  const uint32_t word = lane < 4 ? first_half : second_half;
  const uint32_t bits = (word >> (16 * (lane % 2))) & 0xFFFFu;
  return bits >= threshold;
}

}  // namespace serfast
