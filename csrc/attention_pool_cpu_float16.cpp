// The kernels of attention_pool on the CPU for Float16, for every instruction set.

#include "attention_pool_cpu.h"

#define SERFAST_KERNEL "attention_pool_kernel.inl"
#define SERFAST_TABLE AttentionPoolTable<Float16>
#include "for_each_isa.inl"
