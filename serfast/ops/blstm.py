"""One bidirectional LSTM layer over utterances of any length, each from its own first frame to its last."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from serfast.ops._checks import DTYPES
from serfast.ops._library import LIBRARY
from serfast.ops.lengths import Lengths
from serfast.ops.linear import linear, weight_gradient

__all__ = ["BLSTM_WEIGHTS", "blstm"]

BLSTM_WEIGHTS = tuple(
    f"{kind}_l0{suffix}" for suffix in ("", "_reverse") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
)
"""Names of the weights, those of a one-layer bidirectional ``torch.nn.LSTM``."""

_N_GATES = 4
_PANEL_BYTES = 64  # of one block of units on the CPU, as in csrc/vector.h
_PRECISIONS = ("high", "highest")

LIBRARY.define(
    "blstm_recurrence(Tensor projected, Tensor recurrent, Tensor first_rows, Tensor lengths, bool saves)"
    " -> (Tensor hidden, Tensor cell, Tensor gates)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
LIBRARY.define(
    "blstm_recurrence_backward(Tensor grad_hidden, Tensor recurrent, Tensor first_rows, Tensor lengths, Tensor cell,"
    " Tensor gates) -> Tensor grad_projected",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def blstm(
    features: Tensor,
    lengths: Tensor | Lengths,
    weights: Mapping[str, Tensor],
    *,
    group: Tensor | None = None,
    precision: str = "high",
) -> Tensor:
    r"""Run a bidirectional LSTM layer over the frames of each utterance.

    .. math:: i, f, o = \sigma(W x_t + b + R h_{t-1}), \quad g = \tanh(W x_t + b + R h_{t-1}), \quad
              c_t = f c_{t-1} + i g, \quad h_t = o \tanh c_t

    Each direction starts with a zero state at the utterance's own first (last) frame. Padding is never read. On the
    CPU, and in evaluation on CUDA, an utterance gets the same bits alone and in any batch, packed or padded. The
    weights have the names, shapes and gate order (i, f, g, o) of a one-layer bidirectional ``torch.nn.LSTM``.

    Args:
        features: shape (row, feature) packed, or (batch, time, feature) padded; float32 or float64, or a half type,
            which is computed in float32 with float32 weights.
        lengths: valid frames per utterance, shape (batch,), int64, at least 1, on the CPU; or a ``Lengths``.
        weights: the tensors of :data:`BLSTM_WEIGHTS`: ``weight_ih_l0`` (4 * unit, feature), ``weight_hh_l0``
            (4 * unit, unit), ``bias_ih_l0`` and ``bias_hh_l0`` (4 * unit,), and the same with ``_reverse``; each with a
            leading group axis when ``group`` is given.
        group: which weights each utterance uses, shape (batch,), int64, on the CPU.
        precision: of the products on CUDA: "high" (TF32 grade) or "highest" (float32). The CPU always uses float32.

    Returns:
        Hidden vectors, forward half then reverse half: (row, 2 * unit) packed, or (batch, time, 2 * unit) padded and
        zero there; in the type of ``features``.

    Raises:
        TypeError: if a dtype is not supported or differs from that of ``features``.
        ValueError: if a weight is missing, a shape does not fit, or ``group`` or ``precision`` is out of range.

    Source: Hochreiter and Schmidhuber (1997); Graves and Schmidhuber (2005). Reference: ``serfast.reference``.
    """
    if precision not in _PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(_PRECISIONS)}, got {precision!r}")
    if features.dim() not in (2, 3) or features.shape[-1] == 0:
        raise ValueError(
            f"features must have shape (row, feature) or (batch, time, feature), got {tuple(features.shape)}"
        )
    if features.dtype not in DTYPES:
        raise TypeError(f"features must be float32, float64, bfloat16 or float16, got {features.dtype}")
    if features.dtype in (torch.bfloat16, torch.float16):
        wide = blstm(features.float(), lengths, weights, group=group, precision=precision)
        return wide.to(features.dtype)
    n_groups = _check_weights(weights, features, grouped=group is not None)
    utterances = Lengths.of(lengths, features)
    if group is not None:
        _check_group(group, len(utterances.lengths), n_groups)
    if utterances.n_frames is None:
        return _packed(features, utterances, weights, group)
    is_frame = torch.arange(utterances.n_frames, device=features.device) < utterances.on_device[:, None]
    packed = Lengths.packed(utterances.lengths, device=features.device)
    hidden = _packed(features[is_frame], packed, weights, group)
    padded = hidden.new_zeros(*is_frame.shape, hidden.shape[1])
    return padded.masked_scatter(is_frame[..., None], hidden)


def _packed(features: Tensor, utterances: Lengths, weights: Mapping[str, Tensor], group: Tensor | None) -> Tensor:
    if group is None:
        return _layer(features, utterances, weights)
    group_of_row = torch.repeat_interleave(group, utterances.lengths)
    hidden = features.new_zeros(len(features), 2 * weights["weight_hh_l0"].shape[-1])
    for member in group.unique().tolist():
        rows = (group_of_row == member).nonzero()[:, 0].to(features.device)
        own = Lengths.packed(utterances.lengths[group == member], device=features.device)
        own_weights = {name: weights[name][member] for name in BLSTM_WEIGHTS}
        hidden = hidden.index_copy(0, rows, _layer(features[rows], own, own_weights))
    return hidden


def _layer(features: Tensor, utterances: Lengths, weights: Mapping[str, Tensor]) -> Tensor:
    n_lanes = _n_lanes(features)
    matrices, biases, recurrent = [], [], []
    for suffix in ("", "_reverse"):
        matrices.append(_panel_order(weights[f"weight_ih_l0{suffix}"], n_lanes))
        bias = weights[f"bias_ih_l0{suffix}"] + weights[f"bias_hh_l0{suffix}"]
        biases.append(_panel_order(bias[:, None], n_lanes)[:, 0])
        recurrent.append(weights[f"weight_hh_l0{suffix}"])
    matrix, bias, both = torch.cat(matrices), torch.cat(biases), torch.stack(recurrent)
    saves = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (features, matrix, bias, both))
    # Evaluation needs linear's order of summation; training on CUDA takes the vendor's product, which is faster there.
    trains_on_cuda = saves and features.device.type == "cuda"
    projected = torch.addmm(bias, features, matrix.T) if trains_on_cuda else linear(features, matrix, bias)
    hidden: Tensor
    hidden, _, _ = torch.ops.serfast.blstm_recurrence(
        projected,
        both,
        utterances.first_rows,
        utterances.on_device,
        saves,
    )
    return hidden


def _n_lanes(tensor: Tensor) -> int:
    """Units per block of the panel order (csrc/blstm.h)."""
    return _PANEL_BYTES // tensor.element_size() if tensor.device.type == "cpu" else 1


def _panel_order(weight: Tensor, n_lanes: int) -> Tensor:
    """Rows (gate, unit) of a weight in panel order (block, gate, lane), with zero rows beyond the units."""
    by_gate = weight.unflatten(0, (_N_GATES, -1))
    n_blocks = -(-by_gate.shape[1] // n_lanes)
    filled = functional.pad(by_gate, (0, 0, 0, n_blocks * n_lanes - by_gate.shape[1]))
    ordered: Tensor = filled.unflatten(1, (n_blocks, n_lanes)).transpose(0, 1).flatten(0, 2)
    return ordered


def _gate_order(rows: Tensor, n_units: int, n_lanes: int) -> Tensor:
    """The reverse of :func:`_panel_order`."""
    by_gate: Tensor = rows.unflatten(0, (-1, _N_GATES, n_lanes)).transpose(0, 1).flatten(1, 2)
    return by_gate[:, :n_units].flatten(0, 1)


def _check_weights(weights: Mapping[str, Tensor], features: Tensor, *, grouped: bool) -> int:
    missing = [name for name in BLSTM_WEIGHTS if name not in weights]
    if missing:
        raise ValueError(f"weights must hold {', '.join(BLSTM_WEIGHTS)}, got none for {', '.join(missing)}")
    first = weights["weight_hh_l0"]
    n_leading = 1 if grouped else 0
    if first.dim() != 2 + n_leading or first.shape[-1] == 0:
        shape = "(group, 4 * unit, unit)" if grouped else "(4 * unit, unit)"
        raise ValueError(f"weight_hh_l0 must have shape {shape}, got {tuple(first.shape)}")
    leading, n_units = tuple(first.shape[:n_leading]), first.shape[-1]
    columns = {"weight_ih": (features.shape[-1],), "weight_hh": (n_units,), "bias_ih": (), "bias_hh": ()}
    for name in BLSTM_WEIGHTS:
        tensor, expected = weights[name], (*leading, _N_GATES * n_units, *columns[name.partition("_l0")[0]])
        if tuple(tensor.shape) != expected:
            raise ValueError(f"{name} must have shape {expected} to match features, got {tuple(tensor.shape)}")
        if tensor.dtype != features.dtype:
            raise TypeError(f"{name} must be {features.dtype} like features, got {tensor.dtype}")
        if tensor.device != features.device:
            raise ValueError(f"{name} must be on {features.device} like features, got {tensor.device}")
    return first.shape[0] if grouped else 1


def _check_group(group: Tensor, n_utterances: int, n_groups: int) -> None:
    if group.dtype != torch.int64 or group.device.type != "cpu":
        raise TypeError(f"group must be an int64 tensor on the CPU, got {group.dtype} on {group.device}")
    if tuple(group.shape) != (n_utterances,):
        raise ValueError(f"group must have shape ({n_utterances},) to match lengths, got {tuple(group.shape)}")
    if int(group.min()) < 0 or int(group.max()) >= n_groups:
        raise ValueError(f"group must lie in 0..{n_groups - 1}, got {int(group.min())}..{int(group.max())}")


@torch.library.register_fake("serfast::blstm_recurrence", lib=LIBRARY)
def _shapes(
    projected: Tensor, recurrent: Tensor, first_rows: Tensor, lengths: Tensor, saves: bool
) -> tuple[Tensor, Tensor, Tensor]:
    n_rows, n_panel = projected.shape
    n_saved = n_rows if saves else 0
    hidden = projected.new_empty(n_rows, 2 * recurrent.shape[2])
    return hidden, projected.new_empty(n_saved, n_panel // _N_GATES), projected.new_empty(n_saved, n_panel)


@torch.library.register_fake("serfast::blstm_recurrence_backward", lib=LIBRARY)
def _backward_shapes(
    grad_hidden: Tensor,
    recurrent: Tensor,
    first_rows: Tensor,
    lengths: Tensor,
    cell: Tensor,
    gates: Tensor,
) -> Tensor:
    return torch.empty_like(gates)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, recurrent, first_rows, lengths, _ = inputs
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(recurrent, first_rows, lengths, *output)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_hidden: Tensor | None, *_: Tensor | None) -> tuple[Any, ...]:
    recurrent, first_rows, lengths, hidden, cell, gates = ctx.saved_tensors
    needs_recurrent = ctx.needs_input_grad[1]
    if grad_hidden is None:
        return None, None, None, None, None
    grad_projected = torch.ops.serfast.blstm_recurrence_backward(
        grad_hidden, recurrent, first_rows, lengths, cell, gates
    )
    grad_recurrent = _grad_recurrent(grad_projected, hidden, first_rows, lengths) if needs_recurrent else None
    return grad_projected, grad_recurrent, None, None, None


def _grad_recurrent(grad_projected: Tensor, hidden: Tensor, first_rows: Tensor, lengths: Tensor) -> Tensor:
    """Sum over all rows of gate slopes times the state before: one large product per direction."""
    n_units, n_lanes = hidden.shape[1] // 2, _n_lanes(hidden)
    onward, reverse = torch.zeros_like(hidden[:, :n_units]), torch.zeros_like(hidden[:, n_units:])
    onward[1:] = hidden[:-1, :n_units]
    onward[first_rows] = 0
    reverse[:-1] = hidden[1:, n_units:]
    reverse[first_rows + lengths - 1] = 0
    slopes = grad_projected.unflatten(1, (2, -1)).unbind(1)
    products = [weight_gradient(slope, state) for slope, state in zip(slopes, (onward, reverse), strict=True)]
    return torch.stack([_gate_order(product, n_units, n_lanes) for product in products])


def _refuse(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
    raise RuntimeError("blstm must be differentiated once, got a second derivative; use serfast.reference")


torch.library.register_autograd("serfast::blstm_recurrence", _backward, setup_context=_save, lib=LIBRARY)
torch.library.register_autograd("serfast::blstm_recurrence_backward", _refuse, lib=LIBRARY)
