"""Fused operators for utterances of any length: C++ and CUDA kernels behind typed doors."""

from serfast.ops._library import cpu_capability, has_cuda_kernels
from serfast.ops.attention_pool import attention_pool
from serfast.ops.blstm import BLSTM_PRECISIONS, BLSTM_WEIGHTS, blstm
from serfast.ops.device import resolve_device
from serfast.ops.groups import Groups
from serfast.ops.lengths import Lengths
from serfast.ops.linear import linear

__all__ = [
    "BLSTM_PRECISIONS",
    "BLSTM_WEIGHTS",
    "Groups",
    "Lengths",
    "attention_pool",
    "blstm",
    "cpu_capability",
    "has_cuda_kernels",
    "linear",
    "resolve_device",
]
