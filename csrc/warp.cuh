// A warp of a CUDA device.

#pragma once

namespace serfast {

constexpr int WARP_THREADS = 32;
constexpr unsigned WHOLE_WARP = 0xFFFFFFFFu;

}  // namespace serfast
