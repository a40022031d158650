#include "cpu_capability.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace serfast {
namespace {

CpuCapability best_capability() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? CpuCapability::avx512 : avx2 ? CpuCapability::avx2 : CpuCapability::generic;
#else
  return CpuCapability::generic;
#endif
}

CpuCapability chosen_capability() {
  const CpuCapability best = best_capability();
  const char* named = std::getenv("SERFAST_CPU_CAPABILITY");
  if (named == nullptr) {
    return best;
  }
  for (const CpuCapability level : {CpuCapability::generic, CpuCapability::avx2, CpuCapability::avx512}) {
    if (std::string(named) == name_of(level)) {
      if (level > best) {
        throw std::invalid_argument(
            std::string("SERFAST_CPU_CAPABILITY must be a level this processor has (at most ") + name_of(best) +
            "), got " + named);
      }
      return level;
    }
  }
  throw std::invalid_argument(std::string("SERFAST_CPU_CAPABILITY must be generic, avx2 or avx512, got ") + named);
}

}  // namespace

CpuCapability cpu_capability() {
  static const CpuCapability capability = chosen_capability();
  return capability;
}

const char* name_of(CpuCapability capability) {
  switch (capability) {
    case CpuCapability::avx512:
      return "avx512";
    case CpuCapability::avx2:
      return "avx2";
    default:
      return "generic";
  }
}

}  // namespace serfast
