"""Which of several models side by side each utterance of a batch is one of."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Groups"]


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each utterance of a batch, checked once, on the CPU and on the data's device.

    Build it with :meth:`of` and pass it to every operator that sees the batch: nothing is checked or copied again, and
    no step waits for the device.

    Args:
        groups: of the utterances, shape (batch,), int64, on the CPU.
        on_device: the same on the data's device.
        n_groups: groups that there are.
    """

    groups: Tensor
    on_device: Tensor
    n_groups: int

    @classmethod
    def of(cls, group: "Tensor | Groups", n_utterances: int, n_groups: int, device: torch.device) -> "Groups":
        """The groups of ``n_utterances`` on ``device``.

        A tensor is checked and copied; a ``Groups`` only has to fit.

        Raises:
            TypeError: if a tensor is not int64.
            ValueError: if it is not on the CPU or of shape (batch,), a group is not one of those that there are, or a
                ``Groups`` is of another batch, another number of groups or another device.
        """
        if not isinstance(group, Groups):
            own = _checked(group, n_groups)
            group = cls(own, own.to(device, non_blocking=True), n_groups)
        if tuple(group.groups.shape) != (n_utterances,):
            raise ValueError(
                f"group must have shape ({n_utterances},) to match lengths, got {tuple(group.groups.shape)}"
            )
        if group.n_groups != n_groups:
            raise ValueError(f"group must be of {n_groups} groups like the weights, got {group.n_groups}")
        if group.on_device.device != device:
            raise ValueError(f"group must be on {device} like the data, got {group.on_device.device}")
        return group


def _checked(group: Tensor, n_groups: int) -> Tensor:
    if not isinstance(group, Tensor) or group.dtype != torch.int64:
        got = group.dtype if isinstance(group, Tensor) else type(group).__name__
        raise TypeError(f"group must be an int64 tensor or Groups, got {got}")
    if group.device.type != "cpu":
        raise ValueError(f"group must be on the CPU, got {group.device}; build a Groups to have it on both")
    if torch.compiler.is_compiling() or group.numel() == 0:
        return group.clone()  # looking at values would break the graph; the kernels stay within the groups there are
    least, most = int(group.min()), int(group.max())
    if least < 0 or most >= n_groups:
        worst = least if least < 0 else most
        raise ValueError(f"group must be at least 0 and below {n_groups}, the groups there are, got {worst}")
    return group.clone()  # the caller may reuse its tensor for the next batch
