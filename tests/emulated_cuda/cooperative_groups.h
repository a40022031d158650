// Clusters of blocks of the emulated device.

#pragma once

#include "cuda_runtime.h"

namespace cooperative_groups {

struct cluster_group {
  unsigned num_blocks() const { return emulated::device().current->cluster->blocks.size(); }
  unsigned block_rank() const { return blockIdx.x % num_blocks(); }
  void sync() const { emulated::wait_for(*emulated::device().current->cluster); }

  // The same place in the dynamic shared memory of another block, which must still be running.
  template <typename number_t>
  number_t* map_shared_rank(number_t* own, unsigned rank) const {
    const emulated::Thread& thread = *emulated::device().current;
    const emulated::Block& peer = *thread.cluster->blocks[rank];
    if (peer.dynamic_shared.begin() == nullptr || peer.n_alive < int(blockDim.x)) {
      emulated::fail("a block must run while others use its shared memory, got one that does not");
    }
    const auto offset = reinterpret_cast<unsigned char*>(own) - thread.block->dynamic_shared.begin();
    return reinterpret_cast<number_t*>(peer.dynamic_shared.begin() + offset);
  }
};

inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
