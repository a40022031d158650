// The types that attention_pool is compiled for, once per instruction set, by attention_pool_cpu.cpp.

#include "attention_pool_kernel.inl"

template struct AttentionPoolTable<float>;
template struct AttentionPoolTable<double>;
template struct AttentionPoolTable<BFloat16>;
template struct AttentionPoolTable<Float16>;
