"""The specification of ``serfast.ops.blstm`` in plain PyTorch: one utterance, direction and frame after the other."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["blstm"]


def blstm(
    features: Tensor,
    lengths: Tensor,
    weights: Mapping[str, Tensor],
    *,
    group: Tensor | None = None,
    precision: str = "high",
) -> Tensor:
    """Run an LSTM layer over packed (row, feature) or padded (batch, time, feature) utterances.

    Weights of one direction alone, forward or reverse, run that one.
    """
    if features.dim() == 3:
        packed = torch.cat([frames[:n] for frames, n in zip(features, lengths.tolist(), strict=True)])
        hidden = blstm(packed, lengths, weights, group=group).split(lengths.tolist())
        return torch.stack([torch.nn.functional.pad(h, (0, 0, 0, features.shape[1] - len(h))) for h in hidden])
    groups = [None] * len(lengths) if group is None else group.tolist()
    pieces = []
    for frames, member in zip(features.split(lengths.tolist()), groups, strict=True):
        own = weights if member is None else {name: tensor[member] for name, tensor in weights.items()}
        directions = []
        if "weight_hh_l0" in own:
            directions.append(_direction(frames, own, ""))
        if "weight_hh_l0_reverse" in own:
            directions.append(_direction(frames.flip(0), own, "_reverse").flip(0))
        pieces.append(torch.cat(directions, dim=1))
    return torch.cat(pieces)


def _direction(frames: Tensor, weights: Mapping[str, Tensor], suffix: str) -> Tensor:
    recurrent = weights[f"weight_hh_l0{suffix}"]
    bias = weights[f"bias_ih_l0{suffix}"] + weights[f"bias_hh_l0{suffix}"]
    hidden = cell = frames.new_zeros(recurrent.shape[1])
    states = []
    for projected in frames @ weights[f"weight_ih_l0{suffix}"].T + bias:
        i, f, g, o = (projected + recurrent @ hidden).chunk(4)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        states.append(hidden)
    return torch.stack(states)
