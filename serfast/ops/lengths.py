"""Where each utterance of a batch starts and ends."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Lengths"]


@dataclass(frozen=True, eq=False)
class Lengths:
    """Valid frames and first row of each utterance of a batch, checked once, on the CPU and on the data's device.

    Build it with :meth:`packed` or :meth:`padded` and pass it to every operator that sees the batch: nothing is checked
    or copied again, and no step waits for the device.

    Args:
        lengths: valid frames of each utterance, shape (batch,), int64, on the CPU.
        on_device: the same on the data's device.
        first_rows: row of the first frame of each utterance, shape (batch,), int64, on the data's device.
        n_rows: rows of the batch: the sum of ``lengths`` packed, batch times time padded.
        n_frames: the size of the time dimension of a padded batch, None for a packed one.
    """

    lengths: Tensor
    on_device: Tensor
    first_rows: Tensor
    n_rows: int
    n_frames: int | None

    @classmethod
    def packed(cls, lengths: Tensor, *, device: torch.device | str = "cpu") -> "Lengths":
        """Utterances laid end to end, hidden (row, unit).

        Raises:
            TypeError: if ``lengths`` is not an int64 tensor.
            ValueError: if it is not of shape (batch,), not on the CPU, empty, or below 1 somewhere.
        """
        lengths = _checked(lengths)
        first_rows = lengths.cumsum(0) - lengths
        on_device, first_rows = lengths.to(device, non_blocking=True), first_rows.to(device, non_blocking=True)
        return cls(lengths, on_device, first_rows, int(lengths.sum()), None)

    @classmethod
    def padded(cls, lengths: Tensor, n_frames: int, *, device: torch.device | str = "cpu") -> "Lengths":
        """Utterances padded to ``n_frames`` frames each, hidden (batch, time, unit).

        Raises:
            TypeError: if ``lengths`` is not an int64 tensor.
            ValueError: as for :meth:`packed`, or if a length exceeds ``n_frames``.
        """
        lengths = _checked(lengths)
        if (max_length := int(lengths.max())) > n_frames:
            raise ValueError(f"lengths must be at most {n_frames}, the frames of the padded batch, got {max_length}")
        first_rows = torch.arange(len(lengths), device=device) * n_frames
        return cls(lengths, lengths.to(device, non_blocking=True), first_rows, len(lengths) * n_frames, n_frames)

    @classmethod
    def of(cls, lengths: "Tensor | Lengths", data: Tensor) -> "Lengths":
        """The lengths of packed data (row, ...) or padded data (batch, time, unit), on the data's device.

        A tensor is checked and copied; a ``Lengths`` only has to fit.

        Raises:
            TypeError: if a tensor is not int64.
            ValueError: if the lengths break a rule of :meth:`packed` or :meth:`padded`, or do not fit the data.
        """
        is_padded = data.dim() == 3
        if not isinstance(lengths, Lengths):
            lengths = (
                cls.padded(lengths, data.shape[1], device=data.device)
                if is_padded
                else cls.packed(lengths, device=data.device)
            )
        lengths._check_fit(data, is_padded=is_padded)
        return lengths

    def _check_fit(self, data: Tensor, *, is_padded: bool) -> None:
        if self.n_frames is not None:
            expected = (len(self.lengths), self.n_frames)
            got = tuple(data.shape[:2] if is_padded else data.shape)
            if got != expected:
                raise ValueError(f"lengths must fit data of shape {got}, got lengths of a padded batch {expected}")
        elif is_padded:
            raise ValueError(f"lengths must be padded like data of shape {tuple(data.shape)}, got packed lengths")
        elif self.n_rows != data.shape[0]:
            raise ValueError(f"lengths must sum to the {data.shape[0]} rows of the data, got {self.n_rows}")
        if self.on_device.device != data.device:
            raise ValueError(f"lengths must be on {data.device} like the data, got {self.on_device.device}")


def _checked(lengths: Tensor) -> Tensor:
    if not isinstance(lengths, Tensor) or lengths.dtype != torch.int64:
        got = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"lengths must be an int64 tensor or Lengths, got {got}")
    if lengths.dim() != 1 or len(lengths) == 0:
        raise ValueError(f"lengths must have shape (batch,) with at least one utterance, got {tuple(lengths.shape)}")
    if lengths.device.type != "cpu":
        raise ValueError(f"lengths must be on the CPU, got {lengths.device}; build a Lengths to keep them on both")
    shortest = int(lengths.min())
    if shortest < 1:
        raise ValueError(f"lengths must be at least 1, got {shortest}")
    return lengths.clone()  # the caller may reuse its tensor for the next batch
