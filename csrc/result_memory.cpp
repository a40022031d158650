#include "result_memory.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <pthread.h>
#include <sys/mman.h>
#endif

namespace serfast {
namespace {

using torch::stable::Tensor;

constexpr int64_t SMALLEST_BLOCK = int64_t(1) << 22;  // smaller blocks the C library keeps by itself
constexpr size_t MOST_WAITING = size_t(1) << 30;

struct Block {
  void* data = nullptr;
  size_t n_bytes = 0;
};

// Straight from the system, so that a released block leaves the process; a block without data where memory is out.
Block new_block(size_t n_bytes) {
#if defined(__linux__)
  void* data = mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return {};
  }
#if defined(MADV_HUGEPAGE)
  madvise(data, n_bytes, MADV_HUGEPAGE);
#endif
  return {data, n_bytes};
#else
  return {::operator new(n_bytes, std::nothrow), n_bytes};
#endif
}

void release(const Block& block) {
#if defined(__linux__)
  munmap(block.data, block.n_bytes);
#else
  ::operator delete(block.data);
#endif
}

// Blocks in use and blocks that wait.
class ResultMemory {
 public:
  Block take(size_t n_bytes) {
    const std::lock_guard<std::mutex> guard(lock);
    Block block = take_waiting(n_bytes);
    if (block.data == nullptr) {
      const size_t n_wanted = n_used_ + n_bytes;
      release_until(std::min(MOST_WAITING, std::max(most_used_, n_wanted) - n_wanted));
      block = new_block(n_bytes);
    }
    if (block.data == nullptr) {
      release_until(0);
      block = new_block(n_bytes);
    }
    STD_TORCH_CHECK(block.data != nullptr, "not enough memory for a result of ", n_bytes, " bytes");
    n_used_ += block.n_bytes;
    most_used_ = std::max(most_used_, n_used_);
    return block;
  }

  void give_back(const Block& block) {
    const std::lock_guard<std::mutex> guard(lock);
    n_used_ -= block.n_bytes;
    n_waiting_ += block.n_bytes;
    waiting_.push_back(block);
    release_until(std::min(MOST_WAITING, most_used_ - n_used_));
  }

  std::mutex lock;

 private:
  // The smallest block that is large enough and at most half as large again, or none.
  Block take_waiting(size_t n_bytes) {
    auto best = waiting_.end();
    for (auto block = waiting_.begin(); block != waiting_.end(); ++block) {
      const bool fits = block->n_bytes >= n_bytes && block->n_bytes <= n_bytes + n_bytes / 2;
      if (fits && (best == waiting_.end() || block->n_bytes < best->n_bytes)) {
        best = block;
      }
    }
    if (best == waiting_.end()) {
      return {};
    }
    const Block block = *best;
    waiting_.erase(best);
    n_waiting_ -= block.n_bytes;
    return block;
  }

  // Releases the oldest until at most n_most bytes wait.
  void release_until(size_t n_most) {
    while (n_waiting_ > n_most) {
      n_waiting_ -= waiting_.front().n_bytes;
      release(waiting_.front());
      waiting_.erase(waiting_.begin());
    }
  }

  std::vector<Block> waiting_;  // oldest first
  size_t n_waiting_ = 0;        // bytes, as are the next
  size_t n_used_ = 0;
  size_t most_used_ = 0;
};

ResultMemory& result_memory() {
  static ResultMemory* const memory = [] {
#if defined(__linux__)
    // A process must not be forked while another thread holds the lock: the child could never take it.
    pthread_atfork(
        [] { result_memory().lock.lock(); }, [] { result_memory().lock.unlock(); },
        [] { result_memory().lock.unlock(); });
#endif
    return new ResultMemory;  // outlives the last tensor
  }();
  return *memory;
}

}  // namespace

Tensor new_result(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t n_elements = 1;
  int64_t n_bytes = 0;
  bool overflows = false;
  for (size_t dim = shape.size(); dim > 0; --dim) {
    strides[dim - 1] = n_elements;
    overflows |= __builtin_mul_overflow(n_elements, shape[dim - 1], &n_elements);
  }
  overflows |= __builtin_mul_overflow(n_elements, static_cast<int64_t>(like.element_size()), &n_bytes);
  if (overflows || n_bytes < SMALLEST_BLOCK) {  // torch refuses what is too large
    return torch::stable::new_empty(like, shape);
  }
  const Block block = result_memory().take(static_cast<size_t>(n_bytes));
  return torch::stable::from_blob(block.data, shape, strides, like.device(), like.scalar_type(), [block](void*) {
    result_memory().give_back(block);
  });
}

}  // namespace serfast
