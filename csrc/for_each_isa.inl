// Compiles SERFAST_KERNEL, a file name, once per instruction set, each in a namespace of its own, and SERFAST_TABLE,
// the table of kernels that it defines, for one type. kernels() then finds the table of the set in use.
//
// Include it at file scope with the headers of the kernel already included: nothing but the kernel itself may be
// compiled for a wider instruction set, or the linker could merge such code into what every processor runs.

#include "cpu_capability.h"
#include "vector.h"

#define SERFAST_REGISTER_BYTES 16
namespace serfast::generic {
#include "vector.inl"

#include SERFAST_KERNEL

template struct SERFAST_TABLE;
}  // namespace serfast::generic
#undef SERFAST_REGISTER_BYTES

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define SERFAST_REGISTER_BYTES 32
namespace serfast::avx2 {
#include "vector.inl"

#include SERFAST_KERNEL

template struct SERFAST_TABLE;
}  // namespace serfast::avx2
#undef SERFAST_REGISTER_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif
#define SERFAST_REGISTER_BYTES 64
namespace serfast::avx512 {
#include "vector.inl"

#include SERFAST_KERNEL

template struct SERFAST_TABLE;
}  // namespace serfast::avx512
#undef SERFAST_REGISTER_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__

namespace serfast {

template <typename Kernels>
const Kernels& kernels() {
#if defined(__x86_64__)
  switch (cpu_capability()) {
    case CpuCapability::avx512:
      return avx512::SERFAST_TABLE::table;
    case CpuCapability::avx2:
      return avx2::SERFAST_TABLE::table;
    default:
      break;
  }
#endif
  return generic::SERFAST_TABLE::table;
}

template decltype(generic::SERFAST_TABLE::table)& kernels();

}  // namespace serfast
