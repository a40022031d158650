// The kernels of linear on the CPU for double, for every instruction set.

#include "linear.h"

#define SERFAST_KERNEL "linear_kernel.inl"
#define SERFAST_TABLE LinearTable<double>
#include "for_each_isa.inl"
