// The words of CUDA C++ that serfast's kernels use, for the emulated device.

#pragma once

#include <math.h>

#include <cmath>

#include "launch.h"

#define __CUDACC__ 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline

struct alignas(8) uint2 {
  unsigned x, y;
};

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float numerator, float denominator) { return numerator / denominator; }

using cudaStream_t = const void*;
enum cudaError_t { cudaSuccess };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };

struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel kernel, cudaFuncAttribute, int n_bytes) {
  const size_t at_most = emulated::device().most_shared_bytes();
  if (static_cast<size_t>(n_bytes) > at_most) {
    throw std::runtime_error(
        "a kernel must ask for at most " + std::to_string(at_most) + " bytes of shared memory, got " +
        std::to_string(n_bytes));
  }
  emulated::device().asked_shared_bytes[emulated::address(kernel)] = n_bytes;
  return cudaSuccess;
}

inline cudaError_t cudaGetLastError() { return cudaSuccess; }  // an emulated launch throws by itself

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = int(emulated::device().most_shared_bytes());
  return cudaSuccess;
}

struct cudaFuncAttributes {
  int ptxVersion;
};

template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  attributes->ptxVersion = 10 * emulated::device().capability;
  return cudaSuccess;
}

template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* n_clusters, Kernel, const cudaLaunchConfig_t* config) {
  *n_clusters = config->attrs[0].val.clusterDim.x <= emulated::device().most_cluster_blocks ? 1 : 0;
  return cudaSuccess;
}

template <typename... parameters_t, typename... arguments_t>
cudaError_t cudaLaunchKernelEx(
    const cudaLaunchConfig_t* config, void (*kernel)(parameters_t...), arguments_t&&... arguments) {
  const auto& shape = config->attrs[0].val.clusterDim;
  if (config->numAttrs != 1 || shape.y != 1 || shape.z != 1) {
    throw std::runtime_error("an emulated launch must have one attribute, a cluster along x");
  }
  const unsigned cluster = shape.x;
  const emulated::Launch launch = {config->gridDim, config->blockDim, config->dynamicSmemBytes, cluster};
  launch.check(emulated::asked_shared_bytes(kernel));
  launch.run([&] { kernel(arguments...); }, emulated::asked_shared_bytes(kernel));
  return cudaSuccess;
}

inline void __syncthreads() { emulated::wait_for(*emulated::device().current->block); }

inline int __syncthreads_count(int vote) {
  emulated::Block& block = *emulated::device().current->block;
  int& n_votes = block.n_votes[block.generation % 2];  // all have read those of the last barrier but one
  n_votes = (block.n_waiting == 0 ? 0 : n_votes) + (vote != 0);
  __syncthreads();
  return n_votes;
}

inline void __syncwarp() { emulated::wait_for_warp(0xFFFFFFFFu, "a barrier"); }

template <typename number_t>
number_t __shfl_sync(unsigned mask, number_t value, int source) {
  return emulated::exchange(mask, value, static_cast<unsigned>(source));
}

template <typename number_t>
number_t __shfl_xor_sync(unsigned mask, number_t value, int distance) {
  return emulated::exchange(mask, value, emulated::device().current->lane ^ static_cast<unsigned>(distance));
}

inline unsigned __ballot_sync(unsigned mask, bool vote) {
  const auto& brought = emulated::bring(mask, vote, "a vote");
  unsigned votes = 0;
  for (unsigned lane = 0; lane < emulated::WARP_THREADS; ++lane) {
    votes |= brought[lane].bytes[0] != 0 ? 1u << lane : 0u;
  }
  return votes;
}

inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  const auto& brought = emulated::bring(mask, value, "a maximum");
  unsigned largest = 0;
  for (const emulated::Slot& slot : brought) {
    unsigned other;
    std::memcpy(&other, slot.bytes, sizeof(other));
    largest = std::max(largest, other);
  }
  return largest;
}

inline unsigned __float_as_uint(float number) {
  unsigned bits;
  std::memcpy(&bits, &number, sizeof(bits));
  return bits;
}

inline float __uint_as_float(unsigned bits) {
  float number;
  std::memcpy(&number, &bits, sizeof(number));
  return number;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
