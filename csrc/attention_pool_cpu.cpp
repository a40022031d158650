// attention_pool on the CPU: tensors to pointers, utterances to chunks, chunks to threads.

#include "attention_pool_cpu.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <tuple>
#include <vector>

#include "cpu_capability.h"
#include "vector.h"

#define SERFAST_KERNEL "attention_pool_kernel.inl"
#include "for_each_isa.inl"

namespace serfast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Numbers one thread must have to work on before another is worth waking.
constexpr int64_t NUMBERS_PER_THREAD = 32768;
// Numbers of the query's gradient that are summed over the chunks together.
constexpr int64_t SUM_BLOCK = 16;

template <typename scalar_t>
const AttentionPoolKernels<scalar_t>& kernels() {
#if defined(__x86_64__)
  switch (cpu_capability()) {
    case CpuCapability::avx512:
      return avx512::Kernels<scalar_t>::table;
    case CpuCapability::avx2:
      return avx2::Kernels<scalar_t>::table;
    default:
      break;
  }
#endif
  return generic::Kernels<scalar_t>::table;
}

// The chunks of all utterances in order.
struct Plan {
  std::vector<Utterance> utterances;
  std::vector<int64_t> first_chunks;  // (batch + 1), where each utterance's chunks start
  std::vector<Chunk> chunks;
  std::vector<int64_t> first_frames;  // (chunk + 1), frames of all chunks before

  Plan(const Tensor& first_rows, const Tensor& lengths, const std::optional<Tensor>& seeds, int64_t n_rows) {
    const int64_t* seed = seeds ? seeds->const_data_ptr<int64_t>() : nullptr;
    first_frames.push_back(0);
    for (int64_t index = 0; index < lengths.numel(); ++index) {
      const Utterance utterance = utterance_within_rows(
          first_rows.const_data_ptr<int64_t>(), lengths.const_data_ptr<int64_t>(), index, lengths.numel(), n_rows);
      utterances.push_back(utterance);
      first_chunks.push_back(static_cast<int64_t>(chunks.size()));
      for (int64_t frame = 0; frame < utterance.n_frames; frame += CHUNK_FRAMES) {
        const int64_t n_frames = std::min(CHUNK_FRAMES, utterance.n_frames - frame);
        chunks.push_back(
            {index, utterance.first_row + frame, frame, n_frames,
             seed == nullptr ? 0 : static_cast<uint64_t>(seed[index])});
        first_frames.push_back(first_frames.back() + n_frames);
      }
    }
    first_chunks.push_back(static_cast<int64_t>(chunks.size()));
  }

  int64_t n_chunks() const { return static_cast<int64_t>(chunks.size()); }

  // Calls work(chunk index) for every chunk, each thread taking neighbouring chunks with its share of the frames.
  template <typename Work>
  void for_each_chunk(int64_t numbers_per_frame, const Work& work) const {
    const int64_t frames_per_thread = std::max<int64_t>(1, NUMBERS_PER_THREAD / numbers_per_frame);
    torch::stable::parallel_for(0, first_frames.back(), frames_per_thread, [&](int64_t begin, int64_t end) {
      const auto first = std::lower_bound(first_frames.begin(), first_frames.end() - 1, begin);
      for (auto chunk = first; chunk != first_frames.end() - 1 && *chunk < end; ++chunk) {
        work(chunk - first_frames.begin());
      }
    });
  }
};

Tensor dense(const Tensor& tensor) { return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor); }

std::optional<Tensor> dense(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(dense(*tensor)) : std::nullopt;
}

template <typename scalar_t>
const scalar_t* pointer(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr<scalar_t>() : nullptr;
}

template <typename scalar_t>
AttentionPoolInputs<scalar_t> inputs_of(
    const Tensor& hidden,
    const std::optional<Tensor>& query,
    const std::optional<Tensor>& projected,
    int64_t dropout_threshold) {
  return {hidden.const_data_ptr<scalar_t>(),  pointer<scalar_t>(query),
          pointer<scalar_t>(projected),       hidden.size(1),
          projected ? projected->size(1) : 0, static_cast<uint32_t>(dropout_threshold)};
}

// Zeroes the rows of no utterance: those before the first and those between one's end and the next one's start.
template <typename scalar_t>
void zero_gaps(
    const Plan& plan,
    int64_t width,
    scalar_t* rows) {  // (row, width)
  const auto zero = [&](int64_t begin, int64_t end) {
    if (begin < end) {
      std::memset(rows + begin * width, 0, (end - begin) * width * sizeof(scalar_t));
    }
  };
  zero(0, plan.utterances.front().first_row);
  for (const Utterance& utterance : plan.utterances) {
    zero(utterance.first_row + utterance.n_frames, utterance.next_row);
  }
}

template <typename scalar_t>
std::tuple<Tensor, Tensor> forward(
    const AttentionPoolInputs<scalar_t>& inputs, const Plan& plan, const Tensor& hidden) {
  const int64_t n_utterances = static_cast<int64_t>(plan.utterances.size());
  Tensor context = torch::stable::new_empty(hidden, {n_utterances, inputs.n_units});
  Tensor attention_weights = torch::stable::new_empty(hidden, {hidden.size(0)});
  Tensor chunk_contexts = torch::stable::new_empty(hidden, {plan.n_chunks(), inputs.n_units});
  std::vector<SoftmaxSum<scalar_t>> chunk_softmax(plan.chunks.size());
  scalar_t* weights = attention_weights.mutable_data_ptr<scalar_t>();
  scalar_t* partial = chunk_contexts.mutable_data_ptr<scalar_t>();
  const AttentionPoolKernels<scalar_t>& kernel = kernels<scalar_t>();
  plan.for_each_chunk(inputs.n_units + inputs.n_attention, [&](int64_t chunk) {
    kernel.pool_chunk(inputs, plan.chunks[chunk], weights, partial + chunk * inputs.n_units, chunk_softmax[chunk]);
  });
  for (int64_t index = 0; index < n_utterances; ++index) {
    const int64_t first = plan.first_chunks[index];
    kernel.join_chunks(
        inputs, partial + first * inputs.n_units, chunk_softmax.data() + first, plan.first_chunks[index + 1] - first,
        plan.utterances[index].n_frames, weights + plan.utterances[index].first_row,
        context.mutable_data_ptr<scalar_t>() + index * inputs.n_units);
  }
  zero_gaps(plan, 1, weights);
  return {context, attention_weights};
}

// Sum over the chunks in order, in double: there may be thousands.
template <typename scalar_t>
void sum_chunks(
    const scalar_t* parts,  // (chunk, width)
    int64_t n_chunks,
    int64_t width,
    scalar_t* sums) {  // (width)
  for (int64_t first = 0; first < width; first += SUM_BLOCK) {
    const int64_t n_left = std::min(SUM_BLOCK, width - first);
    double block[SUM_BLOCK] = {};
    for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
      for (int64_t i = 0; i < n_left; ++i) {
        block[i] += static_cast<double>(parts[chunk * width + first + i]);
      }
    }
    std::copy(block, block + n_left, sums + first);
  }
}

template <typename scalar_t>
std::vector<scalar_t> deltas(
    const AttentionPoolInputs<scalar_t>& inputs, const AttentionPoolGradients<scalar_t>& gradients, const Plan& plan) {
  std::vector<scalar_t> values(plan.utterances.size());
  for (size_t index = 0; index < values.size(); ++index) {
    const Utterance& utterance = plan.utterances[index];
    const scalar_t* grad_weights = gradients.grad_attention_weights;
    values[index] = kernels<scalar_t>().delta(
        gradients.context + index * inputs.n_units, gradients.grad_context + index * inputs.n_units, inputs.n_units,
        gradients.attention_weights + utterance.first_row,
        grad_weights == nullptr ? nullptr : grad_weights + utterance.first_row, utterance.n_frames);
  }
  return values;
}

// Fills the gradients that are not null, and grad_query where it is needed.
template <typename scalar_t>
void backward(
    const AttentionPoolInputs<scalar_t>& inputs,
    const AttentionPoolGradients<scalar_t>& gradients,
    const Plan& plan,
    const Tensor& hidden,
    Tensor& grad_query) {
  const bool needs_query = grad_query.numel() > 0;
  const int64_t n_query = grad_query.numel();
  Tensor parts = torch::stable::new_zeros(hidden, {needs_query ? plan.n_chunks() : 0, n_query});
  scalar_t* part = parts.mutable_data_ptr<scalar_t>();
  const std::vector<scalar_t> delta = deltas(inputs, gradients, plan);
  plan.for_each_chunk(inputs.n_units + inputs.n_attention, [&](int64_t chunk) {
    kernels<scalar_t>().backward_chunk(
        inputs, gradients, plan.chunks[chunk], delta[plan.chunks[chunk].utterance],
        needs_query ? part + chunk * n_query : nullptr);
  });
  if (needs_query) {
    sum_chunks(part, plan.n_chunks(), n_query, grad_query.mutable_data_ptr<scalar_t>());
  }
  if (gradients.grad_hidden != nullptr) {
    zero_gaps(plan, inputs.n_units, gradients.grad_hidden);
  }
  if (gradients.grad_projected != nullptr) {
    zero_gaps(plan, inputs.n_attention, gradients.grad_projected);
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
  const Tensor rows = dense(hidden);
  const std::optional<Tensor> vector = dense(query);
  const std::optional<Tensor> projected_rows = dense(projected);
  const Plan plan(dense(first_rows), dense(lengths), dense(seeds), hidden.size(0));
  if (hidden.scalar_type() == ScalarType::Double) {
    return forward(inputs_of<double>(rows, vector, projected_rows, dropout_threshold), plan, rows);
  }
  return forward(inputs_of<float>(rows, vector, projected_rows, dropout_threshold), plan, rows);
}

template <typename scalar_t>
AttentionPoolGradients<scalar_t> gradients_of(
    const Tensor& context,
    const Tensor& attention_weights,
    const Tensor& grad_context,
    const std::optional<Tensor>& grad_attention_weights,
    const Tensor& grad_hidden,
    const Tensor& grad_projected) {
  return {
      context.const_data_ptr<scalar_t>(),
      attention_weights.const_data_ptr<scalar_t>(),
      grad_context.const_data_ptr<scalar_t>(),
      pointer<scalar_t>(grad_attention_weights),
      grad_hidden.numel() > 0 ? grad_hidden.mutable_data_ptr<scalar_t>() : nullptr,
      grad_projected.numel() > 0 ? grad_projected.mutable_data_ptr<scalar_t>() : nullptr};
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
  const Tensor rows = dense(hidden);
  const std::optional<Tensor> vector = dense(query);
  const std::optional<Tensor> projected_rows = dense(projected);
  const Tensor slope = dense(grad_context);
  const std::optional<Tensor> weight_slope = dense(grad_attention_weights);
  const Plan plan(dense(first_rows), dense(lengths), dense(seeds), hidden.size(0));
  const auto gradient_of = [&](const Tensor& tensor, bool is_needed) {
    return is_needed ? torch::stable::new_empty(rows, tensor.sizes()) : torch::stable::new_empty(rows, {0});
  };
  Tensor grad_hidden = gradient_of(hidden, needs_hidden);
  Tensor grad_query = gradient_of(query ? *query : hidden, needs_query);
  Tensor grad_projected = gradient_of(projected ? *projected : hidden, needs_projected);
  const auto run = [&](auto zero) {
    using scalar_t = decltype(zero);
    backward(
        inputs_of<scalar_t>(rows, vector, projected_rows, dropout_threshold),
        gradients_of<scalar_t>(context, attention_weights, slope, weight_slope, grad_hidden, grad_projected), plan,
        rows, grad_query);
  };
  hidden.scalar_type() == ScalarType::Double ? run(double()) : run(float());
  return {grad_hidden, grad_query, grad_projected};
}

STABLE_TORCH_LIBRARY_IMPL(serfast, CPU, library) {
  library.impl("attention_pool", TORCH_BOX(&attention_pool));
  library.impl("attention_pool_backward", TORCH_BOX(&attention_pool_backward));
}

}  // namespace
}  // namespace serfast
