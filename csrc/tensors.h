// What every operator does alike with tensors: dense copies, pointers, and work that depends on their type.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "half.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/macros.h>
#endif

namespace serfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Tensor dense(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline std::optional<Tensor> dense(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(dense(*tensor)) : std::nullopt;
}

// Where the widest loads of kernels may start.
constexpr uintptr_t BOUNDARY_BYTES = 16;

// A dense tensor that starts on such a boundary: a copy where it does not.
inline Tensor on_boundary(const Tensor& tensor) {
  const Tensor whole = dense(tensor);
  const bool is_aligned = reinterpret_cast<uintptr_t>(whole.const_data_ptr()) % BOUNDARY_BYTES == 0;
  return is_aligned ? whole : torch::stable::clone(whole);
}

inline std::optional<Tensor> on_boundary(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(on_boundary(*tensor)) : std::nullopt;
}

template <typename scalar_t>
const scalar_t* pointer(const Tensor& tensor) {
  return static_cast<const scalar_t*>(tensor.const_data_ptr());
}

template <typename scalar_t>
const scalar_t* pointer(const std::optional<Tensor>& tensor) {
  return tensor ? pointer<scalar_t>(*tensor) : nullptr;
}

template <typename scalar_t>
scalar_t* pointer_if_any(const Tensor& tensor) {
  return tensor.numel() > 0 ? static_cast<scalar_t*>(tensor.mutable_data_ptr()) : nullptr;
}

// An uninitialised tensor for sums of the tensor's numbers.
inline Tensor new_sums(const Tensor& tensor, torch::headeronly::IntHeaderOnlyArrayRef shape) {
  const ScalarType type = tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  return torch::stable::new_empty(tensor, shape, type);
}

// Calls work(a number of the tensor's type), which is one that sums are kept in.
template <typename Work>
auto with_sum_type_of(const Tensor& tensor, const Work& work) {
  return tensor.scalar_type() == ScalarType::Double ? work(double()) : work(float());
}

// Calls work(a number of the tensor's type).
template <typename Work>
auto with_type_of(const Tensor& tensor, const Work& work) {
  switch (tensor.scalar_type()) {
    case ScalarType::BFloat16:
      return work(BFloat16());
    case ScalarType::Half:
      return work(Float16());
    default:
      return with_sum_type_of(tensor, work);
  }
}

#if defined(__CUDACC__)

inline cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

#endif

}  // namespace serfast
