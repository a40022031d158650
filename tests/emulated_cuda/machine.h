// A CUDA device of one thread of the CPU: it runs kernels' source as it stands, and stops at what a device forbids.
//
// Every CUDA thread is a fiber that runs until it waits for others. In which order they take turns is chosen with
// emulated_cuda_schedule(): a kernel that lacks a barrier finds other numbers in another order. Shared memory is filled
// with NaN before a block starts. What it cannot show: speed, registers, and the memory model of a real device.

#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the thread that runs

namespace emulated {

constexpr int WARP_THREADS = 32;
constexpr size_t STACK_BYTES = 256 * 1024;
constexpr size_t GUARD_BYTES = 64 * 1024;          // at its end: pages of every kernel
constexpr size_t STATIC_SHARED_BYTES = 48 * 1024;  // and of dynamic shared memory, unless a kernel asks for more
constexpr unsigned MOST_THREADS = 1024;
constexpr unsigned MOST_BLOCKS = 65535;  // along y and z
constexpr unsigned char POISON = 0xFF;   // NaN in every type

// Where a fiber, or the scheduler, goes on. The compiler's own jumps take no system call, and no sanitizer looks at them.
using Place = void* [5];
#define EMULATED_JUMP __attribute__((no_sanitize_address, noinline))

// Threads that wait for each other: a warp, a block or a cluster.
struct Team {
  int n_alive = 0;
  int n_waiting = 0;
  uint64_t generation = 0;

  void release_if_complete() {
    if (n_waiting > 0 && n_waiting == n_alive) {
      n_waiting = 0;
      ++generation;
    }
  }
};

// What each lane of a warp brings for the others.
struct alignas(8) Slot {
  unsigned char bytes[24];
};
using Slots = Slot[WARP_THREADS];

struct Warp : Team {
  Slots slots[2];  // used in turns
  const char* operation = nullptr;
};

// Memory filled with NaN, on a boundary of its own alignment and of no greater power of two, with nothing behind it.
class Memory {
 public:
  Memory() = default;
  Memory(size_t n_bytes, size_t alignment) : n_bytes_(n_bytes), alignment_(alignment) {
    void* start = nullptr;
    if (posix_memalign(&start, 2 * std::max(alignment, sizeof(void*)), alignment + n_bytes) != 0) {
      throw std::bad_alloc();
    }
    std::memset(start, POISON, alignment + n_bytes);
    start_.reset(static_cast<unsigned char*>(start));
  }

  unsigned char* begin() const { return start_ ? start_.get() + alignment_ : nullptr; }
  bool holds(const void* place) const {
    const auto* byte = static_cast<const unsigned char*>(place);
    return start_ && byte >= begin() && byte < begin() + n_bytes_;
  }

 private:
  size_t n_bytes_ = 0;
  size_t alignment_ = 0;
  std::unique_ptr<unsigned char, decltype(&std::free)> start_ = {nullptr, &std::free};
};

struct Block : Team {
  dim3 index;
  std::map<const void*, Memory> shared;
  Memory dynamic_shared;  // once the kernel has named its alignment
  size_t n_shared_bytes = 0;
  std::vector<Warp> warps;
  int n_votes[2] = {};  // of barriers that count, used in turns

  bool holds(const void* place) const {
    const auto has = [&](const auto& declared) { return declared.second.holds(place); };
    return dynamic_shared.holds(place) || std::any_of(shared.begin(), shared.end(), has);
  }
};

// A barrier in shared memory that waits for bytes as well as for threads. Its generation is its phase.
struct Arrivals : Team {
  Block* block = nullptr;
  int n_arrivals = 0;
  int n_missing = 0;    // of them
  int64_t n_bytes = 0;  // expected ones that have not come

  bool end_phase_if_complete() {
    if (n_missing > 0 || n_bytes != 0) {
      return false;
    }
    n_missing = n_arrivals;
    ++generation;
    return true;
  }
};

// Bytes on their way to shared memory, and the barrier there that counts them.
struct Letter {
  unsigned char* place;
  std::vector<unsigned char> bytes;
  const void* barrier;
};

struct Cluster : Team {
  std::vector<std::unique_ptr<Block>> blocks;
  std::map<const void*, Arrivals> arrivals;
  std::deque<Letter> letters;
  uint64_t n_phases = 0;  // of all barriers
};

struct Thread {
  dim3 index;
  unsigned lane = 0;
  Warp* warp = nullptr;
  Block* block = nullptr;
  Cluster* cluster = nullptr;
  Team* awaited = nullptr;
  uint64_t awaited_generation = 0;
  unsigned n_exchanges = 0;
  bool has_tried = false;                     // to wait for bytes, in vain
  std::vector<std::function<void()>> copies;  // asynchronous ones, not carried out yet
  std::vector<size_t> batches;                // how many of them each commit closed
  bool is_started = false;
  bool is_done = false;
  Place place;

  bool can_run() const { return !is_done && (awaited == nullptr || awaited->generation != awaited_generation); }
};

struct Device {
  Thread* current = nullptr;
  Place scheduler;
  std::function<void()> kernel;
  std::string error;
  std::vector<void*> stacks;
  std::map<const void*, size_t> asked_shared_bytes;
  size_t n_dynamic_bytes = 0;
  size_t n_shared_limit = 0;  // of a block, dynamic or not
  unsigned schedule = 0;
  int capability = 9;  // sm_90, or sm_80 with 8
  unsigned most_cluster_blocks = 8;

  size_t most_shared_bytes() const { return (capability >= 9 ? 227 : 163) * 1024; }
  // Whether what is on its way arrives at once, or not before it is waited for.
  bool is_early() const { return schedule % 2 == 1; }
};

inline Device& device() {
  static Device only;
  return only;
}

[[noreturn]] EMULATED_JUMP inline void leave() { __builtin_longjmp(device().scheduler, 1); }

// Ends the launch from within a kernel.
[[noreturn]] inline void fail(const std::string& error) {
  device().error = error;
  leave();
}

EMULATED_JUMP inline void pause() {
  if (__builtin_setjmp(device().current->place) == 0) {
    leave();
  }
}

inline void wait_for(Team& team) {
  Thread& thread = *device().current;
  thread.awaited = &team;
  thread.awaited_generation = team.generation;
  ++team.n_waiting;
  team.release_if_complete();
  while (!thread.can_run()) {
    pause();
  }
  thread.awaited = nullptr;
}

inline void wait_for_warp(unsigned mask, const char* operation) {
  Warp& warp = *device().current->warp;
  if (mask != 0xFFFFFFFFu || warp.n_alive != WARP_THREADS) {
    fail("a warp's exchange must be made by all of its lanes, got " + std::to_string(warp.n_alive));
  }
  if (warp.n_waiting > 0 && std::strcmp(warp.operation, operation) != 0) {
    fail(std::string("a warp's lanes must make the same exchange, got ") + warp.operation + " and " + operation);
  }
  warp.operation = operation;
  wait_for(warp);
}

// What all lanes brought, once they have.
template <typename number_t>
const Slots& bring(unsigned mask, const number_t& value, const char* operation) {
  static_assert(sizeof(number_t) <= sizeof(Slot));
  Thread& thread = *device().current;
  Slots& slots = thread.warp->slots[thread.n_exchanges++ % 2];
  std::memcpy(slots[thread.lane].bytes, &value, sizeof(number_t));
  wait_for_warp(mask, operation);
  return slots;
}

// What lane `source` brought.
template <typename number_t>
number_t exchange(unsigned mask, const number_t& value, unsigned source) {
  number_t result;
  std::memcpy(&result, bring(mask, value, "a shuffle")[source % WARP_THREADS].bytes, sizeof(number_t));
  return result;
}

// Shared memory declared at one place of the source.
template <typename shared_t, int place>
shared_t& shared() {
  static const char key = 0;  // of this type at this place
  Block& block = *device().current->block;
  const auto [found, is_new] = block.shared.try_emplace(&key, sizeof(shared_t), alignof(shared_t));
  if (is_new) {
    block.n_shared_bytes += sizeof(shared_t);
    if (block.n_shared_bytes > STATIC_SHARED_BYTES) {
      fail("a block must declare at most 48 KB of shared memory, got " + std::to_string(block.n_shared_bytes));
    }
    const size_t n_bytes = block.n_shared_bytes + device().n_dynamic_bytes;
    if (n_bytes > device().n_shared_limit) {
      fail("a block must ask for its shared memory, declared and dynamic, got " + std::to_string(n_bytes));
    }
  }
  return *reinterpret_cast<shared_t*>(found->second.begin());
}

inline unsigned char* dynamic_shared(size_t alignment) {
  Block& block = *device().current->block;
  if (block.dynamic_shared.begin() == nullptr) {
    block.dynamic_shared = Memory(device().n_dynamic_bytes, alignment);
  }
  return block.dynamic_shared.begin();
}

inline void check_launch_bound(unsigned n_threads) {
  if (blockDim.x > n_threads) {
    fail("a block must have at most the threads that its kernel is bound to, got " + std::to_string(blockDim.x));
  }
}

inline Arrivals& arrivals_at(const void* place) {
  auto& all = device().current->cluster->arrivals;
  const auto found = all.find(place);
  if (found == all.end()) {
    fail("a barrier that counts bytes must be initialised before it is used, got one that is not");
  }
  return found->second;
}

inline void deliver(Cluster& cluster, const Letter& letter) {
  Arrivals& barrier = cluster.arrivals.at(letter.barrier);
  if (barrier.block->n_alive == 0) {
    device().error = "a block must run while others send it bytes, got one that has ended";
  }
  std::copy(letter.bytes.begin(), letter.bytes.end(), letter.place);
  barrier.n_bytes -= static_cast<int64_t>(letter.bytes.size());
  cluster.n_phases += barrier.end_phase_if_complete();
}

inline void send(const Letter& letter) {
  const Block& block = *arrivals_at(letter.barrier).block;
  if (!block.holds(letter.place) || !block.holds(letter.place + letter.bytes.size() - 1)) {
    fail("sent bytes must go to the shared memory of the barrier's block, got others");
  }
  Cluster& cluster = *device().current->cluster;
  if (device().is_early()) {
    deliver(cluster, letter);
  } else {
    cluster.letters.push_back(letter);
  }
}

inline void wait_for_end_of_phase(Arrivals& barrier) {
  Thread& thread = *device().current;
  thread.awaited = &barrier;
  thread.awaited_generation = barrier.generation;
  while (!thread.can_run()) {
    pause();
  }
  thread.awaited = nullptr;
}

inline void run_thread() {
  device().kernel();
  Thread& thread = *device().current;
  if (thread.warp->n_waiting > 0) {
    fail("a lane must not leave while others of its warp wait, got " + std::to_string(thread.warp->n_waiting));
  }
  if (!thread.copies.empty()) {
    fail("a thread must wait for its copies before it ends, got " + std::to_string(thread.copies.size()));
  }
  thread.is_done = true;
  for (Team* team :
       {static_cast<Team*>(thread.warp), static_cast<Team*>(thread.block), static_cast<Team*>(thread.cluster)}) {
    --team->n_alive;
    team->release_if_complete();
  }
  leave();
}

[[noreturn]] EMULATED_JUMP inline void go_on(Thread& thread) { __builtin_longjmp(thread.place, 1); }

[[noreturn]] EMULATED_JUMP inline void start(Thread& thread, size_t place) {
  Device& all = device();
  thread.is_started = true;
  while (all.stacks.size() <= place) {
    constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (stack == MAP_FAILED || mprotect(stack, GUARD_BYTES, PROT_NONE) != 0) {
      std::abort();
    }
    all.stacks.push_back(stack);
  }
  ucontext_t fiber;
  getcontext(&fiber);
  fiber.uc_stack.ss_sp = all.stacks[place];
  fiber.uc_stack.ss_size = STACK_BYTES;
  makecontext(&fiber, run_thread, 0);
  setcontext(&fiber);
  std::abort();
}

EMULATED_JUMP inline void resume(Thread& thread, size_t place) {
  device().current = &thread;
  threadIdx = thread.index;
  blockIdx = thread.block->index;
  if (__builtin_setjmp(device().scheduler) == 0) {
    thread.is_started ? go_on(thread) : start(thread, place);
  }
}

}  // namespace emulated

extern "C" __attribute__((used)) inline void emulated_cuda_schedule(unsigned schedule) {
  emulated::device().schedule = schedule;
}

extern "C" __attribute__((used)) inline void emulated_cuda_capability(int capability) {
  emulated::device().capability = capability;
}

extern "C" __attribute__((used)) inline void emulated_cuda_most_cluster_blocks(unsigned n_blocks) {
  emulated::device().most_cluster_blocks = n_blocks;
}
