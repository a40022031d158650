// The kernels of blstm on the CPU for float, for every instruction set.

#include "blstm_cpu.h"

#define SERFAST_KERNEL "blstm_kernel.inl"
#define SERFAST_TABLE BlstmTable<float>
#include "for_each_isa.inl"
