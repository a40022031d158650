// Asynchronous copies of the emulated device: carried out when they are waited for, so that early readers find NaN, or
// at once with odd schedules, so that late readers of what they write over find other numbers.

#pragma once

#include "machine.h"

inline void __pipeline_memcpy_async(void* shared, const void* global, size_t n_bytes, size_t n_zeros = 0) {
  const auto is_aligned = [&](const void* start) { return reinterpret_cast<uintptr_t>(start) % n_bytes == 0; };
  if ((n_bytes != 4 && n_bytes != 8 && n_bytes != 16) || !is_aligned(shared) || !is_aligned(global)) {
    emulated::fail(
        "an asynchronous copy must be of 4, 8 or 16 bytes on their boundary, got " + std::to_string(n_bytes));
  }
  const auto copy = [=] {
    std::memcpy(shared, global, n_bytes - n_zeros);
    std::memset(static_cast<char*>(shared) + n_bytes - n_zeros, 0, n_zeros);
  };
  if (emulated::device().is_early()) {
    copy();
  }
  emulated::device().current->copies.push_back(emulated::device().is_early() ? std::function<void()>([] {}) : copy);
}

inline void __pipeline_commit() {
  emulated::Thread& thread = *emulated::device().current;
  const size_t n_before = std::accumulate(thread.batches.begin(), thread.batches.end(), size_t{0});
  thread.batches.push_back(thread.copies.size() - n_before);
}

// Waits for all batches but the last n_prior.
inline void __pipeline_wait_prior(size_t n_prior) {
  emulated::Thread& thread = *emulated::device().current;
  while (thread.batches.size() > n_prior) {
    const auto end = thread.copies.begin() + static_cast<std::ptrdiff_t>(thread.batches.front());
    std::for_each(thread.copies.begin(), end, [](const auto& copy) { copy(); });
    thread.copies.erase(thread.copies.begin(), end);
    thread.batches.erase(thread.batches.begin());
  }
}
