// Compiles SERFAST_KERNEL, a file name, once per instruction set, each in a namespace of its own.
//
// Include it at file scope with the headers of the kernel already included: nothing but the kernel itself may be
// compiled for a wider instruction set, or the linker could merge such code into what every processor runs.

#define SERFAST_REGISTER_BYTES 16
namespace serfast::generic {
#include "vector.inl"

#include SERFAST_KERNEL
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
}  // namespace serfast::avx512
#undef SERFAST_REGISTER_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__
