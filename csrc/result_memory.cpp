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

constexpr size_t HUGE_PAGE_BYTES = size_t(1) << 21;
constexpr size_t SMALLEST_BLOCK = size_t(1) << 22;  // smaller blocks the C library keeps by itself
constexpr size_t MOST_WAITING = size_t(1) << 30;

struct Block {
  void* data = nullptr;
  size_t n_bytes = 0;
};

Block new_block(size_t n_bytes) {
  const Block block = {::operator new(n_bytes, std::align_val_t(HUGE_PAGE_BYTES), std::nothrow), n_bytes};
  STD_TORCH_CHECK(block.data != nullptr, "memory must hold a result of ", n_bytes, " bytes, got no such block");
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  madvise(block.data, n_bytes / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES, MADV_HUGEPAGE);
#endif
  return block;
}

void release(const Block& block) { ::operator delete(block.data, std::align_val_t(HUGE_PAGE_BYTES)); }

// Blocks in use and blocks that wait.
class ResultMemory {
 public:
  Block take(size_t n_bytes) {
    const Block waiting = take_waiting(n_bytes);
    const Block block = waiting.data != nullptr ? waiting : new_block(n_bytes);
    const std::lock_guard<std::mutex> guard(lock);
    n_used_ += block.n_bytes;
    most_used_ = std::max(most_used_, n_used_);
    release_excess();
    return block;
  }

  void give_back(const Block& block) {
    const std::lock_guard<std::mutex> guard(lock);
    n_used_ -= block.n_bytes;
    n_waiting_ += block.n_bytes;
    waiting_.push_back(block);
    release_excess();
  }

  std::mutex lock;

 private:
  // The smallest block that is large enough and at most half as large again, or none.
  Block take_waiting(size_t n_bytes) {
    const std::lock_guard<std::mutex> guard(lock);
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

  void release_excess() {
    while (n_waiting_ > MOST_WAITING || n_used_ + n_waiting_ > most_used_) {
      n_waiting_ -= waiting_.front().n_bytes;
      release(waiting_.front());
      waiting_.erase(waiting_.begin());
    }
  }

  std::vector<Block> waiting_;  // oldest first
  size_t n_waiting_ = 0;        // bytes
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
  for (size_t dim = shape.size(); dim > 0; --dim) {
    strides[dim - 1] = n_elements;
    n_elements *= shape[dim - 1];
  }
  const size_t n_bytes = static_cast<size_t>(n_elements) * like.element_size();
  if (n_bytes < SMALLEST_BLOCK) {
    return torch::stable::new_empty(like, shape);
  }
  const Block block = result_memory().take(n_bytes);
  return torch::stable::from_blob(block.data, shape, strides, like.device(), like.scalar_type(), [block](void*) {
    result_memory().give_back(block);
  });
}

}  // namespace serfast
