"""The device that work runs on."""

import sys

import torch

from serfast.ops._library import has_cuda_kernels

__all__ = ["resolve_device"]


def resolve_device(name: str) -> torch.device:
    """The device called ``name``: "cpu", "cuda", "cuda:1", or "auto" for a CUDA device where serfast can use one.

    "auto" on a machine whose GPU stays unused, because the kernels were not built for it, says so on standard error.

    Raises:
        ValueError: if there is no such device, or the kernels for it were not built.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        if has_cuda_kernels():
            return torch.device("cuda")
        print(f"device: cpu, the CUDA kernels are not built; {_REMEDY}", file=sys.stderr)
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}")
    if kind == "cuda" and not has_cuda_kernels():
        raise ValueError(f"device must be one that serfast was built for, got {name!r}; {_REMEDY}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ValueError(f"device must be one of {torch.cuda.device_count()} CUDA devices, got {name!r}")
    return torch.device(name)


_REMEDY = "to build them: SERFAST_CUDA=1 pip install --force-reinstall --no-deps . with a CUDA toolkit and a CUDA torch"
