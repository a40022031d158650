"""What fits into the memory of a device."""

import os

import torch

__all__ = ["fits"]

_SHARE = 0.5  # of what is free, that one thing kept for the length of a training may fill


def fits(n_bytes: int, device: torch.device) -> bool:
    """Whether ``n_bytes`` are at most half of what is free on ``device``."""
    return n_bytes <= _SHARE * _free_bytes(device)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        kept_by_torch = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept_by_torch
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
