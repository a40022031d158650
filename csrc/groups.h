// Groups of utterances, each with weights of its own.

#pragma once

#include <cstdint>

#include "host_device.h"

namespace serfast {

// The group an utterance names, or the nearest there is.
SERFAST_HOST_DEVICE int64_t group_within(int64_t group, int64_t n_groups) {
  const int64_t at_most = group < n_groups ? group : n_groups - 1;
  return at_most > 0 ? at_most : 0;
}

}  // namespace serfast
