// Packs of float from and to half-precision memory, rounding to nearest, ties to even.
//
// Included by kernels, inside the namespace of the instruction set, after vector.inl.

typedef uint16_t HalfRegister __attribute__((vector_size(SERFAST_REGISTER_BYTES / 2)));
typedef uint32_t WideRegister __attribute__((vector_size(SERFAST_REGISTER_BYTES)));
using FloatRegister = Pack<float>::Register;

SERFAST_INLINE FloatRegister widened(HalfRegister narrow, BFloat16) {
  return (FloatRegister)(__builtin_convertvector(narrow, WideRegister) << 16);
}

SERFAST_INLINE HalfRegister narrowed(FloatRegister wide, BFloat16) {
  const WideRegister bits = (WideRegister)wide;
  const WideRegister rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const WideRegister quiet = (bits >> 16) | 0x40u;
  return __builtin_convertvector(wide == wide ? rounded : quiet, HalfRegister);
}

#if defined(__x86_64__) && SERFAST_REGISTER_BYTES == 64

SERFAST_INLINE FloatRegister widened(HalfRegister narrow, Float16) {
  return (FloatRegister)_mm512_maskz_cvtph_ps(0xFFFF, (__m256i)narrow);
}

SERFAST_INLINE HalfRegister narrowed(FloatRegister wide, Float16) {
  return (HalfRegister)_mm512_maskz_cvtps_ph(0xFFFF, (__m512)wide, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

#elif defined(__x86_64__) && SERFAST_REGISTER_BYTES == 32

SERFAST_INLINE FloatRegister widened(HalfRegister narrow, Float16) {
  return (FloatRegister)_mm256_cvtph_ps((__m128i)narrow);
}

SERFAST_INLINE HalfRegister narrowed(FloatRegister wide, Float16) {
  return (HalfRegister)_mm256_cvtps_ph((__m256)wide, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

#else

// The exponent moves by a multiplication, which normalises what is subnormal in half precision.
SERFAST_INLINE FloatRegister widened(HalfRegister narrow, Float16) {
  const WideRegister bits = __builtin_convertvector(narrow, WideRegister);
  const WideRegister magnitude = bits & 0x7FFFu;
  const FloatRegister scaled = (FloatRegister)(magnitude << 13) * 0x1p112f;
  const WideRegister special = magnitude >= 0x7C00u ? (WideRegister{} + 0x7F800000u) : WideRegister{};
  return (FloatRegister)((WideRegister)scaled | special | ((bits & 0x8000u) << 16));
}

// Source: Giesen, "float_to_half_fast3_rtne" (public domain), lane by lane.
SERFAST_INLINE HalfRegister narrowed(FloatRegister wide, Float16) {
  const WideRegister sign = ((WideRegister)wide >> 16) & 0x8000u;
  const WideRegister bits = (WideRegister)wide & 0x7FFFFFFFu;
  const WideRegister infinite = bits > 0x7F800000u ? (WideRegister{} + 0x7E00u) : (WideRegister{} + 0x7C00u);
  const WideRegister small = (WideRegister)((FloatRegister)bits + 0.5f) - 0x3F000000u;
  const WideRegister normal = (bits + 0xC8000FFFu + ((bits >> 13) & 1u)) >> 13;
  const WideRegister finite = bits < 0x38800000u ? small : normal;
  return __builtin_convertvector((bits >= 0x47800000u ? infinite : finite) | sign, HalfRegister);
}

#endif

template <typename half_t>
SERFAST_INLINE Pack<float> load_halves(const half_t* lanes) {
  Pack<float> pack;
  for (int i = 0; i < Pack<float>::n_registers; ++i) {
    HalfRegister narrow;
    __builtin_memcpy(&narrow, lanes + i * Pack<float>::n_register_lanes, sizeof(narrow));
    pack.part[i] = widened(narrow, half_t());
  }
  return pack;
}

template <typename half_t>
SERFAST_INLINE void store_halves(half_t* lanes, const Pack<float>& pack) {
  for (int i = 0; i < Pack<float>::n_registers; ++i) {
    const HalfRegister narrow = narrowed(pack.part[i], half_t());
    __builtin_memcpy(lanes + i * Pack<float>::n_register_lanes, &narrow, sizeof(narrow));
  }
}

template <typename half_t>
SERFAST_INLINE Pack<float> load_first_halves(const half_t* lanes, int64_t n) {
  half_t whole[Pack<float>::n_lanes] = {};
  __builtin_memcpy(whole, lanes, (n < Pack<float>::n_lanes ? n : Pack<float>::n_lanes) * sizeof(half_t));
  return load_halves(whole);
}

template <typename half_t>
SERFAST_INLINE void store_first_halves(half_t* lanes, const Pack<float>& pack, int64_t n) {
  half_t whole[Pack<float>::n_lanes];
  store_halves(whole, pack);
  __builtin_memcpy(lanes, whole, (n < Pack<float>::n_lanes ? n : Pack<float>::n_lanes) * sizeof(half_t));
}

SERFAST_INLINE Pack<float> load(const BFloat16* lanes) { return load_halves(lanes); }
SERFAST_INLINE Pack<float> load(const Float16* lanes) { return load_halves(lanes); }
SERFAST_INLINE Pack<float> load_first(const BFloat16* lanes, int64_t n) { return load_first_halves(lanes, n); }
SERFAST_INLINE Pack<float> load_first(const Float16* lanes, int64_t n) { return load_first_halves(lanes, n); }
SERFAST_INLINE void store(BFloat16* lanes, const Pack<float>& pack) { store_halves(lanes, pack); }
SERFAST_INLINE void store(Float16* lanes, const Pack<float>& pack) { store_halves(lanes, pack); }
SERFAST_INLINE void store_first(BFloat16* lanes, const Pack<float>& pack, int64_t n) {
  store_first_halves(lanes, pack, n);
}
SERFAST_INLINE void store_first(Float16* lanes, const Pack<float>& pack, int64_t n) {
  store_first_halves(lanes, pack, n);
}
