// The kernels of linear on the CPU for float, for every instruction set.

#include "linear.h"

#define SERFAST_KERNEL "linear_kernel.inl"
#define SERFAST_TABLE LinearTable<float>
#include "for_each_isa.inl"
