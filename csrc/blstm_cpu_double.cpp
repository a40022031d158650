// The kernels of blstm on the CPU for double, for every instruction set.

#include "blstm_cpu.h"

#define SERFAST_KERNEL "blstm_kernel.inl"
#define SERFAST_TABLE BlstmTable<double>
#include "for_each_isa.inl"
