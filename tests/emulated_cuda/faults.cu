// Kernels with one fault each, and some without: what an emulated device must notice.
//
// Called with a kernel's name and a schedule. Prints the numbers that the kernel wrote, or what the device refused.

#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>
#include <mma.h>

#include <cstdio>
#include <cstdlib>
#include <cuda/ptx>
#include <exception>
#include <map>
#include <string>
#include <vector>

constexpr int N_THREADS = 64;

__global__ void reversed_kernel(bool waits, const float* numbers, float* result) {
  __shared__ float shared[N_THREADS];
  shared[threadIdx.x] = numbers[threadIdx.x];
  if (waits) {
    __syncthreads();
  }
  result[threadIdx.x] = shared[N_THREADS - 1 - threadIdx.x];
}

__global__ void copied_kernel(bool waits, const float* numbers, float* result) {
  __shared__ float shared[N_THREADS];
  __pipeline_memcpy_async(&shared[threadIdx.x], numbers + threadIdx.x, sizeof(float));
  __pipeline_commit();
  __pipeline_wait_prior(waits ? 0 : 1);
  result[threadIdx.x] = shared[threadIdx.x];
  __pipeline_wait_prior(0);
}

__global__ void far_copied_kernel(const float* numbers) {
  __shared__ float shared[N_THREADS];
  __pipeline_memcpy_async(&shared[1], numbers, 16);
}

// Reads what a copy writes over, unless it waits for the readers before.
__global__ void overwritten_kernel(bool waits, const float* numbers, float* result) {
  __shared__ float shared[N_THREADS];
  shared[threadIdx.x] = numbers[threadIdx.x];
  __syncthreads();
  result[threadIdx.x] = shared[N_THREADS - 1 - threadIdx.x];
  if (waits) {
    __syncthreads();
  }
  __pipeline_memcpy_async(&shared[threadIdx.x], numbers + N_THREADS, sizeof(float));
  __pipeline_commit();
  __pipeline_wait_prior(0);
}

__global__ void unwaited_kernel(const float* numbers) {
  __shared__ float shared[N_THREADS];
  __pipeline_memcpy_async(&shared[threadIdx.x], numbers, sizeof(float));
  __pipeline_commit();
}

__global__ void __launch_bounds__(N_THREADS / 2, 1) bound_kernel(float* result) { result[threadIdx.x] = 1; }

__global__ void both_kernel(float* result) {
  extern __shared__ unsigned char shared[];
  __shared__ float declared[1024];
  result[threadIdx.x] = declared[threadIdx.x] = shared[threadIdx.x] = 1;
}

__global__ void mixed_kernel(float* result) {
  if (threadIdx.x % 32 == 0) {
    __syncwarp();
  } else {
    result[threadIdx.x] = __shfl_sync(0xFFFFFFFFu, 1.0f, 0);
  }
}

__global__ void left_kernel(float* result, unsigned leaver) {
  if (threadIdx.x == leaver) {
    return;
  }
  result[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, 1.0f, 1);
}

__global__ void stuck_kernel(float* result) {
  if (threadIdx.x == 0) {
    __syncthreads();
  }
  result[threadIdx.x] = __shfl_sync(0xFFFFFFFFu, 1.0f, 0);
  if (threadIdx.x > 0) {
    __syncthreads();
  }
}

__global__ void dynamic_kernel(float* result) {
  extern __shared__ unsigned char shared[];
  shared[threadIdx.x] = 1;
  result[threadIdx.x] = shared[threadIdx.x];
}

// Barriers that count, one after the other, and a maximum of each warp.
__global__ void counted_kernel(float* result) {
  const int n_few = __syncthreads_count(threadIdx.x < 3);
  const int n_odd = __syncthreads_count(threadIdx.x % 2 == 1);
  __syncthreads();
  const int n_all = __syncthreads_count(1);
  result[threadIdx.x] = n_few + n_odd + n_all + __reduce_max_sync(0xFFFFFFFFu, threadIdx.x);
}

__global__ void large_kernel(float* result) {
  __shared__ float shared[13 * 1024];
  result[threadIdx.x] = shared[threadIdx.x] = 1;
}

__global__ void square_kernel(const float* numbers) {
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> square;
  nvcuda::wmma::fill_fragment(square, 1.0f);
  nvcuda::wmma::store_matrix_sync(const_cast<float*>(numbers), square, 17, nvcuda::wmma::mem_row_major);
}

struct alignas(8) Pair {
  float numbers[2];
};

// Every thread sends two numbers to where it reads them from.
__global__ void sent_kernel(
    bool opens, bool waits, int n_expected, const float* numbers, float* result, int n_arrivals = 1) {
  __shared__ uint64_t arrived;
  __shared__ Pair shared[N_THREADS];
  if (opens && threadIdx.x == 0) {
    cuda::ptx::mbarrier_init(&arrived, 1);
    for (int i = 0; i < n_arrivals; ++i) {
      cuda::ptx::mbarrier_arrive_expect_tx(
          cuda::ptx::sem_release, cuda::ptx::scope_cta, cuda::ptx::space_shared, &arrived, n_expected * sizeof(float));
    }
  }
  __syncthreads();
  const float letter[2] = {numbers[threadIdx.x], 0.0f};
  cuda::ptx::st_async(shared[threadIdx.x].numbers, letter, &arrived);
  if (waits) {
    while (!cuda::ptx::mbarrier_try_wait_parity(&arrived, 0)) {
    }
  }
  result[threadIdx.x] = shared[threadIdx.x].numbers[0];
  __syncthreads();
}

// Sends to the memory of the device.
__global__ void sent_away_kernel(float* result) {
  __shared__ uint64_t arrived;
  if (threadIdx.x == 0) {
    cuda::ptx::mbarrier_init(&arrived, 1);
  }
  __syncthreads();
  const float letter[2] = {1.0f, 2.0f};
  cuda::ptx::st_async(result, letter, &arrived);
}

int main(int, char** arguments) {
  const std::string name = arguments[1];
  emulated_cuda_schedule(static_cast<unsigned>(std::atoi(arguments[2])));
  alignas(32) float numbers[16 * 17];
  alignas(8) float result[N_THREADS] = {};
  for (int i = 0; i < 16 * 17; ++i) {
    numbers[i] = static_cast<float>(i);
  }
  const cudaStream_t stream = nullptr;
  const std::map<std::string, std::function<void()>> launches = {
      {"reversed", [&] { reversed_kernel<<<1, N_THREADS, 0, stream>>>(true, numbers, result); }},
      {"reversed without a barrier", [&] { reversed_kernel<<<1, N_THREADS, 0, stream>>>(false, numbers, result); }},
      {"copied", [&] { copied_kernel<<<1, N_THREADS, 0, stream>>>(true, numbers, result); }},
      {"copied without waiting", [&] { copied_kernel<<<1, N_THREADS, 0, stream>>>(false, numbers, result); }},
      {"copied off a boundary", [&] { far_copied_kernel<<<1, N_THREADS, 0, stream>>>(numbers); }},
      {"overwritten", [&] { overwritten_kernel<<<1, N_THREADS, 0, stream>>>(true, numbers, result); }},
      {"overwritten too soon", [&] { overwritten_kernel<<<1, N_THREADS, 0, stream>>>(false, numbers, result); }},
      {"copies left behind", [&] { unwaited_kernel<<<1, N_THREADS, 0, stream>>>(numbers); }},
      {"beyond its bound", [&] { bound_kernel<<<1, N_THREADS, 0, stream>>>(result); }},
      {"much memory of both kinds", [&] { both_kernel<<<1, N_THREADS, 48 * 1024, stream>>>(result); }},
      {"mixed exchanges", [&] { mixed_kernel<<<1, N_THREADS, 0, stream>>>(result); }},
      {"the first lane left", [&] { left_kernel<<<1, N_THREADS, 0, stream>>>(result, 0); }},
      {"the last lane left", [&] { left_kernel<<<1, N_THREADS, 0, stream>>>(result, 31); }},
      {"stuck", [&] { stuck_kernel<<<1, N_THREADS, 0, stream>>>(result); }},
      {"no blocks", [&] { left_kernel<<<dim3(1, 0), N_THREADS, 0, stream>>>(result, 3); }},
      {"many blocks", [&] { left_kernel<<<dim3(1, 70000), N_THREADS, 0, stream>>>(result, 3); }},
      {"many threads", [&] { left_kernel<<<1, 2048, 0, stream>>>(result, 3); }},
      {"counted", [&] { counted_kernel<<<1, N_THREADS, 0, stream>>>(result); }},
      {"past the end of memory",
       [&] {
         std::vector<float> few(N_THREADS - 1);
         reversed_kernel<<<1, N_THREADS, 0, stream>>>(true, numbers, few.data());
       }},
      {"past the end of shared memory", [&] { dynamic_kernel<<<1, N_THREADS, N_THREADS - 1, stream>>>(result); }},
      {"dynamic memory", [&] { dynamic_kernel<<<1, N_THREADS, 48 * 1024, stream>>>(result); }},
      {"much dynamic memory", [&] { dynamic_kernel<<<1, N_THREADS, 49 * 1024, stream>>>(result); }},
      {"much static memory", [&] { large_kernel<<<1, N_THREADS, 0, stream>>>(result); }},
      {"sent", [&] { sent_kernel<<<1, N_THREADS, 0, stream>>>(true, true, 2 * N_THREADS, numbers, result); }},
      {"sent without waiting",
       [&] { sent_kernel<<<1, N_THREADS, 0, stream>>>(true, false, 2 * N_THREADS, numbers, result); }},
      {"arrived twice", [&] { sent_kernel<<<1, N_THREADS, 0, stream>>>(true, true, 99, numbers, result, 2); }},
      {"sent away", [&] { sent_away_kernel<<<1, N_THREADS, 0, stream>>>(result); }},
      {"sent too little", [&] { sent_kernel<<<1, N_THREADS, 0, stream>>>(true, true, 999, numbers, result); }},
      {"sent to nobody", [&] { sent_kernel<<<1, N_THREADS, 0, stream>>>(false, true, 0, numbers, result); }},
      {"a square off a boundary", [&] { square_kernel<<<1, 32, 0, stream>>>(numbers); }},
  };
  try {
    launches.at(name)();
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 0;
  }
  for (const float number : result) {
    std::printf("%g ", number);
  }
  return 0;
}
