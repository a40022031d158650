"""blstm on CUDA, real or emulated: the values of torch in double precision, and what must never change them."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from serfast import reference
from serfast.ops import BLSTM_WEIGHTS, Lengths, blstm

pytestmark = pytest.mark.usefixtures("full_precision_products")

LENGTHS = [17, 1, 33, 26, 7, 14, 5, 2, 21, 9, 3]


def example(n_units: int) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(n_units)
    weights = dict(nn.LSTM(28, n_units, bidirectional=True).named_parameters())
    return torch.randn(sum(LENGTHS), 28), {name: weights[name].detach() for name in BLSTM_WEIGHTS}


def results(
    layer,
    rows: Tensor,
    weights: dict[str, Tensor],
    *,
    group: Tensor | None = None,
    lengths: Sequence[int] = LENGTHS,
    precision: str = "high",
) -> list[Tensor]:
    rows = rows.clone().requires_grad_()
    weights = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    hidden = layer(rows, torch.tensor(lengths), weights, group=group, precision=precision)
    return [hidden.detach(), *torch.autograd.grad(hidden.square().sum(), [rows, *weights.values()])]


class Kernels(NamedTuple):
    """A precision, and the relative errors that it allows the hidden vectors and the gradients."""

    precision: str
    error: float
    grad_error: float

    def check(self, found: list[Tensor], exact: list[Tensor]) -> None:
        for place, (result, truth) in enumerate(zip(found, exact, strict=True)):
            at_most = self.error if place == 0 else self.grad_error
            assert (result.cpu().double() - truth).norm() <= at_most * truth.norm()


@pytest.fixture(params=["tensor cores", "clusters", "single blocks"])
def kernels(request, device) -> Kernels:
    """Which kernels run: those of sm_90 for either precision, or those of every device, which need an emulated one."""
    if request.param == "single blocks":
        if device.type == "cuda":
            pytest.skip("only an emulated device can be an older one")
        request.getfixturevalue("emulated_cuda").emulated_cuda_capability(8)
    return Kernels("high", 5e-4, 1e-3) if request.param == "tensor cores" else Kernels("highest", 5e-6, 5e-5)


@pytest.mark.parametrize("n_units", [1, 17, 33, 100, 128, 256, 300])
def test_equals_the_reference_in_double_precision(device, kernels, n_units: int):
    rows, weights = example(n_units)
    on_device = {name: weight.to(device) for name, weight in weights.items()}
    found = results(blstm, rows.to(device), on_device, precision=kernels.precision)
    kernels.check(
        found, results(reference.blstm, rows.double(), {name: weight.double() for name, weight in weights.items()})
    )


def test_long_utterances_equal_the_reference(device, kernels):
    _, weights = example(32)
    lengths = [1, 1546, 3400]
    rows = torch.randn(sum(lengths), 28)
    on_device = {name: weight.to(device) for name, weight in weights.items()}
    found = results(blstm, rows.to(device), on_device, lengths=lengths, precision=kernels.precision)
    double = {name: weight.double() for name, weight in weights.items()}
    kernels.check(found, results(reference.blstm, rows.double(), double, lengths=lengths))


@pytest.mark.parametrize("n_units", [200, 300, 1030])  # tiles of 8, 2 and 1 utterances
def test_equals_the_reference_in_double_precision_numbers(device, n_units: int):
    rows, weights = example(n_units)
    rows, weights = rows.double(), {name: weight.double() for name, weight in weights.items()}
    lengths = [3, 1, 5]
    found = results(
        blstm, rows[:9].to(device), {name: weight.to(device) for name, weight in weights.items()}, lengths=lengths
    )
    exact = results(reference.blstm, rows[:9], weights, lengths=lengths)
    for result, truth in zip(found, exact, strict=True):
        torch.testing.assert_close(result.cpu(), truth, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("suffixes", [("", "_reverse"), ("",), ("_reverse",)])
def test_groups_and_single_directions_equal_the_reference(device, kernels, suffixes: tuple[str, ...]):
    rows, weights = example(40)
    weights = {name: weight for name, weight in weights.items() if name.partition("_l0")[2] in suffixes}
    stacked = {name: torch.stack([weight, -weight, 2 * weight]) for name, weight in weights.items()}
    group = torch.tensor([2, 0, 2, 1, 0, 0, 2, 2, 1, 0, 0])
    on_device = {name: weight.to(device) for name, weight in stacked.items()}
    found = results(blstm, rows.to(device), on_device, group=group, precision=kernels.precision)
    double = {name: weight.double() for name, weight in stacked.items()}
    kernels.check(found, results(reference.blstm, rows.double(), double, group=group))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_inputs_and_weights_of_any_scale_are_in_tolerance(device, kernels, scale: float):
    rows, weights = example(33)
    weights = {name: weight * scale if "weight_ih" in name else weight for name, weight in weights.items()}
    on_device = {name: weight.to(device) for name, weight in weights.items()}
    found = results(blstm, (rows / scale).to(device), on_device, precision=kernels.precision)
    double = {name: weight.double() for name, weight in weights.items()}
    kernels.check(found, results(reference.blstm, (rows / scale).double(), double))


def test_tiny_inputs_are_in_tolerance(device, kernels):
    rows, weights = example(33)
    weights = {name: weight * (0 if "bias" in name else 1) for name, weight in weights.items()}
    on_device = {name: weight.to(device) for name, weight in weights.items()}
    found = results(blstm, (1e-6 * rows).to(device), on_device, precision=kernels.precision)
    double = {name: weight.double() for name, weight in weights.items()}
    kernels.check(found, results(reference.blstm, 1e-6 * rows.double(), double))


def test_tiny_recurrent_weights_are_in_tolerance(device, kernels):
    rows, weights = example(33)
    weights = {name: weight * (1e-6 if "weight_hh" in name else 1) for name, weight in weights.items()}
    on_device = {name: weight.to(device) for name, weight in weights.items()}
    found = results(blstm, rows.to(device), on_device, precision=kernels.precision)
    double = {name: weight.double() for name, weight in weights.items()}
    kernels.check(found, results(reference.blstm, rows.double(), double))


def test_huge_recurrent_weights_leave_everything_finite(device, kernels):
    rows, weights = example(33)  # gates are steps then, and any rounding may lead elsewhere
    on_device = {name: (weight * (1e6 if "weight_hh" in name else 1)).to(device) for name, weight in weights.items()}
    found = results(blstm, rows.to(device), on_device, precision=kernels.precision)
    assert all(result.isfinite().all() for result in found)
    assert found[0].abs().max() <= 1 + 1e-6  # approximate functions may step over it


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_slopes_of_any_scale_are_in_tolerance(device, kernels, scale: float):
    rows, weights = example(33)

    def gradients(layer, rows: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
        weights = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        hidden = layer(rows, torch.tensor(LENGTHS), weights, precision=kernels.precision)
        return list(torch.autograd.grad(hidden.sum() * scale, list(weights.values())))

    found = gradients(blstm, rows.to(device), {name: weight.to(device) for name, weight in weights.items()})
    exact = gradients(reference.blstm, rows.double(), {name: weight.double() for name, weight in weights.items()})
    kernels.check([torch.ones(1), *found], [torch.ones(1), *exact])


def test_slopes_of_neighbours_in_other_scales_are_in_tolerance(device, kernels):
    rows, weights = example(33)
    scales = torch.logspace(-35, 32, len(LENGTHS), dtype=torch.float64).repeat_interleave(torch.tensor(LENGTHS))

    def gradients(layer, rows: Tensor, weights: dict[str, Tensor]) -> Tensor:
        rows = rows.clone().requires_grad_()
        hidden = layer(rows, torch.tensor(LENGTHS), weights, precision=kernels.precision)
        slopes = scales[:, None].to(hidden.device, hidden.dtype).expand_as(hidden)
        return torch.autograd.grad(hidden, rows, slopes)[0].cpu().double() / scales[:, None]

    found = gradients(blstm, rows.to(device), {name: weight.to(device) for name, weight in weights.items()})
    exact = gradients(reference.blstm, rows.double(), {name: weight.double() for name, weight in weights.items()})
    kernels.check([torch.ones(1), *found.split(LENGTHS)], [torch.ones(1), *exact.split(LENGTHS)])


@torch.no_grad()
@pytest.mark.parametrize("counts", [[50, 0, 3, 2], [0, 0, 0, 0], [1, 50, 7, 30]])
def test_rows_of_no_utterance_and_utterances_without_rows_change_nothing(device, kernels, counts: list[int]):
    recurrent = torch.randn(1, 2, 4 * 40, 40, generator=torch.Generator().manual_seed(0)).to(device)
    projected = torch.randn(200, 8 * 40, device=device)
    first_rows = torch.tensor([0, 50, 100, 150], device=device)

    def run(places: Tensor) -> Tensor:
        lengths = torch.tensor(counts, device=device)[places]
        arguments = (first_rows[places], lengths, None, None, 0, kernels.precision == "highest", False)
        return torch.ops.serfast.blstm_recurrence(projected, recurrent, *arguments)[0]

    together = run(torch.arange(4, device=device))
    for place, count in enumerate(counts):
        rows = slice(50 * place, 50 * place + count)
        assert torch.equal(together[rows], run(torch.tensor([place], device=device))[rows])


@torch.no_grad()
def test_what_lies_outside_of_the_rows_or_groups_is_clamped(device, kernels):
    recurrent = torch.randn(2, 2, 4 * 33, 33, generator=torch.Generator().manual_seed(0)).to(device)
    projected = torch.randn(60, 8 * 33, device=device)
    options = (0, kernels.precision == "highest")

    def run(first_rows: list[int], lengths: list[int], groups: list[int]) -> list[Tensor]:
        batch = tuple(torch.tensor(numbers, device=device) for numbers in (first_rows, lengths, groups))
        hidden, cell, gates = torch.ops.serfast.blstm_recurrence(projected, recurrent, *batch, None, *options, True)
        backward = torch.ops.serfast.blstm_recurrence_backward
        return [hidden, backward(torch.ones_like(hidden), recurrent, *batch, cell, gates, *options)]

    outside = run([0, 10, 40, 10**9, 50], [10, 30, 10**9, 5, -3], [-5, 99, 1, 0, 0])
    for result, inside in zip(outside, run([0, 10, 40], [10, 30, 20], [0, 1, 1]), strict=True):
        assert torch.equal(result, inside)


@torch.no_grad()
def test_the_recurrence_gives_an_utterance_the_same_bits_in_any_batch(device, kernels):
    rows, weights = example(128)
    rows, weights = rows.to(device), {name: weight.to(device) for name, weight in weights.items()}
    projected = torch.randn(len(rows), 8 * 128, device=device)
    recurrent = torch.stack([weights["weight_hh_l0"], weights["weight_hh_l0_reverse"]])[None]

    def run(pieces: list[Tensor]) -> list[Tensor]:
        batch = Lengths.packed(torch.tensor([len(piece) for piece in pieces]), device=device)
        arguments = (batch.first_rows, batch.on_device, None, None, 0, kernels.precision == "highest", False)
        hidden = torch.ops.serfast.blstm_recurrence(torch.cat(pieces), recurrent, *arguments)[0]
        return list(hidden.split([len(piece) for piece in pieces]))

    pieces = list(projected.split(LENGTHS))
    for place, together in enumerate(run(pieces)):
        assert torch.equal(together, run([pieces[place]])[0])


def test_infinite_weights_give_an_utterance_the_same_slopes_in_any_batch(device, kernels):
    recurrent = torch.randn(1, 2, 4 * 33, 33, generator=torch.Generator().manual_seed(0)).to(device)
    projected = torch.randn(12, 8 * 33, device=device)
    settings = (None, None, 0, kernels.precision == "highest")

    def slopes(first_rows: list[int], lengths: list[int]) -> Tensor:
        batch = (torch.tensor(first_rows, device=device), torch.tensor(lengths, device=device))
        hidden, cell, gates = torch.ops.serfast.blstm_recurrence(projected, recurrent, *batch, *settings, True)
        infinite = recurrent.clone()
        infinite[..., 0, 0] = torch.inf
        backward = torch.ops.serfast.blstm_recurrence_backward
        return backward(torch.ones_like(hidden), infinite, *batch, None, cell, gates, 0, settings[3])[:3]

    assert torch.equal(slopes([0, 3], [3, 9]).nan_to_num(7.0), slopes([0], [3]).nan_to_num(7.0))


def test_tensors_that_start_off_a_boundary_give_the_same_bits(device, kernels):
    def moved(tensor: Tensor) -> Tensor:
        away = torch.empty(tensor.numel() + 1, device=device)[1:].view_as(tensor).copy_(tensor)
        assert away.data_ptr() % 16 != 0
        return away

    projected, recurrent = torch.randn(9, 8 * 33, device=device), torch.randn(1, 2, 4 * 33, 33, device=device)
    batch = (torch.tensor([0, 4], device=device), torch.tensor([4, 5], device=device), None)
    is_highest = kernels.precision == "highest"
    saved = torch.ops.serfast.blstm_recurrence(projected, recurrent, *batch, None, 0, is_highest, True)
    again = torch.ops.serfast.blstm_recurrence(moved(projected), moved(recurrent), *batch, None, 0, is_highest, True)
    assert all(torch.equal(one, other) for one, other in zip(saved, again, strict=True))
    hidden, cell, gates = saved
    backward = torch.ops.serfast.blstm_recurrence_backward
    slopes = backward(hidden, recurrent, *batch, cell, gates, 0, is_highest)
    again = backward(moved(hidden), moved(recurrent), *batch, moved(cell), moved(gates), 0, is_highest)
    assert torch.equal(slopes, again)


@pytest.mark.parametrize("precision", ["high", "highest"])
def test_layers_without_room_for_their_clusters_run_on_single_blocks(emulated_cuda, precision: str):
    def found(n_units: int) -> list[Tensor]:
        return results(blstm, *example(n_units), precision=precision)

    on_clusters = found(100)
    emulated_cuda.emulated_cuda_capability(8)
    on_blocks = found(200)
    emulated_cuda.emulated_cuda_capability(9)
    emulated_cuda.emulated_cuda_most_cluster_blocks(4)
    assert all(torch.equal(*pair) for pair in zip(found(100), on_clusters, strict=True))
    assert all(torch.equal(*pair) for pair in zip(found(200), on_blocks, strict=True))


@torch.no_grad()
@pytest.mark.parametrize(("n_groups", "n_utterances"), [(3, 1), (3, 60), (7, 40), (300, 3)])
def test_every_utterance_has_the_bits_of_its_group_alone(device, kernels, n_groups: int, n_utterances: int):
    generator = torch.Generator().manual_seed(n_groups)
    recurrent = torch.randn(n_groups, 1, 4 * 2, 2, generator=generator).to(device)
    groups = torch.randint(n_groups, (n_utterances,), generator=generator)
    groups[0] = n_groups - 1
    lengths = torch.randint(1, 5, (n_utterances,), generator=generator)
    projected = torch.randn(int(lengths.sum()), 4 * 2, generator=generator).to(device)
    options = (0, kernels.precision == "highest")

    def run(rows: Tensor, places: Tensor, matrices: Tensor, groups: Tensor | None) -> list[Tensor]:
        lengths_there = Lengths.packed(lengths[places], device=device)
        batch = (lengths_there.first_rows, lengths_there.on_device, groups)
        hidden, cell, gates = torch.ops.serfast.blstm_recurrence(rows, matrices, *batch, None, *options, True)
        backward = torch.ops.serfast.blstm_recurrence_backward
        return [hidden, backward(torch.ones_like(hidden), matrices, *batch, cell, gates, *options)]

    together = run(projected, torch.arange(n_utterances), recurrent, groups.to(device))
    group_of_row = groups.repeat_interleave(lengths)
    for group in groups.unique().tolist():
        own = (group_of_row == group).to(device)
        alone = run(projected[own], groups == group, recurrent[group : group + 1], None)
        assert all(torch.equal(result[own], truth) for result, truth in zip(together, alone, strict=True))


@pytest.mark.cuda
def test_the_highest_precision_in_training_is_not_touched_by_torchs_tf32(cuda):
    rows, weights = example(128)
    rows, weights = rows.to(cuda), {name: weight.to(cuda).requires_grad_() for name, weight in weights.items()}
    lengths = torch.tensor(LENGTHS)
    plain = blstm(rows, lengths, weights, precision="highest")
    torch.backends.cuda.matmul.allow_tf32 = True  # put back by full_precision_products
    assert torch.equal(blstm(rows, lengths, weights, precision="highest"), plain)


@pytest.mark.cuda
@pytest.mark.parametrize("is_highest", [False, True])
def test_a_captured_graph_replays_with_other_lengths(cuda, is_highest: bool):
    _, weights = example(64)
    weights = {name: weight.to(cuda) for name, weight in weights.items()}
    recurrent = torch.stack([weights["weight_hh_l0"], weights["weight_hh_l0_reverse"]])[None]
    projected = torch.randn(200, 8 * 64, device=cuda)
    first_rows = torch.tensor([0, 50, 100, 150], device=cuda)
    lengths = torch.tensor([50, 50, 50, 50], device=cuda)

    def run() -> list[Tensor]:
        batch, options = (first_rows, lengths, None), (0, is_highest)
        hidden, cell, gates = torch.ops.serfast.blstm_recurrence(projected, recurrent, *batch, None, *options, True)
        backward = torch.ops.serfast.blstm_recurrence_backward
        return [hidden, backward(projected[:, :128].contiguous(), recurrent, *batch, cell, gates, *options)]

    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for counts in ([50, 50, 50, 50], [1, 50, 7, 30], [50, 0, 3, 2]):
        lengths.copy_(torch.tensor(counts))
        graph.replay()
        for result, plain in zip(captured, run(), strict=True):
            for place, count in enumerate(counts):
                assert torch.equal(result[50 * place : 50 * place + count], plain[50 * place : 50 * place + count])
