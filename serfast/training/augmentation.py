"""Changes of a training batch that leave its emotions what they are: tempo, shift, noise, a masked span."""

import torch
from torch import Tensor

from serfast.ops import Lengths
from serfast.training.batches import Batch
from serfast.training.options import TrainingOptions

__all__ = ["augment"]


def augment(batch: Batch, options: TrainingOptions) -> tuple[Tensor, Lengths]:
    """Features (row, feature) and lengths of ``batch``, changed as ``options`` say by draws from torch's generator."""
    features, lengths = batch.features, batch.lengths
    if options.tempo_change:
        factors = 1 + options.tempo_change * (2 * torch.rand(len(lengths.lengths)) - 1)
        features, lengths = stretch(features, lengths, factors)
    numbers = torch.arange(len(lengths.lengths), device=features.device)
    utterance = torch.repeat_interleave(numbers, lengths.on_device, output_size=lengths.n_rows)
    if options.offset:
        shifts = options.offset * torch.randn(len(lengths.lengths), features.shape[1])
        features = features + _moved(shifts, features)[utterance]
    if options.noise:
        features = features + options.noise * torch.randn_like(features)
    if options.n_masked:
        n_masked = torch.minimum(torch.randint(options.n_masked + 1, lengths.lengths.shape), lengths.lengths // 2)
        starts = (torch.rand(lengths.lengths.shape) * (lengths.lengths - n_masked + 1)).long()
        frame = torch.arange(len(features), device=features.device) - lengths.first_rows[utterance]
        first, last = (_moved(limit, features)[utterance] for limit in (starts, starts + n_masked))
        features = features.masked_fill(((frame >= first) & (frame < last))[:, None], 0.0)
    return features, lengths


def stretch(features: Tensor, lengths: Lengths, factors: Tensor) -> tuple[Tensor, Lengths]:
    """Change the number of frames of each utterance by its factor (batch,), with frames interpolated linearly.

    First and last frame stay first and last; an utterance keeps at least one frame.
    """
    stretched = (lengths.lengths * factors).round().long().clamp(min=1)
    result = Lengths.packed(stretched, device=features.device)
    steps = (lengths.lengths - 1).double() / (stretched - 1).clamp(min=1)
    utterance = torch.repeat_interleave(torch.arange(len(stretched)), stretched)
    frame = torch.arange(int(stretched.sum())) - (stretched.cumsum(0) - stretched)[utterance]
    place = frame * steps[utterance]
    before = place.floor().long()
    after = torch.minimum(before + 1, (lengths.lengths - 1)[utterance])
    share = _moved((place - before).to(features.dtype)[:, None], features)
    first_rows = (lengths.lengths.cumsum(0) - lengths.lengths)[utterance]
    low, high = (features[_moved(first_rows + frames, features)] for frames in (before, after))
    return torch.lerp(low, high, share), result


def _moved(tensor: Tensor, features: Tensor) -> Tensor:
    return tensor.to(features.device, non_blocking=True)
