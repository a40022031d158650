// Packs of lanes for one instruction set: PACK_BYTES of numbers in as many registers as that takes.
//
// Included by for_each_isa.inl inside the set's namespace, with SERFAST_REGISTER_BYTES defined.

template <typename scalar_t>
struct Pack {
  typedef scalar_t Register __attribute__((vector_size(SERFAST_REGISTER_BYTES)));
  typedef typename Format<scalar_t>::Bits BitsRegister __attribute__((vector_size(SERFAST_REGISTER_BYTES)));
  static constexpr int n_registers = PACK_BYTES / SERFAST_REGISTER_BYTES;
  static constexpr int n_lanes = PACK_BYTES / static_cast<int>(sizeof(scalar_t));
  static constexpr int n_register_lanes = n_lanes / n_registers;
  Register part[n_registers];
};

template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> broadcast(scalar_t value) {
  Pack<scalar_t> pack;
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    pack.part[i] = value - typename Pack<scalar_t>::Register{};
  }
  return pack;
}

template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> load(const scalar_t* lanes) {
  Pack<scalar_t> pack;
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {  // one by one, or the compiler copies through the stack
    __builtin_memcpy(&pack.part[i], lanes + i * Pack<scalar_t>::n_register_lanes, SERFAST_REGISTER_BYTES);
  }
  return pack;
}

template <typename scalar_t>
SERFAST_INLINE void store(scalar_t* lanes, const Pack<scalar_t>& pack) {
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    __builtin_memcpy(lanes + i * Pack<scalar_t>::n_register_lanes, &pack.part[i], SERFAST_REGISTER_BYTES);
  }
}

// Stores past the caches, at a multiple of PACK_BYTES; fence_streams() lets other threads see it.
template <typename scalar_t>
SERFAST_INLINE void stream(scalar_t* lanes, const Pack<scalar_t>& pack) {
#if !defined(__x86_64__)
  store(lanes, pack);
#else
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    scalar_t* place = lanes + i * Pack<scalar_t>::n_register_lanes;
#if SERFAST_REGISTER_BYTES == 64
    _mm512_stream_si512(reinterpret_cast<__m512i*>(place), (__m512i)pack.part[i]);
#elif SERFAST_REGISTER_BYTES == 32
    _mm256_stream_si256(reinterpret_cast<__m256i*>(place), (__m256i)pack.part[i]);
#else
    _mm_stream_si128(reinterpret_cast<__m128i*>(place), (__m128i)pack.part[i]);
#endif
  }
#endif
}

SERFAST_INLINE void fence_streams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Asks for the lines that hold n numbers, which may lie outside of what is allocated.
template <int n, typename scalar_t>
SERFAST_INLINE void prefetch(const scalar_t* numbers) {
  for (int i = 0; i < n; i += PACK_BYTES / static_cast<int>(sizeof(scalar_t))) {
    __builtin_prefetch(numbers + i);
  }
}

// Asks for the lines that n numbers will be written to: a store then need not fetch them first.
template <int n, typename scalar_t>
SERFAST_INLINE void prefetch_to_write(scalar_t* numbers) {
  for (int i = 0; i < n; i += PACK_BYTES / static_cast<int>(sizeof(scalar_t))) {
    __builtin_prefetch(numbers + i, 1);
  }
}

// The first n lanes from memory, the others zero.
template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> load_first(const scalar_t* lanes, int64_t n) {
  if (n >= Pack<scalar_t>::n_lanes) {
    return load(lanes);
  }
  Pack<scalar_t> pack = broadcast(scalar_t(0));
  __builtin_memcpy(&pack, lanes, n * sizeof(scalar_t));
  return pack;
}

// The first n lanes to memory.
template <typename scalar_t>
SERFAST_INLINE void store_first(scalar_t* lanes, const Pack<scalar_t>& pack, int64_t n) {
  if (n >= Pack<scalar_t>::n_lanes) {
    store(lanes, pack);
  } else {
    __builtin_memcpy(lanes, &pack, n * sizeof(scalar_t));
  }
}

#if defined(__x86_64__) && SERFAST_REGISTER_BYTES == 64

// A bit for each of the first n lanes.
SERFAST_INLINE uint32_t first_bits(int64_t n) { return n >= 32 ? ~0u : (1u << n) - 1u; }

SERFAST_INLINE Pack<float> load_first(const float* lanes, int64_t n) {
  return {{(Pack<float>::Register)_mm512_maskz_loadu_ps(static_cast<__mmask16>(first_bits(n)), lanes)}};
}

SERFAST_INLINE Pack<double> load_first(const double* lanes, int64_t n) {
  return {{(Pack<double>::Register)_mm512_maskz_loadu_pd(static_cast<__mmask8>(first_bits(n)), lanes)}};
}

SERFAST_INLINE void store_first(float* lanes, const Pack<float>& pack, int64_t n) {
  _mm512_mask_storeu_ps(lanes, static_cast<__mmask16>(first_bits(n)), (__m512)pack.part[0]);
}

SERFAST_INLINE void store_first(double* lanes, const Pack<double>& pack, int64_t n) {
  _mm512_mask_storeu_pd(lanes, static_cast<__mmask8>(first_bits(n)), (__m512d)pack.part[0]);
}

#endif

template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> operator+(Pack<scalar_t> a, const Pack<scalar_t>& b) {
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    a.part[i] += b.part[i];
  }
  return a;
}

template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> operator-(Pack<scalar_t> a, const Pack<scalar_t>& b) {
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    a.part[i] -= b.part[i];
  }
  return a;
}

template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> operator*(Pack<scalar_t> a, const Pack<scalar_t>& b) {
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    a.part[i] *= b.part[i];
  }
  return a;
}

template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> operator/(Pack<scalar_t> a, const Pack<scalar_t>& b) {
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    a.part[i] /= b.part[i];
  }
  return a;
}

// a * b + c, contracted into one rounding where the instruction set can.
template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> multiply_add(Pack<scalar_t> a, const Pack<scalar_t>& b, const Pack<scalar_t>& c) {
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    a.part[i] = a.part[i] * b.part[i] + c.part[i];
  }
  return a;
}

#if defined(__x86_64__) && SERFAST_REGISTER_BYTES == 64

// Lane by lane: a * b + c where the lane's bit is set, c elsewhere.
SERFAST_INLINE Pack<float> multiply_add_kept(
    const Pack<float>& a, const Pack<float>& b, const Pack<float>& c, uint64_t bits) {
  const __mmask16 kept = static_cast<__mmask16>(bits);
  return {
      {(Pack<float>::Register)_mm512_mask3_fmadd_ps((__m512)a.part[0], (__m512)b.part[0], (__m512)c.part[0], kept)}};
}

SERFAST_INLINE Pack<double> multiply_add_kept(
    const Pack<double>& a, const Pack<double>& b, const Pack<double>& c, uint64_t bits) {
  const __mmask8 kept = static_cast<__mmask8>(bits);
  return {{(Pack<double>::Register)_mm512_mask3_fmadd_pd(
      (__m512d)a.part[0], (__m512d)b.part[0], (__m512d)c.part[0], kept)}};
}

#else

// Lane by lane: a * b + c where the lane's bit is set, c elsewhere.
template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> multiply_add_kept(
    const Pack<scalar_t>& a, const Pack<scalar_t>& b, const Pack<scalar_t>& c, uint64_t bits) {
  using Bits = typename Pack<scalar_t>::BitsRegister;
  constexpr int n_register_lanes = Pack<scalar_t>::n_register_lanes;
  Bits lane;
  for (int i = 0; i < n_register_lanes; ++i) {
    lane[i] = typename Format<scalar_t>::Bits(1) << i;
  }
  Pack<scalar_t> sum;
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    const Bits word = Bits{} + static_cast<typename Format<scalar_t>::Bits>(bits >> (i * n_register_lanes) & 0xFFu);
    sum.part[i] = (word & lane) != 0 ? a.part[i] * b.part[i] + c.part[i] : c.part[i];
  }
  return sum;
}

#endif

// Lane by lane: a < b ? yes : no. A lane that is not a number takes no.
template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> where_less(
    const Pack<scalar_t>& a, const Pack<scalar_t>& b, const Pack<scalar_t>& yes, const Pack<scalar_t>& no) {
  Pack<scalar_t> chosen;
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    chosen.part[i] = a.part[i] < b.part[i] ? yes.part[i] : no.part[i];
  }
  return chosen;
}

// Sum of all lanes, folding halves onto each other: the same tree whatever the registers' width.
template <typename scalar_t>
SERFAST_INLINE scalar_t sum_of_lanes(const Pack<scalar_t>& pack) {
  typedef scalar_t Quarter __attribute__((vector_size(QUARTER_BYTES)));
  Quarter quarter[PACK_BYTES / QUARTER_BYTES];
  __builtin_memcpy(quarter, &pack, PACK_BYTES);
  const Quarter sum = (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
  if constexpr (sizeof(scalar_t) == sizeof(float)) {
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
  } else {
    return sum[0] + sum[1];
  }
}

// The number without its sign.
template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> magnitude_of(Pack<scalar_t> x) {
  using Bits = typename Pack<scalar_t>::BitsRegister;
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    x.part[i] = (typename Pack<scalar_t>::Register)((Bits)x.part[i] & ~Format<scalar_t>::sign_bit);
  }
  return x;
}

// The magnitude of the one with the sign of the other.
template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> with_sign_of(Pack<scalar_t> x, const Pack<scalar_t>& other) {
  using Bits = typename Pack<scalar_t>::BitsRegister;
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    const Bits sign = (Bits)other.part[i] & Format<scalar_t>::sign_bit;
    x.part[i] = (typename Pack<scalar_t>::Register)(((Bits)x.part[i] & ~Format<scalar_t>::sign_bit) | sign);
  }
  return x;
}

// exp(x) = (1 + slope * rest) * power, where power is 2^n and |rest| is at most ln2 / 2 (Cody and Waite).
template <typename scalar_t>
struct ExpParts {
  Pack<scalar_t> slope;
  Pack<scalar_t> rest;
  Pack<scalar_t> power;
};

// For x from smallest_exponent to 0.
template <typename scalar_t>
SERFAST_INLINE ExpParts<scalar_t> exp_parts(const Pack<scalar_t>& x) {
  using Layout = Format<scalar_t>;
  using Bits = typename Pack<scalar_t>::BitsRegister;
  ExpParts<scalar_t> parts;
  const Pack<scalar_t> shift = broadcast(Layout::round_shift);
  const Pack<scalar_t> shifted = multiply_add(x, broadcast(Layout::log2_e), shift);
  const Pack<scalar_t> n = shifted - shift;
  parts.rest = multiply_add(n, broadcast(-Layout::ln2_high), x);
  parts.rest = multiply_add(n, broadcast(-Layout::ln2_low), parts.rest);
  parts.slope = broadcast(Layout::exp_series[0]);
  for (size_t i = 1; i < std::size(Layout::exp_series); ++i) {
    parts.slope = multiply_add(parts.slope, parts.rest, broadcast(Layout::exp_series[i]));
  }
  for (int i = 0; i < Pack<scalar_t>::n_registers; ++i) {
    const Bits exponent = (Bits)shifted.part[i] - (Bits)shift.part[i] + Layout::exponent_bias;
    parts.power.part[i] = (typename Pack<scalar_t>::Register)(exponent << Layout::mantissa_bits);
  }
  return parts;
}

// exp(x) for x <= 0. Zero below the smallest normal number.
template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> exp_nonpositive(const Pack<scalar_t>& x) {
  const Pack<scalar_t> lowest = broadcast(Format<scalar_t>::smallest_exponent);
  const ExpParts<scalar_t> parts = exp_parts(where_less(x, lowest, lowest, x));
  const Pack<scalar_t> exponential = multiply_add(parts.slope, parts.rest, broadcast(scalar_t(1))) * parts.power;
  return where_less(x, lowest, broadcast(scalar_t(0)), exponential);
}

// exp(x) of one number, x <= 0.
template <typename scalar_t>
SERFAST_INLINE scalar_t exp_of(scalar_t x) {
  return exp_nonpositive(broadcast(x)).part[0][0];
}

// (1 - e) / (1 + e) with e = exp(-2 |x|): from e - 1, which keeps its digits near zero.
template <typename scalar_t>
SERFAST_INLINE Pack<scalar_t> tanh(const Pack<scalar_t>& x) {
  const Pack<scalar_t> magnitude = magnitude_of(x);
  const Pack<scalar_t> limit = broadcast(Format<scalar_t>::largest_tanh);
  const Pack<scalar_t> bounded = where_less(limit, magnitude, limit, magnitude);
  const ExpParts<scalar_t> parts = exp_parts(bounded * broadcast(scalar_t(-2)));
  const Pack<scalar_t> below_one = parts.power - broadcast(scalar_t(1));
  const Pack<scalar_t> decay_less_one = multiply_add(parts.slope * parts.rest, parts.power, below_one);
  return with_sign_of(decay_less_one / (decay_less_one + broadcast(scalar_t(2))), x);
}
