// Runs the CPU kernels of linear on buffers of exactly the size they need.

#include "linear.h"

#define SERFAST_KERNEL "linear_kernel.inl"
#include "sanitized.h"

namespace serfast {
namespace {

template <typename scalar_t>
int64_t padded_outputs(int64_t n) {
  return (n + PANEL_OUTPUTS<scalar_t> - 1) / PANEL_OUTPUTS<scalar_t> * PANEL_OUTPUTS<scalar_t>;
}

template <typename scalar_t>
void multiply(int64_t n_rows, int64_t n_in, int64_t n_out, bool with_bias) {
  const LinearKernels<scalar_t>& kernels = watched::LinearTable<scalar_t>::table;
  const auto rows = zeros<scalar_t>(n_rows * n_in);
  const auto weight = zeros<scalar_t>(n_out * n_in);
  const auto bias = zeros<scalar_t>(n_out);
  const auto panels = zeros<scalar_t>(padded_outputs<scalar_t>(n_out) * n_in);
  const auto outputs = zeros<scalar_t>(n_rows * n_out);
  const LinearInputs<scalar_t> inputs = {rows.get(), weight.get(), with_bias ? bias.get() : nullptr, n_in, n_out};
  for (int64_t first = 0; first < n_out; first += PANEL_OUTPUTS<scalar_t>) {
    kernels.pack_panel(inputs, first, panels.get() + first * n_in);
  }
  kernels.multiply_rows(inputs, panels.get(), 0, n_rows / 2, outputs.get());
  kernels.multiply_rows(inputs, panels.get(), n_rows / 2, n_rows, outputs.get());
}

// The left rows lie `gap` numbers further apart than they are long; the last one ends where its numbers do.
template <typename scalar_t>
void add_outer_products(int64_t n_rows, int64_t n_left, int64_t n_right, int64_t gap) {
  const LinearKernels<scalar_t>& kernels = watched::LinearTable<scalar_t>::table;
  const auto left = zeros<scalar_t>((n_rows - 1) * (n_left + gap) + n_left);
  const auto right = zeros<scalar_t>(n_rows * n_right);
  const auto sums = zeros<scalar_t>(n_left * n_right);
  const OuterProducts<scalar_t> factors = {left.get(), right.get(), n_left, n_right, n_left + gap};
  for (int64_t first = 0; first < n_rows; first += CHUNK_ROWS) {
    const int64_t n = std::min(CHUNK_ROWS, n_rows - first);
    const auto panels = zeros<scalar_t>(padded_outputs<scalar_t>(n_right) * n);
    kernels.pack_rows(factors, first, n, panels.get());
    kernels.add_outer_products(factors, panels.get(), first, n, 0, n_left / 2, sums.get());
    kernels.add_outer_products(factors, panels.get(), first, n, n_left / 2, n_left, sums.get());
  }
}

template <typename scalar_t>
void multiply_all() {
  for (const int64_t n_out : {1, 7, 16, 31, 32, 33, 64, 65, 131}) {
    for (const int64_t n_in : {1, 3, 17}) {
      for (const int64_t n_rows : {1, 2, 5, 13, 97, 200}) {
        multiply<scalar_t>(n_rows, n_in, n_out, n_rows % 2 == 1);
        add_outer_products<scalar_t>(n_rows, n_in, n_out, 0);
        add_outer_products<scalar_t>(n_rows, n_in, n_out, 5);
      }
    }
  }
}

}  // namespace
}  // namespace serfast

int main() {
  serfast::multiply_all<float>();
  serfast::multiply_all<double>();
  std::puts("watched");
}
