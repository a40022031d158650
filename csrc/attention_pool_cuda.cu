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

// Calls launch(octets of a lane, score, dropout, aligned) with integral constants. The row's width alone decides on the
// first and the last: they change the order of sums.
template <typename Launch>
void with_variant(int64_t widest, Score score, bool dropout, bool aligned, const Launch& launch) {
  using Most = std::integral_constant<int, MOST_OCTETS>;
  const auto with_octets = [&](auto kind, auto drops) {
    if (!aligned) {
      return launch(Most(), kind, drops, std::false_type());
    }
    if (widest <= WARP_THREADS * OCTET) {
      return launch(std::integral_constant<int, 1>(), kind, drops, std::true_type());
    }
    return launch(Most(), kind, drops, std::true_type());
  };
  const auto with_dropout = [&](auto kind) {
    dropout ? with_octets(kind, std::true_type()) : with_octets(kind, std::false_type());
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

unsigned blocks_for(int64_t n_threads) { return static_cast<unsigned>((n_threads + JOIN_THREADS - 1) / JOIN_THREADS); }

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

  // Numbers of a hidden vector, or of a projected one where those have more.
  int64_t widest() const {
    return projected && projected->size(1) > hidden.size(1) ? projected->size(1) : hidden.size(1);
  }

  // A warp per slot and per slice of the widest rows.
  dim3 chunk_blocks(int octets) const {
    const int64_t slice = octets * WARP_THREADS * OCTET;
    return dim3(
        static_cast<unsigned>((layout().n_slots() + BLOCK_WARPS - 1) / BLOCK_WARPS),
        static_cast<unsigned>((widest() + slice - 1) / slice));
  }

  // Whether all rows are whole 16-byte pieces.
  bool aligned() const {
    const int64_t piece = LOAD_BYTES / static_cast<int64_t>(hidden.element_size());
    return hidden.size(1) % piece == 0 && (!projected || projected->size(1) % piece == 0);
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
  with_variant(
      arguments.widest(), inputs.score(), inputs.dropout_threshold > 0, arguments.aligned(),
      [&](auto octets, auto score, auto dropout, auto aligned) {
        const dim3 blocks = arguments.chunk_blocks(octets());
        attention_pool_kernel<scalar_t, octets(), score(), dropout(), aligned()>
            <<<blocks, BLOCK_THREADS, 0, stream>>>(inputs, layout, parts, weights);
        STD_CUDA_KERNEL_LAUNCH_CHECK();
      });
  join_chunks_kernel<<<dim3(arguments.n_utterances(), blocks_for(inputs.n_units)), JOIN_THREADS, 0, stream>>>(
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
  const dim3 blocks(blocks_for(width), SUM_RUNS, static_cast<unsigned>(arguments.n_groups()));
  sum_run_kernel<<<blocks, JOIN_THREADS, 0, stream>>>(
      parts, groups, arguments.layout().n_slots(), width, run_sums.mutable_data_ptr<double>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  sum_runs_kernel<<<blocks_for(grad_query.numel()), JOIN_THREADS, 0, stream>>>(
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
  const Tensor weight_slopes =
      new_sums(arguments.hidden, {gradients.grad_attention_weights != nullptr ? layout.n_utterances : 0});
  const Tensor query_parts = new_sums(arguments.hidden, {n_slots, inputs.n_scored()});
  const Tensor groups = torch::stable::new_empty(arguments.hidden, {n_slots}, ScalarType::Long);
  const ChunkParts<scalar_t> parts = {
      nullptr, nullptr, nullptr, pointer_if_any<sum_t>(query_parts), pointer_if_any<int64_t>(groups)};
  sum_t* slopes = pointer_if_any<sum_t>(weight_slopes);
  const cudaStream_t stream = current_stream(arguments.hidden);
  if (slopes != nullptr) {
    weight_slope_kernel<<<arguments.n_utterances(), JOIN_THREADS, 0, stream>>>(gradients, layout, slopes);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  with_variant(
      arguments.widest(), inputs.score(), inputs.dropout_threshold > 0, arguments.aligned(),
      [&](auto octets, auto score, auto dropout, auto aligned) {
        const dim3 blocks = arguments.chunk_blocks(octets());
        attention_pool_backward_kernel<scalar_t, octets(), score(), dropout(), aligned()>
            <<<blocks, BLOCK_THREADS, 0, stream>>>(inputs, gradients, layout, parts, slopes);
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
  const Arguments arguments = {on_boundary(hidden),    dense(first_rows), dense(lengths), on_boundary(query),
                               on_boundary(projected), dense(seeds),      dense(groups),  dropout_threshold};
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
  const Arguments arguments = {on_boundary(hidden),    dense(first_rows), dense(lengths), on_boundary(query),
                               on_boundary(projected), dense(seeds),      dense(groups),  dropout_threshold};
  const Tensor slope = on_boundary(grad_context);
  const Tensor pooled = on_boundary(context);
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
        pointer<sum_t>(pooled),       pointer<sum_t>(attention_weights),     pointer<sum_t>(slope),
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
