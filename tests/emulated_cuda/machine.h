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
using Slots = unsigned char[WARP_THREADS][16];

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

struct Cluster : Team {
  std::vector<std::unique_ptr<Block>> blocks;
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
  static_assert(sizeof(number_t) <= sizeof(Slots) / WARP_THREADS);
  Thread& thread = *device().current;
  Slots& slots = thread.warp->slots[thread.n_exchanges++ % 2];
  std::memcpy(slots[thread.lane], &value, sizeof(number_t));
  wait_for_warp(mask);
  return slots;
}

// What lane `source` brought.
template <typename number_t>
number_t exchange(unsigned mask, const number_t& value, unsigned source) {
  number_t result;
  std::memcpy(&result, bring(mask, value)[source % WARP_THREADS], sizeof(number_t));
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

// The order in which n take turns: ascending, descending, or one of many.
inline std::vector<size_t> order_of(size_t n, std::mt19937& random) {
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  const unsigned schedule = device().schedule;
  if (schedule == 1) {
    std::reverse(order.begin(), order.end());
  } else if (schedule > 1) {
    std::shuffle(order.begin(), order.end(), random);
  }
  return order;
}

// Lets every lane of a warp run until it waits. Whether one of them could.
inline bool run_warp(std::vector<Thread>& threads, size_t warp, const std::vector<size_t>& lanes) {
  bool is_moving = false;
  for (const size_t lane : lanes) {
    Thread& thread = threads[warp * WARP_THREADS + lane];
    if (thread.can_run()) {
      resume(thread, warp * WARP_THREADS + lane);
      if (!device().error.empty()) {
        throw std::runtime_error(device().error);
      }
      is_moving = true;
    }
  }
  return is_moving;
}

// The first warp in the order that can run always does: it gets as far ahead of the others as barriers allow.
inline void run_cluster(std::vector<Thread>& threads, std::mt19937& random) {
  const std::vector<size_t> warps = order_of(threads.size() / WARP_THREADS, random);
  const std::vector<size_t> lanes = order_of(WARP_THREADS, random);
  const auto run_one = [&](size_t warp) { return run_warp(threads, warp, lanes); };
  while (std::any_of(warps.begin(), warps.end(), run_one)) {
  }
  if (!std::all_of(threads.begin(), threads.end(), [](const Thread& thread) { return thread.is_done; })) {
    throw std::runtime_error("threads wait at a barrier that the others never reach");
  }
}

struct Launch {
  dim3 grid, block;
  size_t n_bytes;
  unsigned cluster;  // blocks along x that run together

  void check(size_t n_asked_bytes) const {
    const auto demand = [](bool is_right, const char* rule, size_t got) {
      if (!is_right) {
        throw std::runtime_error(std::string(rule) + ", got " + std::to_string(got));
      }
    };
    demand(grid.x > 0 && grid.y > 0 && grid.z > 0, "a grid must have blocks", 0);
    demand(
        grid.y <= MOST_BLOCKS && grid.z <= MOST_BLOCKS, "a grid must have at most 65535 blocks along y and z",
        std::max(grid.y, grid.z));
    const size_t n_threads = static_cast<size_t>(block.x) * block.y * block.z;
    demand(n_threads > 0 && n_threads <= MOST_THREADS, "a block must have 1 to 1024 threads", n_threads);
    demand(block.y * block.z == 1, "an emulated block must lie along x", block.y * block.z);
    demand(block.x % WARP_THREADS == 0, "an emulated block must be whole warps", block.x);
    demand(n_bytes <= n_asked_bytes, "a kernel must ask for its dynamic shared memory", n_bytes);
    demand(grid.x % cluster == 0, "a grid must be whole clusters", grid.x);
    demand(cluster <= MOST_CLUSTER_BLOCKS, "a cluster must have at most 8 blocks", cluster);
    demand(cluster == 1 || device().capability >= 9, "clusters must run on sm_90", device().capability * 10);
  }

  void run(const std::function<void()>& kernel) const {
    Device& all = device();
    gridDim = grid;
    blockDim = block;
    all.kernel = kernel;
    all.n_dynamic_bytes = n_bytes;
    all.error.clear();
    std::mt19937 random(all.schedule);
    const size_t n_clusters = static_cast<size_t>(grid.x) * grid.y * grid.z / cluster;
    for (const size_t index : order_of(n_clusters, random)) {
      Cluster own;
      std::vector<Thread> threads(static_cast<size_t>(block.x) * cluster);
      for (unsigned rank = 0; rank < cluster; ++rank) {
        const size_t place = index * cluster + rank;
        own.blocks.push_back(std::make_unique<Block>());
        Block& member = *own.blocks.back();
        member.index = {
            static_cast<unsigned>(place % grid.x), static_cast<unsigned>(place / grid.x % grid.y),
            static_cast<unsigned>(place / grid.x / grid.y)};
        member.n_alive = block.x;
        member.warps.resize(block.x / WARP_THREADS);
        own.n_alive += block.x;
        for (unsigned i = 0; i < block.x; ++i) {
          Thread& thread = threads[rank * block.x + i];
          thread.index = {i, 0, 0};
          thread.lane = i % WARP_THREADS;
          thread.warp = &member.warps[i / WARP_THREADS];
          thread.warp->n_alive++;
          thread.block = &member;
          thread.cluster = &own;
        }
      }
      run_cluster(threads, random);
    }
  }
};

template <typename Kernel>
const void* address(Kernel* kernel) {
  return reinterpret_cast<const void*>(kernel);
}

template <typename Kernel>
size_t asked_shared_bytes(const Kernel& kernel) {
  if constexpr (std::is_pointer_v<Kernel>) {
    const auto found = device().asked_shared_bytes.find(address(kernel));
    return found == device().asked_shared_bytes.end() ? STATIC_SHARED_BYTES : found->second;
  } else {
    return STATIC_SHARED_BYTES;
  }
}

// kernel<<<grid, block, bytes, stream>>>, to be called with the kernel's arguments.
template <typename Kernel>
auto launch(const Kernel& kernel, dim3 grid, dim3 block, size_t n_bytes, const void*) {
  return [=](const auto... arguments) {
    const Launch own = {grid, block, n_bytes, 1};
    own.check(asked_shared_bytes(kernel));
    own.run([&] { kernel(arguments...); });
  };
}

}  // namespace emulated

extern "C" __attribute__((used)) inline void emulated_cuda_schedule(unsigned schedule) {
  emulated::device().schedule = schedule;
}

extern "C" __attribute__((used)) inline void emulated_cuda_capability(int capability) {
  emulated::device().capability = capability;
}
