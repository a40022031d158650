// attention_pool on CUDA: tensors to pointers, and launches that depend on shapes alone. Nothing waits for the device.

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <type_traits>

#include "attention_pool_kernel.cuh"

namespace serfast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

Tensor dense(const Tensor& tensor) { return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor); }

std::optional<Tensor> dense(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(dense(*tensor)) : std::nullopt;
}

template <typename scalar_t>
const scalar_t* pointer(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr<scalar_t>() : nullptr;
}

template <typename scalar_t>
scalar_t* pointer_if_any(const Tensor& tensor) {
  return tensor.numel() > 0 ? tensor.mutable_data_ptr<scalar_t>() : nullptr;
}

// The arguments that forward and backward share, dense, and the pointers into them.
struct Arguments {
  Tensor hidden;                    // (row, unit)
  Tensor first_rows;                // (batch)
  Tensor lengths;                   // (batch)
  std::optional<Tensor> query;      // (unit) or (attention)
  std::optional<Tensor> projected;  // (row, attention)
  std::optional<Tensor> seeds;      // (batch)
  int64_t dropout_threshold;

  template <typename scalar_t>
  AttentionPoolInputs<scalar_t> inputs() const {
    return {hidden.const_data_ptr<scalar_t>(),  pointer<scalar_t>(query),
            pointer<scalar_t>(projected),       hidden.size(1),
            projected ? projected->size(1) : 0, static_cast<uint32_t>(dropout_threshold)};
  }

  Layout layout() const {
    return {
        first_rows.const_data_ptr<int64_t>(), lengths.const_data_ptr<int64_t>(), pointer<int64_t>(seeds),
        lengths.numel(), hidden.size(0)};
  }

  unsigned n_blocks() const { return static_cast<unsigned>(lengths.numel()); }
};

// Calls launch(score, dropout) with both as integral constants.
template <typename Launch>
void with_score(Score score, bool dropout, const Launch& launch) {
  const auto with_dropout = [&](auto kind) {
    dropout ? launch(kind, std::true_type()) : launch(kind, std::false_type());
  };
  switch (score) {
    case Score::uniform:
      return with_dropout(std::integral_constant<Score, Score::uniform>());
    case Score::query:
      return with_dropout(std::integral_constant<Score, Score::query>());
    case Score::projected:
      return with_dropout(std::integral_constant<Score, Score::projected>());
  }
}

template <typename scalar_t>
std::tuple<Tensor, Tensor> forward(const Arguments& arguments) {
  const AttentionPoolInputs<scalar_t> inputs = arguments.inputs<scalar_t>();
  Tensor context = torch::stable::new_empty(arguments.hidden, {arguments.lengths.numel(), inputs.n_units});
  Tensor attention_weights = torch::stable::new_empty(arguments.hidden, {arguments.hidden.size(0)});
  const cudaStream_t stream = current_stream(arguments.hidden);
  with_score(inputs.score(), inputs.dropout_threshold > 0, [&](auto score, auto dropout) {
    attention_pool_kernel<scalar_t, score(), dropout()><<<arguments.n_blocks(), BLOCK_THREADS, 0, stream>>>(
        inputs, arguments.layout(), context.mutable_data_ptr<scalar_t>(),
        attention_weights.mutable_data_ptr<scalar_t>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {context, attention_weights};
}

// Fills the gradients that are not null, and grad_query where it is needed.
template <typename scalar_t>
void backward(const Arguments& arguments, const AttentionPoolGradients<scalar_t>& gradients, const Tensor& grad_query) {
  const AttentionPoolInputs<scalar_t> inputs = arguments.inputs<scalar_t>();
  const int64_t n_query = grad_query.numel();
  const Tensor parts = torch::stable::new_empty(arguments.hidden, {arguments.lengths.numel(), n_query});
  const cudaStream_t stream = current_stream(arguments.hidden);
  with_score(inputs.score(), inputs.dropout_threshold > 0, [&](auto score, auto dropout) {
    attention_pool_backward_kernel<scalar_t, score(), dropout()><<<arguments.n_blocks(), BLOCK_THREADS, 0, stream>>>(
        inputs, gradients, arguments.layout(), n_query, pointer_if_any<scalar_t>(parts));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  if (n_query > 0) {
    const unsigned n_blocks = static_cast<unsigned>((n_query + BLOCK_THREADS - 1) / BLOCK_THREADS);
    sum_parts_kernel<scalar_t><<<n_blocks, BLOCK_THREADS, 0, stream>>>(
        parts.const_data_ptr<scalar_t>(), arguments.lengths.numel(), n_query, grad_query.mutable_data_ptr<scalar_t>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

std::tuple<Tensor, Tensor> attention_pool(
    const Tensor& hidden,                    // (row, unit)
    const Tensor& first_rows,                // (batch)
    const Tensor& lengths,                   // (batch)
    const std::optional<Tensor>& query,      // (unit) or (attention)
    const std::optional<Tensor>& projected,  // (row, attention)
    const std::optional<Tensor>& seeds,      // (batch)
    int64_t dropout_threshold,
    int64_t /*max_length*/) {
  const torch::stable::accelerator::DeviceGuard guard(hidden.get_device_index());
  const Arguments arguments = {dense(hidden),    dense(first_rows), dense(lengths),   dense(query),
                               dense(projected), dense(seeds),      dropout_threshold};
  return hidden.scalar_type() == ScalarType::Double ? forward<double>(arguments) : forward<float>(arguments);
}

std::tuple<Tensor, Tensor, Tensor> attention_pool_backward(
    const Tensor& grad_context,                           // (batch, unit)
    const std::optional<Tensor>& grad_attention_weights,  // (row)
    const Tensor& hidden,                                 // (row, unit)
    const Tensor& first_rows,                             // (batch)
    const Tensor& lengths,                                // (batch)
    const std::optional<Tensor>& query,                   // (unit) or (attention)
    const std::optional<Tensor>& projected,               // (row, attention)
    const std::optional<Tensor>& seeds,                   // (batch)
    const Tensor& context,                                // (batch, unit)
    const Tensor& attention_weights,                      // (row)
    int64_t dropout_threshold,
    int64_t /*max_length*/,
    bool needs_hidden,
    bool needs_query,
    bool needs_projected) {
  const torch::stable::accelerator::DeviceGuard guard(hidden.get_device_index());
  const Arguments arguments = {dense(hidden),    dense(first_rows), dense(lengths),   dense(query),
                               dense(projected), dense(seeds),      dropout_threshold};
  const Tensor slope = dense(grad_context);
  const std::optional<Tensor> weight_slope = dense(grad_attention_weights);
  const auto gradient_of = [&](const Tensor& tensor, bool is_needed) {
    return is_needed ? torch::stable::new_empty(hidden, tensor.sizes()) : torch::stable::new_empty(hidden, {0});
  };
  const Tensor grad_hidden = gradient_of(hidden, needs_hidden);
  const Tensor grad_query = gradient_of(query ? *query : hidden, needs_query);
  const Tensor grad_projected = gradient_of(projected ? *projected : hidden, needs_projected);
  const auto run = [&](auto zero) {
    using scalar_t = decltype(zero);
    const AttentionPoolGradients<scalar_t> gradients = {
        context.const_data_ptr<scalar_t>(),    attention_weights.const_data_ptr<scalar_t>(),
        slope.const_data_ptr<scalar_t>(),      pointer<scalar_t>(weight_slope),
        pointer_if_any<scalar_t>(grad_hidden), pointer_if_any<scalar_t>(grad_projected)};
    backward(arguments, gradients, grad_query);
  };
  hidden.scalar_type() == ScalarType::Double ? run(double()) : run(float());
  return {grad_hidden, grad_query, grad_projected};
}

STABLE_TORCH_LIBRARY_IMPL(serfast, CUDA, library) {
  library.impl("attention_pool", TORCH_BOX(&attention_pool));
  library.impl("attention_pool_backward", TORCH_BOX(&attention_pool_backward));
}

}  // namespace
}  // namespace serfast
