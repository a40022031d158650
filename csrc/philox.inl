// Philox4x32-10 in lanes: the dropout bits of 64 neighbouring units of one frame (philox.h has the scalar form).
//
// Included by kernels, inside the namespace of the instruction set. Each 32-bit word sits in a 64-bit lane, where a
// product has room; the upper halves hold rubbish that the next product ignores.

constexpr int DRAW_BLOCK = 64;  // units one call serves: eight counters, one 64-byte register of 64-bit lanes

typedef uint64_t Words __attribute__((vector_size(SERFAST_REGISTER_BYTES)));

// Product of the lower halves of the lanes.
SERFAST_INLINE Words multiply_low_halves(Words a, Words b) {
#if defined(__x86_64__) && SERFAST_REGISTER_BYTES == 64
  return (Words)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);  // g++ 12 warns inside the unmasked form
#elif defined(__x86_64__) && SERFAST_REGISTER_BYTES == 32
  return (Words)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
  return (Words)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

// bits[unit] for the DRAW_BLOCK units from first_octet * DRAW_UNITS: 16 random bits each.
SERFAST_INLINE void draw_bits(uint64_t seed, uint32_t frame, uint32_t first_octet, uint16_t* bits) {
  constexpr int n_lanes = SERFAST_REGISTER_BYTES / static_cast<int>(sizeof(uint64_t));
  constexpr int n_draws = DRAW_BLOCK / DRAW_UNITS;
  const Words zero = {};
  Words lane;
  for (int i = 0; i < n_lanes; ++i) {
    lane[i] = static_cast<uint64_t>(i);
  }
  for (int draw = 0; draw < n_draws; draw += n_lanes) {
    uint32_t key_0 = static_cast<uint32_t>(seed);
    uint32_t key_1 = static_cast<uint32_t>(seed >> 32);
    Words x0 = zero + frame;
    Words x1 = lane + (first_octet + static_cast<uint32_t>(draw));
    Words x2 = zero;
    Words x3 = zero;
    for (int round = 0; round < PHILOX_ROUNDS; ++round) {
      const Words product_0 = multiply_low_halves(x0, zero + PHILOX_MULTIPLIER_0);
      const Words product_1 = multiply_low_halves(x2, zero + PHILOX_MULTIPLIER_1);
      x0 = (product_1 >> 32) ^ x1 ^ key_0;
      x2 = (product_0 >> 32) ^ x3 ^ key_1;
      x1 = product_1;
      x3 = product_0;
      key_0 += PHILOX_KEY_STEP_0;
      key_1 += PHILOX_KEY_STEP_1;
    }
    const Words first_half = (x0 & 0xFFFFFFFFu) | (x1 << 32);
    const Words second_half = (x2 & 0xFFFFFFFFu) | (x3 << 32);
    for (int i = 0; i < n_lanes; ++i) {
      const uint64_t words[2] = {first_half[i], second_half[i]};
      __builtin_memcpy(bits + (draw + i) * DRAW_UNITS, words, sizeof(words));
    }
  }
}

// The lanes whose bits reach the threshold, the others zero.
template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> keep(Pack<scalar_t> pack, const uint16_t* bits, uint32_t threshold) {
  using Bits = typename Pack<scalar_t>::BitsRegister;
  constexpr int n_lanes = SERFAST_REGISTER_BYTES / static_cast<int>(sizeof(scalar_t));
  typedef uint16_t Narrow __attribute__((vector_size(n_lanes * sizeof(uint16_t))));
  const Bits least = typename Format<scalar_t>::Bits(threshold) - Bits{};
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    Narrow narrow;
    __builtin_memcpy(&narrow, bits + i * n_lanes, sizeof(narrow));
    const Bits wide = __builtin_convertvector(narrow, Bits);
    pack.part[i] = wide >= least ? pack.part[i] : typename Pack<scalar_t>::Register{};
  }
  return pack;
}
