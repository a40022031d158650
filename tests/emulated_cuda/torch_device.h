// Included before a .cu file: what torch's headers offer of a device, for the emulated one, whose tensors are the CPU's.

#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

namespace torch::stable::accelerator {

struct EmulatedGuard {
  explicit EmulatedGuard(DeviceIndex) {}
};

}  // namespace torch::stable::accelerator

inline AOTITorchError emulated_stream(int32_t, void** stream) {
  *stream = nullptr;
  return AOTI_TORCH_SUCCESS;
}

#define DeviceGuard EmulatedGuard
#define aoti_torch_get_current_cuda_stream emulated_stream
#undef STD_CUDA_CHECK
#define STD_CUDA_CHECK(call) static_cast<void>(call)
#define STD_CUDA_KERNEL_LAUNCH_CHECK() STD_CUDA_CHECK(cudaGetLastError())

#include "cuda_runtime.h"
