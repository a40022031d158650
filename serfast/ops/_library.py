"""The compiled kernels, and the library that their operators are registered in."""

from importlib import import_module
from importlib.util import find_spec

import torch
from torch.library import Library

__all__ = ["LIBRARY", "cpu_capability", "has_cuda_kernels"]

_CPU_KERNELS = import_module("serfast._C")
LIBRARY = Library("serfast", "DEF")  # schemas, shape inference and autograd; the kernels register themselves on import

_HAS_CUDA_KERNELS = torch.version.cuda is not None and find_spec("serfast._C_cuda") is not None
if _HAS_CUDA_KERNELS:
    import_module("serfast._C_cuda")


def cpu_capability() -> str:
    """The instruction set of the CPU kernels: generic, avx2 or avx512.

    It is the best that the processor has, or the one that the environment variable ``SERFAST_CPU_CAPABILITY`` names.
    """
    name: str = _CPU_KERNELS.cpu_capability
    return name


def has_cuda_kernels() -> bool:
    """Whether the operators take CUDA tensors: torch has CUDA, and ``serfast._C_cuda`` was built."""
    return _HAS_CUDA_KERNELS
