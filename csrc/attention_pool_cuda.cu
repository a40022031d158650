// attention_pool on CUDA: tensors to pointers, and launches that depend on shapes alone. Nothing waits for the device.

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>
#include <type_traits>

#include "attention_pool_backward.cuh"
#include "tensors.h"

namespace serfast {
namespace {

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// Calls launch(score, dropout, aligned) with all three as integral constants.
template <typename Launch>
void with_variant(Score score, bool dropout, bool aligned, const Launch& launch) {
  const auto with_alignment = [&](auto kind, auto drops) {
    aligned ? launch(kind, drops, std::true_type()) : launch(kind, drops, std::false_type());
  };
  const auto with_dropout = [&](auto kind) {
    dropout ? with_alignment(kind, std::true_type()) : with_alignment(kind, std::false_type());
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

// The arguments that forward and backward share, dense, and the pointers into them.
struct Arguments {
  Tensor hidden;                    // (row, unit)
  Tensor first_rows;                // (batch)
  Tensor lengths;                   // (batch)
  std::optional<Tensor> query;      // (unit) or (attention), behind (group) where there are groups
  std::optional<Tensor> projected;  // (row, attention)
  std::optional<Tensor> seeds;      // (batch)
  std::optional<Tensor> groups;     // (batch)
  int64_t dropout_threshold;

  template <typename scalar_t>
  AttentionPoolInputs<scalar_t> inputs() const {
    return {pointer<scalar_t>(hidden),          pointer<SumType<scalar_t>>(query),
            pointer<scalar_t>(projected),       hidden.size(1),
            projected ? projected->size(1) : 0, static_cast<uint32_t>(dropout_threshold)};
  }

  int64_t n_groups() const { return query && query->dim() == 2 ? query->size(0) : 1; }

  Layout layout() const {
    return {
        pointer<int64_t>(first_rows),
        pointer<int64_t>(lengths),
        pointer<int64_t>(seeds),
        pointer<int64_t>(groups),
        lengths.numel(),
        hidden.size(0),
        n_groups()};
  }

  unsigned n_utterances() const { return static_cast<unsigned>(lengths.numel()); }

  // A block per slot and per slice of the units; where there are more numbers to score by, per slice of those.
  dim3 chunk_blocks() const {
    const int64_t n_attention = projected ? projected->size(1) : 0;
    const int64_t widest = hidden.size(1) > n_attention ? hidden.size(1) : n_attention;
    constexpr int64_t slice = int64_t(BLOCK_THREADS) * OCTET;
    return dim3(static_cast<unsigned>(layout().n_slots()), static_cast<unsigned>((widest + slice - 1) / slice));
  }

  // Whether all rows are whole octets on 16-byte boundaries.
  bool aligned(const void* grad_context) const {
    return hidden.size(1) % OCTET == 0 && (!projected || projected->size(1) % OCTET == 0) &&
           is_aligned(hidden.const_data_ptr()) && is_aligned(pointer<char>(query)) &&
           is_aligned(pointer<char>(projected)) && is_aligned(grad_context);
  }
};

template <typename scalar_t>
std::tuple<Tensor, Tensor> forward(const Arguments& arguments) {
  using sum_t = SumType<scalar_t>;
  const AttentionPoolInputs<scalar_t> inputs = arguments.inputs<scalar_t>();
  const Layout layout = arguments.layout();
  const Tensor context = new_sums(arguments.hidden, {layout.n_utterances, inputs.n_units});
  const Tensor attention_weights = new_sums(arguments.hidden, {layout.n_rows});
  const Tensor contexts = new_sums(arguments.hidden, {layout.n_slots(), inputs.n_units});
  const Tensor softmax = new_sums(arguments.hidden, {2, layout.n_slots()});
  sum_t* maxima = softmax.mutable_data_ptr<sum_t>();
  const ChunkParts<scalar_t> parts = {
      contexts.mutable_data_ptr<sum_t>(), maxima, maxima + layout.n_slots(), nullptr, nullptr};
  sum_t* weights = attention_weights.mutable_data_ptr<sum_t>();
  const cudaStream_t stream = current_stream(arguments.hidden);
  const bool aligned = arguments.aligned(nullptr);
  with_variant(inputs.score(), inputs.dropout_threshold > 0, aligned, [&](auto score, auto dropout, auto whole) {
    attention_pool_kernel<scalar_t, score(), dropout(), whole()>
        <<<arguments.chunk_blocks(), BLOCK_THREADS, 0, stream>>>(inputs, layout, parts, weights);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  join_chunks_kernel<<<arguments.n_utterances(), BLOCK_THREADS, 0, stream>>>(
      inputs, layout, parts, context.mutable_data_ptr<sum_t>(), weights);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {context, attention_weights};
}

// The query's gradient, (group, width), from what each slot brings to it.
template <typename sum_t>
void sum_slots(
    const Arguments& arguments, const sum_t* parts, const int64_t* groups, int64_t width, const Tensor& grad_query) {
  const cudaStream_t stream = current_stream(arguments.hidden);
  const Tensor run_sums =
      torch::stable::new_empty(arguments.hidden, {SUM_RUNS, grad_query.numel()}, ScalarType::Double);
  const auto blocks_for = [](int64_t n) { return static_cast<unsigned>((n + BLOCK_THREADS - 1) / BLOCK_THREADS); };
  const dim3 blocks(blocks_for(width), SUM_RUNS, static_cast<unsigned>(arguments.n_groups()));
  sum_run_kernel<<<blocks, BLOCK_THREADS, 0, stream>>>(
      parts, groups, arguments.layout().n_slots(), width, run_sums.mutable_data_ptr<double>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  sum_runs_kernel<<<blocks_for(grad_query.numel()), BLOCK_THREADS, 0, stream>>>(
      run_sums.const_data_ptr<double>(), grad_query.numel(), grad_query.mutable_data_ptr<sum_t>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

// Fills the gradients that are not null, and grad_query where it is needed.
template <typename scalar_t>
void backward(const Arguments& arguments, const AttentionPoolGradients<scalar_t>& gradients, const Tensor& grad_query) {
  using sum_t = SumType<scalar_t>;
  const AttentionPoolInputs<scalar_t> inputs = arguments.inputs<scalar_t>();
  const Layout layout = arguments.layout();
  const int64_t n_slots = grad_query.numel() > 0 ? layout.n_slots() : 0;
  const Tensor deltas = new_sums(arguments.hidden, {layout.n_utterances});
  const Tensor query_parts = new_sums(arguments.hidden, {n_slots, inputs.n_scored()});
  const Tensor groups = torch::stable::new_empty(arguments.hidden, {n_slots}, ScalarType::Long);
  const ChunkParts<scalar_t> parts = {
      nullptr, nullptr, nullptr, pointer_if_any<sum_t>(query_parts), pointer_if_any<int64_t>(groups)};
  const cudaStream_t stream = current_stream(arguments.hidden);
  delta_kernel<<<arguments.n_utterances(), BLOCK_THREADS, 0, stream>>>(
      inputs, gradients, layout, deltas.mutable_data_ptr<sum_t>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  const bool aligned = arguments.aligned(gradients.grad_context);
  with_variant(inputs.score(), inputs.dropout_threshold > 0, aligned, [&](auto score, auto dropout, auto whole) {
    attention_pool_backward_kernel<scalar_t, score(), dropout(), whole()>
        <<<arguments.chunk_blocks(), BLOCK_THREADS, 0, stream>>>(
            inputs, gradients, layout, parts, deltas.const_data_ptr<sum_t>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  if (grad_query.numel() > 0) {
    sum_slots(arguments, parts.grad_query, parts.groups, inputs.n_scored(), grad_query);
  }
}

std::tuple<Tensor, Tensor> attention_pool(
    const Tensor& hidden,                    // (row, unit)
    const Tensor& first_rows,                // (batch)
    const Tensor& lengths,                   // (batch)
    const std::optional<Tensor>& query,      // (unit) or (attention), behind (group) where there are groups
    const std::optional<Tensor>& projected,  // (row, attention)
    const std::optional<Tensor>& seeds,      // (batch)
    const std::optional<Tensor>& groups,     // (batch)
    int64_t dropout_threshold) {
  const torch::stable::accelerator::DeviceGuard guard(hidden.get_device_index());
  const Arguments arguments = {dense(hidden),    dense(first_rows), dense(lengths), dense(query),
                               dense(projected), dense(seeds),      dense(groups),  dropout_threshold};
  return with_type_of(hidden, [&](auto zero) { return forward<decltype(zero)>(arguments); });
}

std::tuple<Tensor, Tensor, Tensor> attention_pool_backward(
    const Tensor& grad_context,                           // (batch, unit)
    const std::optional<Tensor>& grad_attention_weights,  // (row)
    const Tensor& hidden,                                 // (row, unit)
    const Tensor& first_rows,                             // (batch)
    const Tensor& lengths,                                // (batch)
    const std::optional<Tensor>& query,                   // (unit) or (attention), behind (group) with groups
    const std::optional<Tensor>& projected,               // (row, attention)
    const std::optional<Tensor>& seeds,                   // (batch)
    const std::optional<Tensor>& groups,                  // (batch)
    const Tensor& context,                                // (batch, unit)
    const Tensor& attention_weights,                      // (row)
    int64_t dropout_threshold,
    bool needs_hidden,
    bool needs_query,
    bool needs_projected) {
  const torch::stable::accelerator::DeviceGuard guard(hidden.get_device_index());
  const Arguments arguments = {dense(hidden),    dense(first_rows), dense(lengths), dense(query),
                               dense(projected), dense(seeds),      dense(groups),  dropout_threshold};
  const Tensor slope = dense(grad_context);
  const std::optional<Tensor> weight_slope = dense(grad_attention_weights);
  const auto gradient_of = [](const Tensor& tensor, bool is_needed) {
    return is_needed ? torch::stable::new_empty(tensor, tensor.sizes()) : torch::stable::new_empty(tensor, {0});
  };
  const Tensor grad_hidden = gradient_of(hidden, needs_hidden);
  const Tensor grad_query = gradient_of(query ? *query : context, needs_query);
  const Tensor grad_projected = gradient_of(projected ? *projected : hidden, needs_projected);
  with_type_of(hidden, [&](auto zero) {
    using scalar_t = decltype(zero);
    using sum_t = SumType<scalar_t>;
    const AttentionPoolGradients<scalar_t> gradients = {
        pointer<sum_t>(context),      pointer<sum_t>(attention_weights),     pointer<sum_t>(slope),
        pointer<sum_t>(weight_slope), pointer_if_any<scalar_t>(grad_hidden), pointer_if_any<scalar_t>(grad_projected)};
    backward(arguments, gradients, grad_query);
  });
  return {grad_hidden, grad_query, grad_projected};
}

STABLE_TORCH_LIBRARY_IMPL(serfast, CUDA, library) {
  library.impl("attention_pool", TORCH_BOX(&attention_pool));
  library.impl("attention_pool_backward", TORCH_BOX(&attention_pool_backward));
}

}  // namespace
}  // namespace serfast
