// Functions that the CPU and CUDA share.

#pragma once

#if defined(__CUDACC__)
#define SERFAST_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SERFAST_HOST_DEVICE inline
#endif
