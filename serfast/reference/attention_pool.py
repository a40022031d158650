"""Attention pooling in plain PyTorch, one utterance at a time."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["attention_pool", "dropout_mask", "philox", "utterance_seeds"]

Words = npt.NDArray[np.uint64]

_LOW_HALF = np.uint64(0xFFFFFFFF)


def attention_pool(
    hidden: Tensor,
    lengths: Tensor,
    query: Tensor | None,
    projection: Tensor | None = None,
    *,
    dropout: float = 0.0,
    training: bool = False,
    seed: int | Tensor | None = None,
    group: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Pool the frames of each utterance into one context vector.

    .. math:: \alpha_t = \operatorname{softmax}_t(s_t), \qquad
              c = \sum_t \alpha_t \frac{m_t \odot h_t}{1 - p}, \qquad
              s_t = w^\top h_t \text{ (eq. 9)} \text{ or } w^\top \tanh(W h_t) \text{ (eq. 8)}

    Args:
        hidden: BLSTM outputs :math:`h`, shape (row, unit) packed, or (batch, time, unit) padded; any floating dtype.
        lengths: valid frames per utterance, shape (batch,), int64, at least 1.
        query: learned vector :math:`w`, shape (unit,), or (n_attention,) beside a projection; None pools uniformly.
        projection: learned matrix :math:`W`, shape (n_attention, unit), for the scores of eq. 8.
        dropout: probability :math:`p` in [0, 1), rounded to a multiple of 1/65536.
        training: whether to drop anything.
        seed: of the mask, see :func:`utterance_seeds`; None draws one from torch's default generator.
        group: the query and projection of each utterance, shape (batch,): both then have a dimension for it in front.

    Returns:
        Context vectors (batch, unit) and attention weights, (row,) packed or (batch, time) padded and zero there.

    Source: Huang and Narayanan (2016), eqs. 8 and 9.
    """
    n_frames = lengths.tolist()
    is_padded = hidden.dim() == 3
    utterances = [hidden[b, :n] for b, n in enumerate(n_frames)] if is_padded else list(hidden.split(n_frames))
    drops = training and _threshold(dropout) > 0
    seeds = utterance_seeds(seed, len(n_frames)) if drops else [0] * len(n_frames)
    groups = [None] * len(n_frames) if group is None else group.tolist()
    contexts, weights = [], []
    for frames, utterance_seed, index in zip(utterances, seeds, groups, strict=True):
        own_query, own_projection = (x if x is None or index is None else x[index] for x in (query, projection))
        alpha = torch.softmax(_scores(frames, own_query, own_projection), dim=0)
        scaled = torch.einsum("t,tu->tu", alpha, frames)
        if drops:
            mask = dropout_mask(utterance_seed, frames.shape[0], frames.shape[1], dropout)
            scaled = scaled * mask.to(frames)
        contexts.append(scaled.sum(dim=0))
        weights.append(alpha)
    if is_padded:
        weights = [torch.nn.functional.pad(alpha, (0, hidden.shape[1] - len(alpha))) for alpha in weights]
        return torch.stack(contexts), torch.stack(weights)
    return torch.stack(contexts), torch.cat(weights)


def _scores(frames: Tensor, query: Tensor | None, projection: Tensor | None) -> Tensor:
    if query is None:
        return frames.new_zeros(len(frames))
    if projection is None:
        return torch.einsum("u,tu->t", query, frames)
    return torch.einsum("a,ta->t", query, torch.tanh(torch.einsum("au,tu->ta", projection, frames)))


def _threshold(dropout: float) -> int:
    return math.floor(dropout * 65536 + 0.5)


def utterance_seeds(seed: int | Tensor | None, n_utterances: int) -> list[int]:
    """The dropout seed of each utterance of a batch, as 64-bit words.

    A tensor of shape (batch,) is used as it is. One number starts a SplitMix64 generator whose outputs are the seeds.
    None draws that number from torch's default generator.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
    """
    if seed is None:
        seed = torch.randint(-(2**63), 2**63 - 1, ())
    if isinstance(seed, Tensor) and seed.dim() == 1:
        return [int(one) % 2**64 for one in seed]
    seeds = []
    for position in range(1, n_utterances + 1):
        word = (int(seed) + position * 0x9E3779B97F4A7C15) % 2**64
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
        seeds.append(word ^ (word >> 31))
    return seeds


def dropout_mask(seed: int, n_frames: int, n_units: int, dropout: float) -> Tensor:
    """Zero, or 1 / (1 - p), for each element of one utterance.

    Element (frame t, unit i) takes 16 bits of the Philox draw with the seed's halves as key (low, high) and
    (t, i // 8, 0, 0) as counter: word (i % 8) // 2, its low half for even i. It is kept if they reach round(65536 p).

    Returns:
        The mask, shape (frame, unit), float64.
    """
    threshold = _threshold(dropout)
    frame, octet = np.meshgrid(np.arange(n_frames), np.arange(-(-n_units // 8)), indexing="ij")
    counter = np.stack([frame, octet, 0 * frame, 0 * frame], axis=-1).astype(np.uint64)
    words = philox(counter, np.array([seed & 0xFFFFFFFF, seed >> 32], dtype=np.uint64))
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], axis=-1)  # (frame, octet, word, half)
    bits = halves.reshape(n_frames, -1)[:, :n_units].astype(np.int64)
    return torch.from_numpy((bits >= threshold) * (65536 / (65536 - threshold)))


def philox(counter: Words, key: Words) -> Words:
    """Philox4x32-10: four random 32-bit words for each counter of four under a key of two.

    Args:
        counter: 32-bit words in the last dimension, shape (..., 4).
        key: 32-bit words, shape (2,).

    Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
    """
    x0, x1, x2, x3 = np.moveaxis(counter, -1, 0)
    for step in range(10):
        key_0 = np.uint64((int(key[0]) + step * 0x9E3779B9) % 2**32)
        key_1 = np.uint64((int(key[1]) + step * 0xBB67AE85) % 2**32)
        product_0, product_1 = x0 * np.uint64(0xD2511F53), x2 * np.uint64(0xCD9E8D57)
        x0, x1 = (product_1 >> np.uint64(32)) ^ x1 ^ key_0, product_1 & _LOW_HALF
        x2, x3 = (product_0 >> np.uint64(32)) ^ x3 ^ key_1, product_0 & _LOW_HALF
    return np.stack([x0, x1, x2, x3], axis=-1)
