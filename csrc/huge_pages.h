// Large results in large pages: touching a fresh page of 4 KiB costs several times what filling it does.

#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace serfast {

constexpr uintptr_t HUGE_PAGE_BYTES = uintptr_t(1) << 21;

// Advises the system to back a tensor that is about to be filled with huge pages, where it holds any.
inline void use_huge_pages([[maybe_unused]] const torch::stable::Tensor& tensor) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const uintptr_t begin = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
  const uintptr_t end = begin + static_cast<uintptr_t>(tensor.numel()) * tensor.element_size();
  const uintptr_t first = (begin + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
  const uintptr_t last = end / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
  if (first < last) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
}

}  // namespace serfast
