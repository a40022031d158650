"""Attention pooling: the frames of each utterance become one context vector, in one pass over them."""

import math
from typing import Any

import torch
from torch import Tensor

from serfast.ops._checks import DTYPES, check_type_and_device
from serfast.ops._library import LIBRARY
from serfast.ops.grouped_linear import grouped_linear
from serfast.ops.groups import Groups
from serfast.ops.lengths import Lengths
from serfast.ops.linear import linear

__all__ = ["attention_pool"]

_DROPOUT_STEPS = 65536  # the mask compares 16 random bits per element

LIBRARY.define(
    "attention_pool(Tensor hidden, Tensor first_rows, Tensor lengths, Tensor? query, Tensor? projected, Tensor? seeds,"
    " Tensor? groups, int dropout_threshold) -> (Tensor context, Tensor attention_weights)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
LIBRARY.define(
    "attention_pool_backward(Tensor grad_context, Tensor? grad_attention_weights, Tensor hidden, Tensor first_rows,"
    " Tensor lengths, Tensor? query, Tensor? projected, Tensor? seeds, Tensor? groups, Tensor context,"
    " Tensor attention_weights, int dropout_threshold, bool needs_hidden, bool needs_query,"
    " bool needs_projected) -> (Tensor grad_hidden, Tensor grad_query, Tensor grad_projected)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def attention_pool(
    hidden: Tensor,
    lengths: Tensor | Lengths,
    query: Tensor | None,
    projection: Tensor | None = None,
    *,
    dropout: float = 0.0,
    training: bool = False,
    seed: int | Tensor | None = None,
    group: Tensor | Groups | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Pool the frames of each utterance into one context vector.

    .. math:: \alpha_t = \operatorname{softmax}_t(s_t), \qquad
              c = \sum_t \alpha_t \frac{m_t \odot h_t}{1 - p}, \qquad
              s_t = w^\top h_t \text{ (eq. 9)} \text{ or } w^\top \tanh(W h_t) \text{ (eq. 8)}

    The hidden vectors are read once, and a padded frame never. An utterance gets the same bits alone and in any batch,
    packed or padded, on any number of threads; with a projection this holds where :func:`linear` forms
    :math:`W h_t`: in evaluation, and in training on the CPU unless in half precision. Elsewhere in training torch does,
    and autocast may lower the type of that product, and of no other. Gradients flow through both results, once: a
    second derivative raises. Half-precision hidden vectors are summed in float32.

    Dropout keeps or drops each element of the scaled vectors: with :math:`\theta = \operatorname{round}(65536\,p)`,
    element (frame t, unit i) is kept if its 16 random bits reach :math:`\theta`, and then scaled by
    :math:`65536 / (65536 - \theta)`. The bits come from Philox4x32-10 with the halves of the utterance's seed as key
    (low, high) and (t, i // 8, 0, 0) as counter: word (i % 8) // 2 of the result, its low half for even i.

    Args:
        hidden: BLSTM outputs :math:`h`, shape (row, unit) packed, or (batch, time, unit) padded; float32, float64,
            bfloat16 or float16.
        lengths: valid frames per utterance, shape (batch,), int64, at least 1, on the CPU; or a ``Lengths``,
            which ``torch.compile`` needs, because checking values would break its graph.
        query: learned vector :math:`w`, shape (unit,), or (n_attention,) beside a projection; None pools uniformly.
            Of the type of ``hidden``, or float32 beside half types.
        projection: learned matrix :math:`W`, shape (n_attention, unit), for the scores of eq. 8; its type as ``query``.
        dropout: probability :math:`p` in [0, 1), rounded to a multiple of 1/65536.
        training: whether to drop anything, and whether torch may form :math:`W h_t`.
        seed: of the mask: an int, or an int64 tensor. Shape (batch,): one seed per utterance, used as it is. One number
            is mixed with the utterance's position (:func:`mixed_seeds`). None draws one from torch's default generator.
        group: the query and projection of each utterance, shape (batch,), int64, on the CPU, or a ``Groups``: both then
            have one more dimension in front, (group, ...). With a projection, each change of group along the batch
            costs a product of its own.

    Returns:
        Context vectors (batch, unit) in the type of ``hidden`` and attention weights, (row,) packed or (batch, time)
        padded and zero there, in float32 (float64 for float64).

    Raises:
        TypeError: if a dtype is not supported or does not go with that of ``hidden``.
        ValueError: if a shape does not fit ``hidden``, or dropout, seed or group is out of range.

    Source: Huang and Narayanan (2016), eqs. 8 and 9; Salmon et al. (2011) for Philox. Reference: ``serfast.reference``.
    """
    _check_tensors(hidden, query, projection, is_grouped=group is not None)
    utterances = Lengths.of(lengths, hidden)
    groups = None
    if group is not None and query is not None:
        groups = Groups.of(group, len(utterances.lengths), len(query), hidden.device)
    threshold = _dropout_threshold(dropout)
    drops = training and threshold > 0
    projected = None if projection is None else _projected(hidden, projection, utterances, groups, training=training)
    context, attention_weights = torch.ops.serfast.attention_pool(
        hidden.reshape(-1, hidden.shape[-1]),
        utterances.first_rows,
        utterances.on_device,
        None if query is None else query.to(_sum_type(hidden)),
        None if projected is None else projected.reshape(-1, projected.shape[-1]),
        _seeds(seed, len(utterances.lengths), hidden.device) if drops else None,
        None if groups is None else groups.on_device,
        threshold if drops else 0,
    )
    return context.to(hidden.dtype), attention_weights.reshape(hidden.shape[:-1])


def _projected(
    hidden: Tensor, projection: Tensor, utterances: Lengths, groups: Groups | None, *, training: bool
) -> Tensor:
    """W h_t, (..., n_attention), in the type of ``hidden``: by torch where that is faster and training permits it."""
    by_torch = training and (hidden.device.type == "cuda" or hidden.dtype in (torch.bfloat16, torch.float16))
    counts = utterances.lengths
    if utterances.n_frames is not None:  # the gradient of W sums over all rows: padding must count for nothing
        is_padding = torch.arange(utterances.n_frames, device=hidden.device) >= utterances.on_device[:, None]
        hidden = hidden.masked_fill(is_padding[..., None], 0)
        counts = torch.full_like(counts, utterances.n_frames)
    if groups is not None:
        return grouped_linear(hidden.flatten(0, -2), projection, groups.groups, counts, fixed_order=not by_torch)
    return (hidden @ projection.to(hidden.dtype).T).to(hidden.dtype) if by_torch else linear(hidden, projection)


def mixed_seeds(seed: Tensor, n_utterances: int) -> Tensor:
    """One seed per position of a batch from one number, on its device: the outputs of SplitMix64 started there.

    Output b is ``mix(seed + (b + 1) * 0x9E3779B97F4A7C15)`` modulo 2**64, where ``mix`` is two rounds of "exclusive or
    with itself shifted right, multiply by an odd constant" and a last shift.

    Args:
        seed: int64, shape ().
        n_utterances: size of the batch.

    Returns:
        Seeds (batch,), int64.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
    """
    positions = torch.arange(1, n_utterances + 1, device=seed.device)
    mixed = seed + positions * _signed(0x9E3779B97F4A7C15)
    mixed = (mixed ^ _shifted_right(mixed, 30)) * _signed(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ _shifted_right(mixed, 27)) * _signed(0x94D049BB133111EB)
    return mixed ^ _shifted_right(mixed, 31)


def _signed(word: int) -> int:
    """A 64-bit word as torch's int64 holds it."""
    return word - (1 << 64) if word >= 1 << 63 else word


def _shifted_right(words: Tensor, n_bits: int) -> Tensor:
    """Shift that fills with zeros; torch's own copies the sign."""
    return (words >> n_bits) & ((1 << (64 - n_bits)) - 1)


def _dropout_threshold(dropout: float) -> int:
    threshold = math.floor(dropout * _DROPOUT_STEPS + 0.5) if 0.0 <= dropout < 1.0 else _DROPOUT_STEPS
    if threshold >= _DROPOUT_STEPS:
        raise ValueError(f"dropout must be at least 0 and below 1 when rounded to 1/65536, got {dropout}")
    return threshold


def _seeds(seed: int | Tensor | None, n_utterances: int, device: torch.device) -> Tensor:
    if seed is None:
        seed = torch.randint(-(2**63), 2**63 - 1, ())
    elif isinstance(seed, int):
        if not -(2**63) <= seed < 2**63:
            raise ValueError(f"seed must fit 64 bits, got {seed}")
        seed = torch.full((), seed, dtype=torch.int64, device=device)
    elif not isinstance(seed, Tensor) or seed.dtype != torch.int64:
        got = seed.dtype if isinstance(seed, Tensor) else type(seed).__name__
        raise TypeError(f"seed must be an int or an int64 tensor, got {got}")
    seed = seed.to(device, non_blocking=True)
    if seed.dim() == 0:
        return mixed_seeds(seed, n_utterances)
    if tuple(seed.shape) != (n_utterances,):
        raise ValueError(f"seed must have shape () or ({n_utterances},) to match lengths, got {tuple(seed.shape)}")
    return seed


def _sum_type(hidden: Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def _check_tensors(hidden: Tensor, query: Tensor | None, projection: Tensor | None, *, is_grouped: bool) -> None:
    if hidden.dtype not in DTYPES:
        raise TypeError(f"hidden must be float32, float64, bfloat16 or float16, got {hidden.dtype}")
    if hidden.dim() not in (2, 3) or hidden.shape[-1] == 0:
        raise ValueError(f"hidden must have shape (row, unit) or (batch, time, unit), got {tuple(hidden.shape)}")
    if query is None:
        if projection is not None:
            raise ValueError("projection must be None when query is None, got a projection without a query")
        if is_grouped:
            raise ValueError("group must be None when query is None, got a group without a query")
        return
    n_units, lead = hidden.shape[-1], query.shape[:1] if is_grouped else ()
    partner, n_query = "hidden", n_units
    if projection is not None:
        n_query = projection.shape[-2] if projection.dim() == 2 + is_grouped else 0
        if n_query == 0 or tuple(projection.shape) != (*lead, n_query, n_units):
            wanted = f"({', '.join([*map(str, lead), 'n_attention', str(n_units)])})"
            raise ValueError(f"projection must have shape {wanted} to match hidden, got {tuple(projection.shape)}")
        check_type_and_device("projection", projection, "hidden", hidden)
        partner = "projection"
    if tuple(query.shape) != (*lead, n_query) or 0 in lead:
        wanted = f"(group, {n_query})" if is_grouped else f"({n_query},)"
        raise ValueError(f"query must have shape {wanted} to match {partner}, got {tuple(query.shape)}")
    check_type_and_device("query", query, "hidden", hidden)


def _shapes(
    hidden: Tensor,
    first_rows: Tensor,
    lengths: Tensor,
    query: Tensor | None,
    projected: Tensor | None,
    seeds: Tensor | None,
    groups: Tensor | None,
    dropout_threshold: int,
) -> tuple[Tensor, Tensor]:
    sum_type = _sum_type(hidden)
    return (
        hidden.new_empty(lengths.shape[0], hidden.shape[1], dtype=sum_type),
        hidden.new_empty(hidden.shape[0], dtype=sum_type),
    )


def _backward_shapes(
    grad_context: Tensor,
    grad_attention_weights: Tensor | None,
    hidden: Tensor,
    first_rows: Tensor,
    lengths: Tensor,
    query: Tensor | None,
    projected: Tensor | None,
    seeds: Tensor | None,
    groups: Tensor | None,
    context: Tensor,
    attention_weights: Tensor,
    dropout_threshold: int,
    needs_hidden: bool,
    needs_query: bool,
    needs_projected: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    def gradient_of(tensor: Tensor, is_needed: bool) -> Tensor:
        return tensor.new_empty(tensor.shape if is_needed else (0,))

    return (
        gradient_of(hidden, needs_hidden),
        gradient_of(context if query is None else query, needs_query),
        gradient_of(hidden if projected is None else projected, needs_projected),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.dropout_threshold = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_context: Tensor | None, grad_attention_weights: Tensor | None) -> tuple[Any, ...]:
    hidden, first_rows, lengths, query, projected, seeds, groups, context, attention_weights = ctx.saved_tensors
    needs_hidden, _, _, needs_query, needs_projected, *_ = ctx.needs_input_grad
    grad_hidden, grad_query, grad_projected = torch.ops.serfast.attention_pool_backward(
        torch.zeros_like(context) if grad_context is None else grad_context,
        grad_attention_weights,
        hidden,
        first_rows,
        lengths,
        query,
        projected,
        seeds,
        groups,
        context,
        attention_weights,
        ctx.dropout_threshold,
        needs_hidden,
        needs_query,
        needs_projected,
    )
    return (
        grad_hidden if needs_hidden else None,
        None,
        None,
        grad_query if needs_query else None,
        grad_projected if needs_projected else None,
        None,
        None,
        None,
    )


def _refuse(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
    raise RuntimeError("attention_pool must be differentiated once, got a second derivative; use serfast.reference")


torch.library.register_fake("serfast::attention_pool", _shapes, lib=LIBRARY)
torch.library.register_fake("serfast::attention_pool_backward", _backward_shapes, lib=LIBRARY)
torch.library.register_autograd("serfast::attention_pool", _backward, setup_context=_save, lib=LIBRARY)
torch.library.register_autograd("serfast::attention_pool_backward", _refuse, lib=LIBRARY)
