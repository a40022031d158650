// Which instruction set the CPU kernels use.

#pragma once

namespace serfast {

enum class CpuCapability { generic, avx2, avx512 };

// The best level this processor has, or the one named by SERFAST_CPU_CAPABILITY (generic, avx2, avx512). Found once.
// Throws std::invalid_argument if that variable names no level or one this processor lacks.
CpuCapability cpu_capability();

const char* name_of(CpuCapability capability);

// The kernels for that instruction set, such as BlstmKernels<float>. A file per operator and type defines them with
// for_each_isa.inl.
template <typename Kernels>
const Kernels& kernels();

}  // namespace serfast
