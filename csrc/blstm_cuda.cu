// blstm on CUDA: tensors to pointers, and launches that depend on shapes alone. Nothing waits for the device.

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <type_traits>

#include "blstm_cluster_kernel.cuh"
#include "blstm_kernel.cuh"
#include "blstm_tensor_backward.cuh"
#include "blstm_tensor_kernel.cuh"
#include "tensors.h"

namespace serfast {
namespace {

// Shared memory that a block of every device since sm_80 can have for its state, if it asks.
constexpr int64_t SHARED_BYTES = 96 * 1024;
// Code for devices with clusters, as cudaFuncAttributes counts it.
constexpr int CLUSTER_PTX_VERSION = 90;
// Blocks of the kernel that reorders the recurrent matrix.
constexpr unsigned PACK_BLOCKS = 256;

// The recurrent matrices as the two kernels read them, one after the other (2, group, direction, ...).
template <typename scalar_t>
Tensor packed(const Tensor& recurrent, cudaStream_t stream) {
  Tensor both = torch::stable::new_empty(recurrent, {2, recurrent.numel()});
  scalar_t* numbers = both.mutable_data_ptr<scalar_t>();
  blstm_pack_kernel<scalar_t><<<PACK_BLOCKS, BLSTM_THREADS, 0, stream>>>(
      recurrent.const_data_ptr<scalar_t>(), recurrent.size(0) * recurrent.size(1), recurrent.size(3), numbers,
      numbers + recurrent.numel());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return both;
}

template <typename Kernel>
void ask_for_shared_memory(Kernel kernel, int64_t n_bytes) {
  STD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(n_bytes)));
}

// Which kernels run a layer where their clusters fit. The batch does not decide.
enum class Kernels { SINGLE_BLOCKS, CLUSTERS, TENSOR_CORES };

Kernels kernels_of(const Tensor& recurrent, bool is_highest) {
  const int n_blocks = cluster_blocks(recurrent.size(3));
  if (recurrent.scalar_type() != ScalarType::Float || n_blocks > MOST_CLUSTER_BLOCKS) {
    return Kernels::SINGLE_BLOCKS;
  }
  // What the device runs: a newer one may have been given an older one's code, without clusters.
  cudaFuncAttributes code = {};
  STD_CUDA_CHECK(cudaFuncGetAttributes(&code, blstm_cluster_kernel));
  if (code.ptxVersion < CLUSTER_PTX_VERSION) {
    return Kernels::SINGLE_BLOCKS;
  }
  if (!is_highest) {
    return Kernels::TENSOR_CORES;
  }
  int device = 0;
  int most_bytes = 0;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&most_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  const int64_t n_bytes = std::max(cluster_bytes(n_blocks), cluster_backward_bytes(n_blocks));
  const bool fits = n_bytes + static_cast<int64_t>(sizeof(BlstmBlock<CLUSTER_TILE>)) <= most_bytes;
  return fits ? Kernels::CLUSTERS : Kernels::SINGLE_BLOCKS;
}

// Launches a kernel on clusters, where the device has room for one. Whether it has, which the batch does not decide.
template <typename Layer>
bool launch_clusters(
    void (*kernel)(Layer, BlstmBatch),
    const Layer& layer,
    const BlstmBatch& batch,
    int n_threads,
    int64_t n_bytes,
    cudaStream_t stream) {
  const unsigned n_blocks = cluster_blocks(layer.n_units);
  const unsigned n_tiles = static_cast<unsigned>(batch.n_tiles(CLUSTER_TILE));
  cudaLaunchAttribute shape = {};
  shape.id = cudaLaunchAttributeClusterDimension;
  shape.val.clusterDim.x = n_blocks;
  shape.val.clusterDim.y = 1;
  shape.val.clusterDim.z = 1;
  cudaLaunchConfig_t launch = {};
  launch.gridDim = dim3(n_tiles * n_blocks, static_cast<unsigned>(layer.n_directions));
  launch.blockDim = dim3(static_cast<unsigned>(n_threads));
  launch.dynamicSmemBytes = static_cast<size_t>(n_bytes);
  launch.stream = stream;
  launch.attrs = &shape;
  launch.numAttrs = 1;
  ask_for_shared_memory(kernel, n_bytes);
  int n_fitting = 0;
  STD_CUDA_CHECK(cudaOccupancyMaxActiveClusters(&n_fitting, kernel, &launch));
  if (n_fitting == 0) {
    return false;
  }
  STD_CUDA_CHECK(cudaLaunchKernelEx(&launch, kernel, layer, batch));
  return true;
}

// Returns launch(blocks of a cluster), called with an integral constant.
template <typename Launch>
bool with_cluster_blocks(int64_t n_units, const Launch& launch) {
  switch (cluster_blocks(n_units)) {
    case 1:
      return launch(std::integral_constant<int, 1>());
    case 2:
      return launch(std::integral_constant<int, 2>());
    case 4:
      return launch(std::integral_constant<int, 4>());
    default:
      return launch(std::integral_constant<int, MOST_CLUSTER_BLOCKS>());
  }
}

// Launches the float32 kernels on clusters. Whether there are some for the layer, and room for them.
bool run_on_clusters(Kernels kernels, const BlstmForward<float>& layer, const BlstmBatch& batch, cudaStream_t stream) {
  if (kernels == Kernels::CLUSTERS) {
    const int64_t n_bytes = cluster_bytes(cluster_blocks(layer.n_units));
    return launch_clusters(blstm_cluster_kernel, layer, batch, BLSTM_THREADS, n_bytes, stream);
  }
  if (kernels == Kernels::TENSOR_CORES) {
    return with_cluster_blocks(layer.n_units, [&](auto blocks) {
      return launch_clusters(
          blstm_tensor_kernel<blocks()>, layer, batch, FORWARD_THREADS, sizeof(ForwardMemory<blocks()>), stream);
    });
  }
  return false;
}

bool run_on_clusters(Kernels kernels, const BlstmBackward<float>& layer, const BlstmBatch& batch, cudaStream_t stream) {
  if (kernels == Kernels::CLUSTERS) {
    const int64_t n_bytes = cluster_backward_bytes(cluster_blocks(layer.n_units));
    return launch_clusters(blstm_cluster_backward_kernel, layer, batch, BLSTM_THREADS, n_bytes, stream);
  }
  if (kernels == Kernels::TENSOR_CORES) {
    return with_cluster_blocks(layer.n_units, [&](auto blocks) {
      using Memory = BackwardMemory<blocks()>;
      return launch_clusters(
          blstm_tensor_backward_kernel<blocks()>, layer, batch, Memory::n_threads, sizeof(Memory), stream);
    });
  }
  return false;
}

// Calls launch(tile size, grid, shared bytes) with the largest tile whose state fits into shared memory.
template <typename scalar_t, typename Launch>
void with_tile(const BlstmBatch& batch, int64_t n_directions, int64_t n_units, const Launch& launch) {
  const int64_t n_bytes = BLSTM_STATE_NUMBERS * n_units * static_cast<int64_t>(sizeof(scalar_t));
  const auto run = [&](auto tile) {
    const dim3 grid(static_cast<unsigned>(batch.n_tiles(tile)), static_cast<unsigned>(n_directions));
    launch(tile, grid, static_cast<size_t>(tile * n_bytes));
  };
  if (8 * n_bytes <= SHARED_BYTES) {
    run(std::integral_constant<int, 8>());
  } else if (2 * n_bytes <= SHARED_BYTES) {
    run(std::integral_constant<int, 2>());
  } else {
    STD_TORCH_CHECK(
        n_bytes <= SHARED_BYTES, "blstm must have at most ", SHARED_BYTES / (n_bytes / n_units), " units on CUDA, got ",
        n_units);
    run(std::integral_constant<int, 1>());
  }
}

// What a launch reads of a batch, dense.
struct Batch {
  Tensor first_rows;             // (batch)
  Tensor lengths;                // (batch)
  std::optional<Tensor> groups;  // (batch)

  BlstmBatch on(const Tensor& rows, const Tensor& recurrent, int64_t first_direction) const {
    return {
        pointer<int64_t>(first_rows),
        pointer<int64_t>(lengths),
        pointer<int64_t>(groups),
        lengths.numel(),
        rows.size(0),
        recurrent.size(0),
        first_direction};
  }
};

template <typename scalar_t>
std::tuple<Tensor, Tensor, Tensor> forward(
    const Tensor& projected, const Tensor& recurrent, const BlstmBatch& batch, bool is_highest, bool saves) {
  const int64_t n_directions = recurrent.size(1);
  const int64_t n_units = recurrent.size(3);
  const int64_t n_saved = saves ? projected.size(0) : 0;
  const cudaStream_t stream = current_stream(projected);
  Tensor hidden = torch::stable::new_empty(projected, {projected.size(0), n_directions * n_units});
  Tensor cell = torch::stable::new_empty(projected, {n_saved, n_directions * n_units});
  Tensor gates = torch::stable::new_empty(projected, {n_saved, projected.size(1)});
  BlstmForward<scalar_t> layer = {
      projected.const_data_ptr<scalar_t>(),
      recurrent.const_data_ptr<scalar_t>(),
      hidden.mutable_data_ptr<scalar_t>(),
      saves ? cell.mutable_data_ptr<scalar_t>() : nullptr,
      saves ? gates.mutable_data_ptr<scalar_t>() : nullptr,
      n_directions,
      n_units};
  if constexpr (std::is_same_v<scalar_t, float>) {
    if (run_on_clusters(kernels_of(recurrent, is_highest), layer, batch, stream)) {
      return {hidden, cell, gates};
    }
  }
  const Tensor matrices = packed<scalar_t>(recurrent, stream);
  layer.recurrent = matrices.const_data_ptr<scalar_t>();
  with_tile<scalar_t>(batch, n_directions, n_units, [&](auto tile, dim3 grid, size_t n_bytes) {
    const auto kernel = blstm_kernel<scalar_t, tile()>;
    ask_for_shared_memory(kernel, SHARED_BYTES);
    kernel<<<grid, BLSTM_THREADS, n_bytes, stream>>>(layer, batch);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {hidden, cell, gates};
}

std::tuple<Tensor, Tensor, Tensor> blstm_recurrence(
    const Tensor& projected,              // (row, direction * unit * gate)
    const Tensor& recurrent,              // (group, direction, gate * unit, unit)
    const Tensor& first_rows,             // (batch)
    const Tensor& lengths,                // (batch)
    const std::optional<Tensor>& groups,  // (batch)
    const std::optional<Tensor>&,         // what the gradient of `recurrent` needs on the CPU
    int64_t first_direction,
    bool is_highest,
    bool saves) {
  const torch::stable::accelerator::DeviceGuard guard(projected.get_device_index());
  const Tensor rows = on_boundary(projected);
  const Tensor matrices = dense(recurrent);
  const Batch own = {dense(first_rows), dense(lengths), dense(groups)};
  const BlstmBatch batch = own.on(rows, matrices, first_direction);
  return with_sum_type_of(
      projected, [&](auto zero) { return forward<decltype(zero)>(rows, matrices, batch, is_highest, saves); });
}

template <typename scalar_t>
Tensor backward(
    const Tensor& grad_hidden,
    const Tensor& recurrent,
    const Tensor& cell,
    const Tensor& gates,
    const BlstmBatch& batch,
    bool is_highest) {
  const int64_t n_directions = recurrent.size(1);
  const int64_t n_units = recurrent.size(3);
  const cudaStream_t stream = current_stream(gates);
  Tensor grad_projected = torch::stable::new_empty(gates, gates.sizes());
  BlstmBackward<scalar_t> layer = {
      grad_hidden.const_data_ptr<scalar_t>(),
      recurrent.const_data_ptr<scalar_t>(),
      cell.const_data_ptr<scalar_t>(),
      gates.const_data_ptr<scalar_t>(),
      grad_projected.mutable_data_ptr<scalar_t>(),
      n_directions,
      n_units};
  if constexpr (std::is_same_v<scalar_t, float>) {
    if (run_on_clusters(kernels_of(recurrent, is_highest), layer, batch, stream)) {
      return grad_projected;
    }
  }
  const Tensor matrices = packed<scalar_t>(recurrent, stream);
  layer.recurrent = matrices.const_data_ptr<scalar_t>() + recurrent.numel();
  with_tile<scalar_t>(batch, n_directions, n_units, [&](auto tile, dim3 grid, size_t n_bytes) {
    const auto kernel = blstm_backward_kernel<scalar_t, tile()>;
    ask_for_shared_memory(kernel, SHARED_BYTES);
    kernel<<<grid, BLSTM_THREADS, n_bytes, stream>>>(layer, batch);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad_projected;
}

Tensor blstm_recurrence_backward(
    const Tensor& grad_hidden,            // (row, direction * unit)
    const Tensor& recurrent,              // (group, direction, gate * unit, unit)
    const Tensor& first_rows,             // (batch)
    const Tensor& lengths,                // (batch)
    const std::optional<Tensor>& groups,  // (batch)
    const Tensor& cell,                   // (row, direction * unit)
    const Tensor& gates,                  // (row, direction * unit * gate)
    int64_t first_direction,
    bool is_highest) {
  const torch::stable::accelerator::DeviceGuard guard(gates.get_device_index());
  const Tensor slopes = dense(grad_hidden);
  const Tensor matrices = dense(recurrent);
  const Tensor saved = on_boundary(gates);
  const Batch own = {dense(first_rows), dense(lengths), dense(groups)};
  const BlstmBatch batch = own.on(saved, matrices, first_direction);
  return with_sum_type_of(saved, [&](auto zero) {
    return backward<decltype(zero)>(slopes, matrices, dense(cell), saved, batch, is_highest);
  });
}

STABLE_TORCH_LIBRARY_IMPL(serfast, CUDA, library) {
  library.impl("blstm_recurrence", TORCH_BOX(&blstm_recurrence));
  library.impl("blstm_recurrence_backward", TORCH_BOX(&blstm_recurrence_backward));
}

}  // namespace
}  // namespace serfast
