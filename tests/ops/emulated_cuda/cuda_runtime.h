// The words of CUDA C++ that serfast's kernels use, for the emulated device.

#pragma once

#include <math.h>

#include <cmath>

#include "machine.h"

#define __CUDACC__ 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define threadIdx (emulated::device().current->index)
#define blockIdx (emulated::device().current->block->index)
#define blockDim (emulated::device().block)
#define gridDim (emulated::device().grid)

using cudaStream_t = const void*;
enum cudaError_t { cudaSuccess };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel kernel, cudaFuncAttribute, int64_t n_bytes) {
  if (static_cast<size_t>(n_bytes) > emulated::SHARED_BYTES) {
    throw std::runtime_error("a kernel must ask for at most 227 KB of shared memory, got " + std::to_string(n_bytes));
  }
  emulated::device().asked_shared_bytes[emulated::address(kernel)] = n_bytes;
  return cudaSuccess;
}

inline cudaError_t cudaGetLastError() { return cudaSuccess; }  // an emulated launch throws by itself

inline void __syncthreads() { emulated::wait_for(*emulated::device().current->block); }
inline void __syncwarp() { emulated::wait_for_warp(0xFFFFFFFFu); }

template <typename number_t>
number_t __shfl_sync(unsigned mask, number_t value, int source) {
  return emulated::exchange(mask, value, static_cast<unsigned>(source));
}

template <typename number_t>
number_t __shfl_xor_sync(unsigned mask, number_t value, int distance) {
  return emulated::exchange(mask, value, emulated::device().current->lane ^ static_cast<unsigned>(distance));
}

inline unsigned __ballot_sync(unsigned mask, bool vote) {
  const auto& brought = emulated::bring(mask, vote);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < emulated::WARP_THREADS; ++lane) {
    votes |= brought[lane][0] != 0 ? 1u << lane : 0u;
  }
  return votes;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
