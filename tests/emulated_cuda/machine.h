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
constexpr size_t STATIC_SHARED_BYTES = 48 * 1024;  // and of dynamic shared memory, unless a kernel asks for more
constexpr unsigned MOST_CLUSTER_BLOCKS = 8;
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
};

// Memory filled with NaN, on a boundary of its own alignment and of no greater power of two, with nothing behind it.
class Memory {
 public:
  Memory() = default;
  Memory(size_t n_bytes, size_t alignment) : alignment_(alignment) {
    void* start = nullptr;
    if (posix_memalign(&start, 2 * std::max(alignment, sizeof(void*)), alignment + n_bytes) != 0) {
      throw std::bad_alloc();
    }
    std::memset(start, POISON, alignment + n_bytes);
    start_.reset(static_cast<unsigned char*>(start));
  }

  unsigned char* begin() const { return start_ ? start_.get() + alignment_ : nullptr; }

 private:
  size_t alignment_ = 0;
  std::unique_ptr<unsigned char, decltype(&std::free)> start_ = {nullptr, &std::free};
};

struct Block : Team {
  dim3 index;
  std::map<int, Memory> shared;
  Memory dynamic_shared;  // once the kernel has named its alignment
  size_t n_shared_bytes = 0;
  std::vector<Warp> warps;
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
  unsigned schedule = 0;
  int capability = 9;  // sm_90, or sm_80 with 8

  size_t most_shared_bytes() const { return (capability >= 9 ? 227 : 163) * 1024; }
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

inline void wait_for_warp(unsigned mask) {
  Warp& warp = *device().current->warp;
  if (mask != 0xFFFFFFFFu || warp.n_alive != WARP_THREADS) {
    fail("a warp's exchange must be made by all of its lanes, got " + std::to_string(warp.n_alive));
  }
  wait_for(warp);
}

// What all lanes brought, once they have.
template <typename number_t>
const Slots& bring(unsigned mask, const number_t& value) {
  static_assert(sizeof(number_t) <= sizeof(Slot));
  Thread& thread = *device().current;
  Slots& slots = thread.warp->slots[thread.n_exchanges++ % 2];
  std::memcpy(slots[thread.lane].bytes, &value, sizeof(number_t));
  wait_for_warp(mask);
  return slots;
}

// What lane `source` brought.
template <typename number_t>
number_t exchange(unsigned mask, const number_t& value, unsigned source) {
  number_t result;
  std::memcpy(&result, bring(mask, value)[source % WARP_THREADS].bytes, sizeof(number_t));
  return result;
}

// Shared memory declared at one place of the source.
template <typename shared_t, int place>
shared_t& shared() {
  Block& block = *device().current->block;
  const auto [found, is_new] = block.shared.try_emplace(place, sizeof(shared_t), alignof(shared_t));
  if (is_new) {
    block.n_shared_bytes += sizeof(shared_t);
    if (block.n_shared_bytes > STATIC_SHARED_BYTES) {
      fail("a block must declare at most 48 KB of shared memory, got " + std::to_string(block.n_shared_bytes));
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
  arrivals_at(letter.barrier);
  Cluster& cluster = *device().current->cluster;
  if (device().schedule % 2 == 0) {
    cluster.letters.push_back(letter);
  } else {
    deliver(cluster, letter);
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
    all.stacks.push_back(
        mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
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
