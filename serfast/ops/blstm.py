"""One LSTM layer of one or both directions over utterances of any length, each from its own first frame to its last."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from serfast.ops._checks import DTYPES
from serfast.ops._library import LIBRARY
from serfast.ops.grouped_linear import grouped_linear
from serfast.ops.groups import Groups
from serfast.ops.lengths import Lengths
from serfast.ops.linear import linear, weight_gradient

__all__ = ["BLSTM_PRECISIONS", "BLSTM_WEIGHTS", "blstm"]

_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_SUFFIXES = ("", "_reverse")  # of the names of each direction
BLSTM_WEIGHTS = tuple(f"{kind}_l0{suffix}" for suffix in _SUFFIXES for kind in _KINDS)
"""Names of the weights, those of a one-layer bidirectional ``torch.nn.LSTM``."""

BLSTM_PRECISIONS = ("high", "highest")
"""What products on CUDA may round: see :func:`blstm`."""

_N_GATES = 4
_PANEL_BYTES = 64  # of one block of units on the CPU, as in csrc/vector.h

LIBRARY.define(
    "blstm_recurrence(Tensor projected, Tensor recurrent, Tensor first_rows, Tensor lengths, Tensor? groups,"
    " Tensor? members, int first_direction, bool is_highest, bool saves) -> (Tensor hidden, Tensor cell, Tensor gates)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
LIBRARY.define(
    "blstm_recurrence_backward(Tensor grad_hidden, Tensor recurrent, Tensor first_rows, Tensor lengths, Tensor? groups,"
    " Tensor cell, Tensor gates, int first_direction, bool is_highest) -> Tensor grad_projected",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def blstm(
    features: Tensor,
    lengths: Tensor | Lengths,
    weights: Mapping[str, Tensor],
    *,
    group: Tensor | Groups | None = None,
    precision: str = "high",
) -> Tensor:
    r"""Run an LSTM layer of one or both directions over the frames of each utterance.

    .. math:: i, f, o = \sigma(W x_t + b + R h_{t-1}), \quad g = \tanh(W x_t + b + R h_{t-1}), \quad
              c_t = f c_{t-1} + i g, \quad h_t = o \tanh c_t

    Each direction starts with a zero state at the utterance's own first (last) frame. Padding is never read. On the
    CPU, and in evaluation on CUDA, an utterance gets the same bits alone and in any batch, packed or padded, and a
    direction gets the same bits alone and beside the other. The weights have the names, shapes and gate order
    (i, f, g, o) of a one-layer bidirectional ``torch.nn.LSTM``; those of one direction alone, forward or reverse, run
    that one.

    Args:
        features: shape (row, feature) packed, or (batch, time, feature) padded; float32 or float64, or a half type,
            which is computed in float32 with float32 weights.
        lengths: valid frames per utterance, shape (batch,), int64, at least 1, on the CPU; or a ``Lengths``.
        weights: the tensors of :data:`BLSTM_WEIGHTS`: ``weight_ih_l0`` (4 * unit, feature), ``weight_hh_l0``
            (4 * unit, unit), ``bias_ih_l0`` and ``bias_hh_l0`` (4 * unit,), and the same with ``_reverse``; each with a
            leading group axis when ``group`` is given.
        group: which weights each utterance uses, shape (batch,), int64, on the CPU, or a ``Groups``. All groups run
            side by side; each change of group along the batch costs a matrix product of its own.
        precision: of products on CUDA. "high", as in torch's own LSTM, may round factors to TF32's 10 bits of
            mantissa: the recurrence does so on sm_90 and newer up to 256 units (relative errors of about 1e-4; more for
            states below 4e-9, and for weights and gates' slopes 2e8 times smaller than the largest of their row, or of
            their utterance's frame), the input's product in training if ``torch.backends.cuda.matmul`` allows it.
            "highest" is float32 in both. Sums are float32 in either; products of weights' gradients are torch's.

    Returns:
        Hidden vectors, forward half then reverse half: (row, 2 * unit) packed, or (batch, time, 2 * unit) padded and
        zero there, and half as wide of one direction; in the type of ``features``.

    Raises:
        TypeError: if a dtype is not supported or differs from that of ``features``.
        ValueError: if a weight is missing or has another name, a shape does not fit, or ``group`` or ``precision`` is
            out of range.

    Source: Hochreiter and Schmidhuber (1997); Graves and Schmidhuber (2005). Reference: ``serfast.reference``.
    """
    if precision not in BLSTM_PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(BLSTM_PRECISIONS)}, got {precision!r}")
    if features.dim() not in (2, 3) or features.shape[-1] == 0:
        raise ValueError(
            f"features must have shape (row, feature) or (batch, time, feature), got {tuple(features.shape)}"
        )
    if features.dtype not in DTYPES:
        raise TypeError(f"features must be float32, float64, bfloat16 or float16, got {features.dtype}")
    if features.dtype in (torch.bfloat16, torch.float16):
        wide = blstm(features.float(), lengths, weights, group=group, precision=precision)
        return wide.to(features.dtype)
    suffixes = _directions_of(weights)
    n_groups = _check_weights(weights, suffixes, features, grouped=group is not None)
    utterances = Lengths.of(lengths, features)
    groups = None if group is None else Groups.of(group, len(utterances.lengths), n_groups, features.device)
    if utterances.n_frames is None:
        return _packed(features, utterances, weights, suffixes, groups, precision)
    packed, rows = _without_padding(utterances)
    frames = features.flatten(0, 1)
    hidden = _packed(frames.index_select(0, rows), packed, weights, suffixes, groups, precision)
    padded: Tensor = hidden.new_zeros(len(frames), hidden.shape[1]).index_copy(0, rows, hidden)
    return padded.view(*features.shape[:2], -1)


def _without_padding(padded: Lengths) -> tuple[Lengths, Tensor]:
    """The frames of a padded batch laid end to end, and the rows (row,) where they lie in it; the host never waits."""
    n_rows, device = int(padded.lengths.sum()), padded.on_device.device
    first_rows = padded.on_device.cumsum(0) - padded.on_device
    shifts = (padded.first_rows - first_rows).repeat_interleave(padded.on_device, output_size=n_rows)
    packed = Lengths(padded.lengths, padded.on_device, first_rows, n_rows, None)
    return packed, torch.arange(n_rows, device=device) + shifts


def _packed(
    features: Tensor,
    utterances: Lengths,
    weights: Mapping[str, Tensor],
    suffixes: Sequence[str],
    groups: Groups | None,
    precision: str,
) -> Tensor:
    n_lanes = _n_lanes(features)
    matrices, biases, states = [], [], []
    for suffix in suffixes:
        matrices.append(_panel_order(weights[f"weight_ih_l0{suffix}"], n_lanes))
        # Ordered before they are added, or the gradients of stacked biases would lie in one memory, where clipping in
        # place scales them twice.
        ordered = [_panel_order(weights[f"{kind}_l0{suffix}"].unsqueeze(-1), n_lanes) for kind in _KINDS[2:]]
        biases.append((ordered[0] + ordered[1]).squeeze(-1))
        states.append(weights[f"weight_hh_l0{suffix}"])
    matrix, bias, recurrent = torch.cat(matrices, -2), torch.cat(biases, -1), torch.stack(states, -3)
    saves = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (features, matrix, bias, recurrent))
    # Evaluation needs linear's order of summation; training on CUDA takes the vendor's product, which is faster there.
    takes_vendors = saves and features.device.type == "cuda" and precision == "high"
    hidden: Tensor
    hidden, _, _ = torch.ops.serfast.blstm_recurrence(
        _projected(features, matrix, bias, utterances, groups, fixed_order=not takes_vendors),
        recurrent.unsqueeze(0) if groups is None else recurrent,
        utterances.first_rows,
        utterances.on_device,
        None if groups is None else groups.on_device,
        None if groups is None else torch.stack([groups.groups, utterances.lengths]),
        _SUFFIXES.index(suffixes[0]),
        precision == "highest",
        saves,
    )
    return hidden


def _projected(
    features: Tensor, matrix: Tensor, bias: Tensor, utterances: Lengths, groups: Groups | None, *, fixed_order: bool
) -> Tensor:
    """W x + b of every row, (row, direction * block * gate * lane)."""
    if groups is not None:
        counts = utterances.lengths
        return grouped_linear(features, matrix, groups.groups, counts, bias=bias, fixed_order=fixed_order)
    return linear(features, matrix, bias) if fixed_order else torch.addmm(bias, features, matrix.T)


def _n_lanes(tensor: Tensor) -> int:
    """Units per block of the panel order (csrc/blstm.h)."""
    return _PANEL_BYTES // tensor.element_size() if tensor.device.type == "cpu" else 1


def _panel_order(weight: Tensor, n_lanes: int) -> Tensor:
    """Rows of a weight (..., (gate, unit), column) in panel order (block, gate, lane), zero rows beyond the units."""
    by_gate = weight.unflatten(-2, (_N_GATES, -1))
    n_blocks = -(-by_gate.shape[-2] // n_lanes)
    filled = functional.pad(by_gate, (0, 0, 0, n_blocks * n_lanes - by_gate.shape[-2]))
    ordered: Tensor = filled.unflatten(-2, (n_blocks, n_lanes)).transpose(-4, -3).flatten(-4, -2)
    return ordered


def _gate_order(rows: Tensor, n_units: int, n_lanes: int) -> Tensor:
    """The reverse of :func:`_panel_order`."""
    by_gate: Tensor = rows.unflatten(-2, (-1, _N_GATES, n_lanes)).transpose(-4, -3).flatten(-3, -2)
    return by_gate[..., :n_units, :].flatten(-3, -2)


def _directions_of(weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The suffixes of the directions whose weights there are."""
    if unknown := [name for name in weights if name not in BLSTM_WEIGHTS]:
        raise ValueError(f"weights must hold only {', '.join(BLSTM_WEIGHTS)}, got {', '.join(unknown)}")
    found = tuple(suffix for suffix in _SUFFIXES if any(f"{kind}_l0{suffix}" in weights for kind in _KINDS))
    names = [f"{kind}_l0{suffix}" for suffix in found or _SUFFIXES for kind in _KINDS]
    if missing := [name for name in names if name not in weights]:
        raise ValueError(f"weights must hold {', '.join(names)}, got none for {', '.join(missing)}")
    return found


def _check_weights(weights: Mapping[str, Tensor], suffixes: Sequence[str], features: Tensor, *, grouped: bool) -> int:
    first_name = f"weight_hh_l0{suffixes[0]}"
    first = weights[first_name]
    n_leading = 1 if grouped else 0
    if first.dim() != 2 + n_leading or 0 in first.shape:
        shape = "(group, 4 * unit, unit)" if grouped else "(4 * unit, unit)"
        raise ValueError(f"{first_name} must have shape {shape}, got {tuple(first.shape)}")
    leading, n_units = tuple(first.shape[:n_leading]), first.shape[-1]
    columns = {"weight_ih": (features.shape[-1],), "weight_hh": (n_units,), "bias_ih": (), "bias_hh": ()}
    for name, tensor in weights.items():
        expected = (*leading, _N_GATES * n_units, *columns[name.partition("_l0")[0]])
        if tuple(tensor.shape) != expected:
            raise ValueError(f"{name} must have shape {expected} to match features, got {tuple(tensor.shape)}")
        if tensor.dtype != features.dtype:
            raise TypeError(f"{name} must be {features.dtype} like features, got {tensor.dtype}")
        if tensor.device != features.device:
            raise ValueError(f"{name} must be on {features.device} like features, got {tensor.device}")
    return first.shape[0] if grouped else 1


@torch.library.register_fake("serfast::blstm_recurrence", lib=LIBRARY)
def _shapes(
    projected: Tensor,
    recurrent: Tensor,
    first_rows: Tensor,
    lengths: Tensor,
    groups: Tensor | None,
    members: Tensor | None,
    first_direction: int,
    is_highest: bool,
    saves: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    n_rows, n_panel = projected.shape
    n_saved = n_rows if saves else 0
    hidden = projected.new_empty(n_rows, recurrent.shape[1] * recurrent.shape[3])
    return hidden, projected.new_empty(n_saved, n_panel // _N_GATES), projected.new_empty(n_saved, n_panel)


@torch.library.register_fake("serfast::blstm_recurrence_backward", lib=LIBRARY)
def _backward_shapes(
    grad_hidden: Tensor,
    recurrent: Tensor,
    first_rows: Tensor,
    lengths: Tensor,
    groups: Tensor | None,
    cell: Tensor,
    gates: Tensor,
    first_direction: int,
    is_highest: bool,
) -> Tensor:
    return torch.empty_like(gates)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, *tensors, ctx.first_direction, ctx.is_highest, _ = inputs
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_hidden: Tensor | None, *_: Tensor | None) -> tuple[Any, ...]:
    recurrent, first_rows, lengths, groups, members, hidden, cell, gates = ctx.saved_tensors
    unneeded = (None,) * 7
    if grad_hidden is None:
        return None, None, *unneeded
    grad_projected = torch.ops.serfast.blstm_recurrence_backward(
        grad_hidden, recurrent, first_rows, lengths, groups, cell, gates, ctx.first_direction, ctx.is_highest
    )
    if not ctx.needs_input_grad[1]:
        return grad_projected, None, *unneeded
    n_groups, n_directions, _, n_units = recurrent.shape

    def product(slopes: Tensor, own: Tensor, direction: int) -> Tensor:  # where the states of one direction live
        states = _states_before(own, first_rows, lengths, direction)
        if members is None:
            return weight_gradient(slopes, states)[None]
        summed: Tensor = torch.ops.serfast.grouped_linear_grad_weights(slopes, states, *members, n_groups, True)
        return summed

    slopes = grad_projected.unflatten(1, (n_directions, -1)).unbind(1)
    directions = range(ctx.first_direction, ctx.first_direction + n_directions)
    products = map(product, slopes, hidden.split(n_units, 1), directions)
    by_gate = [_gate_order(summed, n_units, _n_lanes(hidden)) for summed in products]
    return grad_projected, torch.stack(by_gate, 1), *unneeded


def _states_before(hidden: Tensor, first_rows: Tensor, lengths: Tensor, direction: int) -> Tensor:
    """The state (row, unit) that a direction had before each frame, of its hidden vectors (row, unit)."""
    is_forward = _SUFFIXES[direction] == ""
    states = hidden.roll(1 if is_forward else -1, 0)
    # An assignment would copy its 0 from the host, and wait.
    return states.index_fill_(0, first_rows if is_forward else first_rows + lengths - 1, 0.0)


def _refuse(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
    raise RuntimeError("blstm must be differentiated once, got a second derivative; use serfast.reference")


torch.library.register_autograd("serfast::blstm_recurrence", _backward, setup_context=_save, lib=LIBRARY)
torch.library.register_autograd("serfast::blstm_recurrence_backward", _refuse, lib=LIBRARY)
