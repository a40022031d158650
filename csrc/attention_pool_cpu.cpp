// attention_pool on the CPU: tensors to pointers, utterances to chunks, chunks to threads.

#include "attention_pool_cpu.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <tuple>
#include <vector>

#include "cpu_capability.h"
#include "result_memory.h"
#include "tensors.h"
#include "vector.h"

namespace serfast {
namespace {

// Numbers one thread must have to work on before another is worth waking.
constexpr int64_t NUMBERS_PER_THREAD = 32768;
// Bytes of a gradient of the hidden vectors from which it leaves the caches before anyone reads it: written past them,
// it takes less time to write, and no more to read.
constexpr int64_t STREAM_BYTES = int64_t(8) << 20;
// Numbers of the query's gradient that are summed over the chunks together.
constexpr int64_t SUM_BLOCK = 16;

// The chunks of all utterances in order.
struct Plan {
  std::vector<Utterance> utterances;
  std::vector<int64_t> first_chunks;  // (batch + 1), where each utterance's chunks start
  std::vector<Chunk> chunks;
  std::vector<int64_t> first_frames;  // (chunk + 1), frames of all chunks before

  Plan(
      const Tensor& first_rows,             // (batch)
      const Tensor& lengths,                // (batch)
      const std::optional<Tensor>& seeds,   // (batch)
      const std::optional<Tensor>& groups,  // (batch)
      int64_t n_groups,
      int64_t n_rows) {
    const int64_t* seed = seeds ? seeds->const_data_ptr<int64_t>() : nullptr;
    const int64_t* group = groups ? groups->const_data_ptr<int64_t>() : nullptr;
    first_frames.push_back(0);
    for (int64_t index = 0; index < lengths.numel(); ++index) {
      const Utterance utterance = utterance_within_rows(
          first_rows.const_data_ptr<int64_t>(), lengths.const_data_ptr<int64_t>(), index, lengths.numel(), n_rows);
      utterances.push_back(utterance);
      first_chunks.push_back(static_cast<int64_t>(chunks.size()));
      for (int64_t frame = 0; frame < utterance.n_frames; frame += CHUNK_FRAMES) {
        const int64_t n_frames = std::min(CHUNK_FRAMES, utterance.n_frames - frame);
        chunks.push_back(
            {index, group == nullptr ? 0 : group_within(group[index], n_groups), utterance.first_row + frame, frame,
             n_frames, seed == nullptr ? 0 : static_cast<uint64_t>(seed[index])});
        first_frames.push_back(first_frames.back() + n_frames);
      }
    }
    first_chunks.push_back(static_cast<int64_t>(chunks.size()));
  }

  int64_t n_chunks() const { return static_cast<int64_t>(chunks.size()); }

  // Calls work(chunk index, room for a tile's dropout bits) for every chunk, each thread taking neighbouring chunks
  // with its share of the frames.
  template <typename scalar_t, typename Work>
  void for_each_chunk(const AttentionPoolInputs<scalar_t>& inputs, const Work& work) const {
    const int64_t frames_per_thread = std::max<int64_t>(1, NUMBERS_PER_THREAD / (inputs.n_units + inputs.n_attention));
    const int64_t n_words = inputs.dropout_threshold == 0 ? 0 : TILE_FRAMES * blocks_of(inputs.n_units);
    torch::stable::parallel_for(0, first_frames.back(), frames_per_thread, [&](int64_t begin, int64_t end) {
      std::vector<uint64_t> kept(n_words);
      const auto first = std::lower_bound(first_frames.begin(), first_frames.end() - 1, begin);
      for (auto chunk = first; chunk != first_frames.end() - 1 && *chunk < end; ++chunk) {
        work(chunk - first_frames.begin(), kept.data());
      }
    });
  }
};

// The arguments that forward and backward share, dense, and the pointers into them.
struct Arguments {
  Tensor hidden;                    // (row, unit)
  std::optional<Tensor> query;      // (unit) or (attention), behind (group) where there are groups
  std::optional<Tensor> projected;  // (row, attention)
  int64_t dropout_threshold;
  Plan plan;

  Arguments(
      const Tensor& hidden,
      const Tensor& first_rows,
      const Tensor& lengths,
      const std::optional<Tensor>& query,
      const std::optional<Tensor>& projected,
      const std::optional<Tensor>& seeds,
      const std::optional<Tensor>& groups,
      int64_t dropout_threshold)
      : hidden(dense(hidden)),
        query(dense(query)),
        projected(dense(projected)),
        dropout_threshold(dropout_threshold),
        plan(
            dense(first_rows),
            dense(lengths),
            dense(seeds),
            dense(groups),
            query && query->dim() == 2 ? query->size(0) : 1,
            hidden.size(0)) {}

  template <typename scalar_t>
  AttentionPoolInputs<scalar_t> inputs() const {
    return {pointer<scalar_t>(hidden),          pointer<SumType<scalar_t>>(query),
            pointer<scalar_t>(projected),       hidden.size(1),
            projected ? projected->size(1) : 0, static_cast<uint32_t>(dropout_threshold)};
  }
};

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
std::tuple<Tensor, Tensor> forward(const Arguments& arguments) {
  using sum_t = SumType<scalar_t>;
  const AttentionPoolInputs<scalar_t> inputs = arguments.inputs<scalar_t>();
  const Plan& plan = arguments.plan;
  const int64_t n_utterances = static_cast<int64_t>(plan.utterances.size());
  const Tensor context = new_sums(arguments.hidden, {n_utterances, inputs.n_units});
  const Tensor attention_weights = new_sums(arguments.hidden, {arguments.hidden.size(0)});
  const Tensor chunk_contexts = new_sums(arguments.hidden, {plan.n_chunks(), inputs.n_units});
  std::vector<SoftmaxSum<sum_t>> chunk_softmax(plan.chunks.size());
  sum_t* weights = attention_weights.mutable_data_ptr<sum_t>();
  sum_t* partial = chunk_contexts.mutable_data_ptr<sum_t>();
  const AttentionPoolKernels<scalar_t>& kernel = kernels<AttentionPoolKernels<scalar_t>>();
  plan.for_each_chunk(inputs, [&](int64_t chunk, uint64_t* kept) {
    kernel.pool_chunk(
        inputs, plan.chunks[chunk], kept, weights, partial + chunk * inputs.n_units, chunk_softmax[chunk]);
  });
  for (int64_t index = 0; index < n_utterances; ++index) {
    const int64_t first = plan.first_chunks[index];
    kernel.join_chunks(
        inputs, partial + first * inputs.n_units, chunk_softmax.data() + first, plan.first_chunks[index + 1] - first,
        plan.utterances[index].n_frames, weights + plan.utterances[index].first_row,
        context.mutable_data_ptr<sum_t>() + index * inputs.n_units);
  }
  zero_gaps(plan, 1, weights);
  return {context, attention_weights};
}

// Sum over a group's chunks in order, in double: there may be thousands.
template <typename sum_t>
void sum_chunks(
    const Plan& plan,
    const sum_t* parts,  // (chunk, width)
    int64_t group,
    int64_t width,
    sum_t* sums) {  // (width)
  for (int64_t first = 0; first < width; first += SUM_BLOCK) {
    const int64_t n_left = std::min(SUM_BLOCK, width - first);
    double block[SUM_BLOCK] = {};
    for (int64_t chunk = 0; chunk < plan.n_chunks(); ++chunk) {
      if (plan.chunks[chunk].group == group) {
        for (int64_t i = 0; i < n_left; ++i) {
          block[i] += static_cast<double>(parts[chunk * width + first + i]);
        }
      }
    }
    std::copy(block, block + n_left, sums + first);
  }
}

template <typename scalar_t>
std::vector<SumType<scalar_t>> deltas(
    const AttentionPoolInputs<scalar_t>& inputs, const AttentionPoolGradients<scalar_t>& gradients, const Plan& plan) {
  std::vector<SumType<scalar_t>> values(plan.utterances.size());
  for (size_t index = 0; index < values.size(); ++index) {
    const Utterance& utterance = plan.utterances[index];
    const SumType<scalar_t>* grad_weights = gradients.grad_attention_weights;
    values[index] = kernels<AttentionPoolKernels<scalar_t>>().delta(
        inputs, gradients.context + index * inputs.n_units, gradients.grad_context + index * inputs.n_units,
        gradients.attention_weights + utterance.first_row,
        grad_weights == nullptr ? nullptr : grad_weights + utterance.first_row, utterance.n_frames);
  }
  return values;
}

template <typename scalar_t>
bool is_streamed(const Tensor& hidden, const scalar_t* grad_hidden) {
  constexpr int64_t n_bytes = sizeof(scalar_t);
  return hidden.numel() * n_bytes >= STREAM_BYTES && hidden.size(1) * n_bytes % PACK_BYTES == 0 &&
         reinterpret_cast<uintptr_t>(grad_hidden) % PACK_BYTES == 0;
}

// Fills the gradients that are not null, and grad_query where it is needed.
template <typename scalar_t>
void backward(const Arguments& arguments, const AttentionPoolGradients<scalar_t>& gradients, const Tensor& grad_query) {
  using sum_t = SumType<scalar_t>;
  const AttentionPoolInputs<scalar_t> inputs = arguments.inputs<scalar_t>();
  const Plan& plan = arguments.plan;
  sum_t* grad = pointer_if_any<sum_t>(grad_query);
  const int64_t width = inputs.n_scored();
  std::vector<sum_t> parts(grad == nullptr ? 0 : plan.n_chunks() * width);
  const std::vector<sum_t> delta = deltas(inputs, gradients, plan);
  const bool streams = is_streamed(arguments.hidden, gradients.grad_hidden);
  plan.for_each_chunk(inputs, [&](int64_t chunk, uint64_t* kept) {
    kernels<AttentionPoolKernels<scalar_t>>().backward_chunk(
        inputs, gradients, plan.chunks[chunk], delta[plan.chunks[chunk].utterance], streams, kept,
        grad == nullptr ? nullptr : parts.data() + chunk * width);
  });
  for (int64_t group = 0; group * width < grad_query.numel(); ++group) {
    sum_chunks(plan, parts.data(), group, width, grad + group * width);
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
    const std::optional<Tensor>& query,      // (unit) or (attention), behind (group) where there are groups
    const std::optional<Tensor>& projected,  // (row, attention)
    const std::optional<Tensor>& seeds,      // (batch)
    const std::optional<Tensor>& groups,     // (batch)
    int64_t dropout_threshold) {
  const Arguments arguments(hidden, first_rows, lengths, query, projected, seeds, groups, dropout_threshold);
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
  const Arguments arguments(hidden, first_rows, lengths, query, projected, seeds, groups, dropout_threshold);
  const Tensor slope = dense(grad_context);
  const std::optional<Tensor> weight_slope = dense(grad_attention_weights);
  const auto gradient_of = [](const Tensor& tensor, bool is_needed) {
    return is_needed ? new_result(tensor, tensor.sizes()) : new_result(tensor, {0});
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

STABLE_TORCH_LIBRARY_IMPL(serfast, CPU, library) {
  library.impl("attention_pool", TORCH_BOX(&attention_pool));
  library.impl("attention_pool_backward", TORCH_BOX(&attention_pool_backward));
}

}  // namespace
}  // namespace serfast
