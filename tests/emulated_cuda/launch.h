// Launches of the emulated device: every block of a grid, one cluster after the other.

#pragma once

#include "machine.h"

namespace emulated {

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

inline void stop_at_error() {
  if (!device().error.empty()) {
    throw std::runtime_error(device().error);
  }
}

// Lets every lane of a warp run until it waits. Whether one of them could.
inline bool run_warp(std::vector<Thread>& threads, size_t warp, const std::vector<size_t>& lanes) {
  bool is_moving = false;
  for (const size_t lane : lanes) {
    Thread& thread = threads[warp * WARP_THREADS + lane];
    if (thread.can_run()) {
      resume(thread, warp * WARP_THREADS + lane);
      stop_at_error();
      is_moving = true;
    }
  }
  return is_moving;
}

// Whether there was anything to deliver.
inline bool deliver_until_one_can_run(Cluster& cluster) {
  const bool is_any = !cluster.letters.empty();
  for (const uint64_t n_phases = cluster.n_phases; !cluster.letters.empty() && cluster.n_phases == n_phases;) {
    deliver(cluster, cluster.letters.front());
    cluster.letters.pop_front();
    stop_at_error();
  }
  return is_any;
}

// The first warp in the order that can run always does: it gets as far ahead of the others as barriers allow. From
// schedule 4 on the order changes whenever a warp waits: they get in between each other.
inline void run_cluster(std::vector<Thread>& threads, std::mt19937& random) {
  std::vector<size_t> warps = order_of(threads.size() / WARP_THREADS, random);
  const std::vector<size_t> lanes = order_of(WARP_THREADS, random);
  const auto run_one = [&](size_t warp) { return run_warp(threads, warp, lanes); };
  while (std::any_of(warps.begin(), warps.end(), run_one) || deliver_until_one_can_run(*threads[0].cluster)) {
    if (device().schedule >= 4) {
      std::shuffle(warps.begin(), warps.end(), random);
    }
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
    demand(cluster <= device().most_cluster_blocks, "a cluster must find room", cluster);
    demand(cluster == 1 || device().capability >= 9, "clusters must run on sm_90", device().capability * 10);
  }

  void run(const std::function<void()>& kernel, size_t n_asked_bytes) const {
    Device& all = device();
    all.n_shared_limit = n_asked_bytes > STATIC_SHARED_BYTES ? all.most_shared_bytes() : STATIC_SHARED_BYTES;
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
    own.run([&] { kernel(arguments...); }, asked_shared_bytes(kernel));
  };
}

}  // namespace emulated
