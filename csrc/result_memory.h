// Memory of large results on the CPU, which is used again: the system clears every fresh page, and to clear a page costs as
// much as a kernel takes to fill it.

#pragma once

#include <torch/csrc/stable/tensor.h>

namespace serfast {

// An uninitialised tensor of the type of another. When a large one is freed its memory waits for the next, which may be
// a third smaller; what waits and what is in use together never exceed what was in use at once, waste included, and what
// waits never exceeds 1 GiB. A large one cannot be resized in place.
torch::stable::Tensor new_result(const torch::stable::Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef shape);

}  // namespace serfast
