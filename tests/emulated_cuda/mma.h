// Tensor cores of the emulated device: every lane holds whole squares, and sums and stores its share of one.

#pragma once

#include <cmath>
#include <type_traits>

#include "cuda_runtime.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <typename use_t, int n_rows, int n_columns, int n_depth, typename number_t, typename layout_t = void>
struct fragment {
  static constexpr int height = std::is_same_v<use_t, matrix_b> ? n_depth : n_rows;
  static constexpr int width = std::is_same_v<use_t, matrix_a> ? n_depth : n_columns;
  float numbers[height][width];
};

// Where element (row, column) lies.
template <typename number_t>
number_t& element(number_t* memory, unsigned stride, bool is_row_major, int row, int column) {
  return is_row_major ? memory[row * stride + column] : memory[column * stride + row];
}

template <typename number_t>
void check_square(const number_t* memory, unsigned stride) {
  if (reinterpret_cast<uintptr_t>(memory) % 32 != 0 || stride * sizeof(number_t) % 16 != 0) {
    emulated::fail("a square must start at 32 bytes with a stride of 16, got " + std::to_string(stride));
  }
}

template <typename Fragment>
void fill_fragment(Fragment& square, float number) {
  for (auto& row : square.numbers) {
    std::fill(std::begin(row), std::end(row), number);
  }
}

template <typename use_t, int m, int n, int k, typename number_t, typename layout_t>
void load_matrix_sync(fragment<use_t, m, n, k, number_t, layout_t>& square, const number_t* memory, unsigned stride) {
  check_square(memory, stride);
  emulated::wait_for_warp(0xFFFFFFFFu, "a product");
  for (int row = 0; row < square.height; ++row) {
    for (int column = 0; column < square.width; ++column) {
      square.numbers[row][column] =
          static_cast<float>(element(memory, stride, std::is_same_v<layout_t, row_major>, row, column));
    }
  }
}

template <int m, int n, int k, typename number_t, typename layout_a, typename layout_b>
void mma_sync(
    fragment<accumulator, m, n, k, float>& result,
    const fragment<matrix_a, m, n, k, number_t, layout_a>& a,
    const fragment<matrix_b, m, n, k, number_t, layout_b>& b,
    const fragment<accumulator, m, n, k, float>& c) {
  emulated::wait_for_warp(0xFFFFFFFFu, "a product");
  for (int place = static_cast<int>(emulated::device().current->lane); place < m * n; place += emulated::WARP_THREADS) {
    float sum = c.numbers[place / n][place % n];
    for (int depth = 0; depth < k; ++depth) {
      sum += a.numbers[place / n][depth] * b.numbers[depth][place % n];  // the product of halfs is exact
    }
    result.numbers[place / n][place % n] = sum;
  }
}

template <int m, int n, int k>
void store_matrix_sync(
    float* memory, const fragment<accumulator, m, n, k, float>& square, unsigned stride, layout_t layout) {
  check_square(memory, stride);
  emulated::wait_for_warp(0xFFFFFFFFu, "a product");
  for (int place = static_cast<int>(emulated::device().current->lane); place < m * n; place += emulated::WARP_THREADS) {
    element(memory, stride, layout == mem_row_major, place / n, place % n) = square.numbers[place / n][place % n];
  }
}

}  // namespace nvcuda::wmma
