// Shared memory that the blocks of a cluster fill for each other while they compute (sm_90 and newer).
//
// What blocks send lies in two buffers that take turns, and a mailbox says when all of a turn's bytes are there. Nothing
// says that a buffer has been read. So a block must send for a turn only after all that it is sent for the turn before
// has arrived, and every block must send something for a turn to every block, after it has last read the turn before.

#pragma once

#include <cooperative_groups.h>

#include <cuda/ptx>

namespace serfast {

class Mailbox {
 public:
  // Called by one thread. Peers may send after the cluster's next barrier.
  __device__ void open(uint32_t n_bytes) {
    for (uint64_t& arrival : arrivals_) {
      cuda::ptx::mbarrier_init(&arrival, 1);
    }
    cuda::ptx::fence_mbarrier_init(cuda::ptx::sem_release, cuda::ptx::scope_cluster);
    for (uint64_t& arrival : arrivals_) {
      expect(arrival, n_bytes);
    }
  }

  // Waits for all n_bytes of a turn, counted from 1. Called by every thread; `first` is one of them.
  __device__ void wait(int turn, uint32_t n_bytes, bool first) {
    uint64_t& arrival = arrivals_[turn % 2];
    // For this block alone: for the whole cluster, hardware would do no more but empty the L1 cache at every turn.
    while (!cuda::ptx::mbarrier_try_wait_parity(&arrival, static_cast<unsigned>(turn - 1) / 2 % 2)) {
    }
    if (first) {
      expect(arrival, n_bytes);
    }
    __syncwarp();
  }

  // Sends two or four numbers of 4 bytes for a turn of this mailbox, to their own boundary in memory of the same block.
  template <typename number_t, typename letter_t>
  __device__ void send(number_t* place, const letter_t& letter, int turn) {
    cuda::ptx::st_async(place, letter, &arrivals_[turn % 2]);
  }

 private:
  __device__ static void expect(uint64_t& arrival, uint32_t n_bytes) {
    cuda::ptx::mbarrier_arrive_expect_tx(
        cuda::ptx::sem_release, cuda::ptx::scope_cta, cuda::ptx::space_shared, &arrival, n_bytes);
  }

  uint64_t arrivals_[2];
};

}  // namespace serfast
