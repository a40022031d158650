// Philox4x32-10 in lanes: which elements dropout keeps, a bit each (philox.h has the scalar form).
//
// Included by kernels, inside the namespace of the instruction set. Each 32-bit word sits in a 64-bit lane, where a
// product has room; the upper halves hold rubbish that the next product ignores.
//
// With the counter (frame, octet, 0, 0) the first rounds hardly mix: of their six products, five depend on the frame
// alone or on the octet alone, and are computed once per frame or once per tile. Fifteen are left for each draw. With
// AVX-512, g++ 12 makes 68 instructions of a word of 64 bits, four of them prefetches: for the 256 bytes of float that
// it masks.

constexpr int DRAW_BLOCK = 64;  // units whose bits fill one word
constexpr int SHARED_ROUNDS = 3;

typedef uint64_t Words __attribute__((vector_size(SERFAST_REGISTER_BYTES)));
constexpr int WORD_LANES = SERFAST_REGISTER_BYTES / static_cast<int>(sizeof(uint64_t));
constexpr int DRAW_REGISTERS = DRAW_BLOCK / DRAW_UNITS / WORD_LANES;

struct RoundKeys {
  uint64_t key_0[PHILOX_ROUNDS];
  uint64_t key_1[PHILOX_ROUNDS];
};

// What the frame brings into the words after the third round, and into its one product.
struct FrameWords {
  uint64_t factor;
  uint64_t x0;
  uint64_t x2;
  uint64_t x3;
};

// What the octets bring.
struct OctetWords {
  Words factor;
  Words x2;
};

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

SERFAST_INLINE RoundKeys round_keys(uint64_t seed) {
  RoundKeys keys;
  for (int round = 0; round < PHILOX_ROUNDS; ++round) {
    keys.key_0[round] = static_cast<uint32_t>(seed) + static_cast<uint32_t>(round) * PHILOX_KEY_STEP_0;
    keys.key_1[round] = static_cast<uint32_t>(seed >> 32) + static_cast<uint32_t>(round) * PHILOX_KEY_STEP_1;
  }
  return keys;
}

SERFAST_INLINE FrameWords frame_words(const RoundKeys& keys, uint32_t frame) {
  const uint64_t first = static_cast<uint64_t>(PHILOX_MULTIPLIER_0) * frame;
  const uint32_t x2 = static_cast<uint32_t>((first >> 32) ^ keys.key_1[0]);
  const uint64_t second = static_cast<uint64_t>(PHILOX_MULTIPLIER_1) * x2;
  const uint32_t x0 = static_cast<uint32_t>((second >> 32) ^ keys.key_0[1]);
  const uint64_t third = static_cast<uint64_t>(PHILOX_MULTIPLIER_0) * x0;
  return {first, second ^ keys.key_0[2], (third >> 32) ^ keys.key_1[2], third};
}

// The octets of one register, in the lanes where kept_bits wants them.
SERFAST_INLINE OctetWords octet_words(const RoundKeys& keys, uint32_t first_octet) {
  Words octet;
  for (int lane = 0; lane < WORD_LANES; ++lane) {
    const int place = SERFAST_REGISTER_BYTES == 64 ? lane % 2 * (WORD_LANES / 2) + lane / 2 : lane;
    octet[lane] = first_octet + static_cast<uint32_t>(place);
  }
  const Words product = multiply_low_halves(octet ^ keys.key_0[0], Words{} + PHILOX_MULTIPLIER_0);
  return {(product >> 32) ^ keys.key_1[1], product};
}

// A bit for each 16-bit half of the four words of each lane: whether it reaches the threshold.
SERFAST_INLINE uint64_t kept_bits(Words x0, Words x1, Words x2, Words x3, uint32_t threshold) {
#if defined(__x86_64__) && SERFAST_REGISTER_BYTES == 64
  const __m512i least = _mm512_set1_epi16(static_cast<int16_t>(threshold));
  const __m512i first = _mm512_mask_shuffle_epi32((__m512i)x0, 0xAAAA, (__m512i)x1, _MM_PERM_CCAA);
  const __m512i second = _mm512_mask_shuffle_epi32((__m512i)x2, 0xAAAA, (__m512i)x3, _MM_PERM_CCAA);
  const __m512i lower = _mm512_maskz_unpacklo_epi64(0xFF, first, second);
  const __m512i upper = _mm512_maskz_unpackhi_epi64(0xFF, first, second);
  return _mm512_cmpge_epu16_mask(lower, least) | uint64_t(_mm512_cmpge_epu16_mask(upper, least)) << 32;
#elif defined(__x86_64__) && SERFAST_REGISTER_BYTES == 32
  const __m256i least = _mm256_set1_epi16(static_cast<int16_t>(threshold));
  const __m256i first = _mm256_blend_epi32((__m256i)x0, (__m256i)(x1 << 32), 0xAA);
  const __m256i second = _mm256_blend_epi32((__m256i)x2, (__m256i)(x3 << 32), 0xAA);
  const __m256i lower = _mm256_unpacklo_epi64(first, second);
  const __m256i upper = _mm256_unpackhi_epi64(first, second);
  const __m256i lower_kept = _mm256_cmpeq_epi16(_mm256_max_epu16(lower, least), lower);
  const __m256i upper_kept = _mm256_cmpeq_epi16(_mm256_max_epu16(upper, least), upper);
  return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_packs_epi16(lower_kept, upper_kept)));
#else
  uint64_t kept = 0;
  for (int lane = WORD_LANES - 1; lane >= 0; --lane) {
    for (const uint64_t word : {x3[lane], x2[lane], x1[lane], x0[lane]}) {
      kept = kept << 2 | uint64_t((word >> 16 & 0xFFFFu) >= threshold) << 1 | uint64_t((word & 0xFFFFu) >= threshold);
    }
  }
  return kept;
#endif
}

SERFAST_INLINE uint64_t
draw_kept(const RoundKeys& keys, const FrameWords& frame, const OctetWords& octet, uint32_t threshold) {
  const Words product = multiply_low_halves(octet.factor ^ frame.factor, Words{} + PHILOX_MULTIPLIER_1);
  Words x0 = (product >> 32) ^ frame.x0;
  Words x1 = product;
  Words x2 = octet.x2 ^ frame.x2;
  Words x3 = Words{} + frame.x3;
  for (int round = SHARED_ROUNDS; round < PHILOX_ROUNDS; ++round) {
    const Words product_0 = multiply_low_halves(x0, Words{} + PHILOX_MULTIPLIER_0);
    const Words product_1 = multiply_low_halves(x2, Words{} + PHILOX_MULTIPLIER_1);
    x0 = (product_1 >> 32) ^ x1 ^ keys.key_0[round];
    x2 = (product_0 >> 32) ^ x3 ^ keys.key_1[round];
    x1 = product_1;
    x3 = product_0;
  }
  return kept_bits(x0, x1, x2, x3, threshold);
}

// The bits of the elements of n_frames frames from first_frame: bit u of word (frame, block) is unit 64 block + u.
// Meanwhile the rows that the bits are for come into the cache.
template <int max_frames, typename scalar_t>
void draw_frames(
    const scalar_t* rows,  // (frame, unit)
    int64_t n_units,
    uint64_t seed,
    int64_t first_frame,
    int64_t n_frames,
    uint32_t threshold,
    uint64_t* kept) {  // (frame, block)
  const int64_t n_blocks = (n_units + DRAW_BLOCK - 1) / DRAW_BLOCK;
  const RoundKeys keys = round_keys(seed);
  FrameWords frames[max_frames];
  for (int64_t frame = 0; frame < n_frames; ++frame) {
    frames[frame] = frame_words(keys, static_cast<uint32_t>(first_frame + frame));
  }
  for (int64_t block = 0; block < n_blocks; ++block) {
    OctetWords octets[DRAW_REGISTERS];
    for (int i = 0; i < DRAW_REGISTERS; ++i) {
      octets[i] = octet_words(keys, static_cast<uint32_t>(block * (DRAW_BLOCK / DRAW_UNITS) + i * WORD_LANES));
    }
    for (int64_t frame = 0; frame < n_frames; ++frame) {
      prefetch<DRAW_BLOCK>(rows + frame * n_units + block * DRAW_BLOCK);
      uint64_t word = 0;
      for (int i = 0; i < DRAW_REGISTERS; ++i) {
        word |= draw_kept(keys, frames[frame], octets[i], threshold) << (i * WORD_LANES * DRAW_UNITS);
      }
      kept[frame * n_blocks + block] = word;
    }
  }
}
