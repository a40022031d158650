// Runs the CPU kernels of attention_pool for the type SERFAST_SCALAR on buffers of exactly the size they need.

#include "attention_pool_cpu.h"

#define SERFAST_KERNEL "attention_pool_kernel.inl"
#include "sanitized.h"

namespace serfast {

using Float32 = float;
using Float64 = double;

namespace {

// The utterance belongs to the last one, whose query ends where the buffer does.
constexpr int64_t N_GROUPS = 2;

template <typename scalar_t>
void pool_utterance(int64_t n_frames, int64_t n_units, int64_t n_attention, Score score, uint32_t threshold) {
  using sum_t = SumType<scalar_t>;
  const AttentionPoolKernels<scalar_t>& kernels = watched::AttentionPoolTable<scalar_t>::table;
  const int64_t n_scored = score == Score::projected ? n_attention : n_units;
  const auto hidden = zeros<scalar_t>(n_frames * n_units);
  const auto projected = zeros<scalar_t>(n_frames * n_attention);
  const auto query = zeros<sum_t>(N_GROUPS * n_scored);
  const AttentionPoolInputs<scalar_t> inputs = {
      hidden.get(),
      score == Score::uniform ? nullptr : query.get(),
      score == Score::projected ? projected.get() : nullptr,
      n_units,
      n_attention,
      threshold};
  const auto kept = zeros<uint64_t>(TILE_FRAMES * blocks_of(n_units));
  const auto weights = zeros<sum_t>(n_frames);
  const auto partial = zeros<sum_t>(n_units);
  const auto context = zeros<sum_t>(n_units);
  const auto slopes = zeros<sum_t>(n_units);
  const auto weight_slopes = zeros<sum_t>(n_frames);
  const auto grad_hidden = zeros<scalar_t>(n_frames * n_units);
  const auto grad_projected = zeros<scalar_t>(n_frames * n_attention);
  const auto grad_query = zeros<sum_t>(n_scored);
  const Chunk chunk = {0, N_GROUPS - 1, 0, 0, n_frames, 0x123456789ABCDEFu};
  SoftmaxSum<sum_t> softmax;
  kernels.pool_chunk(inputs, chunk, kept.get(), weights.get(), partial.get(), softmax);
  kernels.join_chunks(inputs, partial.get(), &softmax, 1, n_frames, weights.get(), context.get());
  const sum_t delta = kernels.delta(inputs, context.get(), slopes.get(), weights.get(), weight_slopes.get(), n_frames);
  for (const bool wanted : {true, false}) {
    const AttentionPoolGradients<scalar_t> gradients = {
        context.get(),
        weights.get(),
        slopes.get(),
        wanted ? weight_slopes.get() : nullptr,
        wanted ? grad_hidden.get() : nullptr,
        wanted && score == Score::projected ? grad_projected.get() : nullptr};
    const bool is_streamed = n_units * sizeof(scalar_t) % PACK_BYTES == 0 &&
                             reinterpret_cast<uintptr_t>(gradients.grad_hidden) % PACK_BYTES == 0;
    kernels.backward_chunk(
        inputs, gradients, chunk, delta, is_streamed, kept.get(), wanted ? grad_query.get() : nullptr);
  }
}

template <typename scalar_t>
void pool_all() {
  for (const int64_t n_units : {1, 7, 8, 15, 16, 17, 63, 64, 65, 130}) {
    for (const int64_t n_frames : {1, 15, 16, 17, 40}) {
      for (const Score score : {Score::uniform, Score::query, Score::projected}) {
        for (const uint32_t threshold : {0u, 32768u}) {
          pool_utterance<scalar_t>(n_frames, n_units, score == Score::projected ? n_units + 2 : 0, score, threshold);
        }
      }
    }
  }
}

}  // namespace
}  // namespace serfast

int main() {
  serfast::pool_all<serfast::SERFAST_SCALAR>();
  std::puts("watched");
}
