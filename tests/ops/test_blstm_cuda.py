"""blstm on CUDA: the values of torch in double precision, and what must never change them."""

import os

import pytest
import torch
from torch import Tensor, nn

from serfast import reference
from serfast.ops import BLSTM_WEIGHTS, Lengths, blstm, has_cuda_kernels

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not (torch.cuda.is_available() and has_cuda_kernels()) and os.environ.get("SERFAST_REQUIRE_CUDA") != "1",
        reason="needs a CUDA device and serfast._C_cuda",
    ),
]

LENGTHS = [40, 1, 99, 60, 7, 31, 13, 2, 55, 23, 8]


@pytest.fixture(autouse=True)
def full_precision_products():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def example(n_units: int) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(n_units)
    weights = dict(nn.LSTM(28, n_units, bidirectional=True).named_parameters())
    return torch.randn(sum(LENGTHS), 28), {name: weights[name].detach() for name in BLSTM_WEIGHTS}


def results(layer, rows: Tensor, weights: dict[str, Tensor], group: Tensor | None = None) -> list[Tensor]:
    rows = rows.clone().requires_grad_()
    weights = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    hidden = layer(rows, torch.tensor(LENGTHS), weights, group=group)
    return [hidden.detach(), *torch.autograd.grad(hidden.square().sum(), [rows, *weights.values()])]


@pytest.mark.parametrize("n_units", [1, 17, 128, 256, 300, 1300])
def test_equals_the_reference_in_double_precision(n_units: int):
    rows, weights = example(n_units)
    found = results(blstm, rows.cuda(), {name: weight.cuda() for name, weight in weights.items()})
    exact = results(reference.blstm, rows.double(), {name: weight.double() for name, weight in weights.items()})
    for place, (result, truth) in enumerate(zip(found, exact, strict=True)):
        assert (result.cpu().double() - truth).norm() <= (5e-6 if place == 0 else 5e-5) * truth.norm()


@pytest.mark.parametrize("suffixes", [("", "_reverse"), ("",), ("_reverse",)])
def test_groups_and_single_directions_equal_the_reference(suffixes: tuple[str, ...]):
    rows, weights = example(40)
    weights = {name: weight for name, weight in weights.items() if name.partition("_l0")[2] in suffixes}
    stacked = {name: torch.stack([weight, -weight, 2 * weight]) for name, weight in weights.items()}
    group = torch.tensor([2, 0, 2, 1, 0, 0, 2, 2, 1, 0, 0])
    found = results(blstm, rows.cuda(), {name: weight.cuda() for name, weight in stacked.items()}, group=group)
    exact = results(
        reference.blstm, rows.double(), {name: weight.double() for name, weight in stacked.items()}, group=group
    )
    for place, (result, truth) in enumerate(zip(found, exact, strict=True)):
        assert (result.cpu().double() - truth).norm() <= (5e-6 if place == 0 else 5e-5) * truth.norm()


@torch.no_grad()
def test_the_recurrence_gives_an_utterance_the_same_bits_in_any_batch():
    rows, weights = example(128)
    rows, weights = rows.cuda(), {name: weight.cuda() for name, weight in weights.items()}
    projected = torch.randn(len(rows), 8 * 128, device="cuda")
    recurrent = torch.stack([weights["weight_hh_l0"], weights["weight_hh_l0_reverse"]])[None]

    def run(pieces: list[Tensor]) -> list[Tensor]:
        batch = Lengths.packed(torch.tensor([len(piece) for piece in pieces]), device="cuda")
        arguments = (batch.first_rows, batch.on_device, None, None, 0, False)
        hidden = torch.ops.serfast.blstm_recurrence(torch.cat(pieces), recurrent, *arguments)[0]
        return list(hidden.split([len(piece) for piece in pieces]))

    pieces = list(projected.split(LENGTHS))
    for place, together in enumerate(run(pieces)):
        assert torch.equal(together, run([pieces[place]])[0])


def test_a_captured_graph_replays_with_other_lengths():
    _, weights = example(64)
    weights = {name: weight.cuda() for name, weight in weights.items()}
    recurrent = torch.stack([weights["weight_hh_l0"], weights["weight_hh_l0_reverse"]])[None]
    projected = torch.randn(200, 8 * 64, device="cuda")
    first_rows = torch.tensor([0, 50, 100, 150], device="cuda")
    lengths = torch.tensor([50, 50, 50, 50], device="cuda")

    def run() -> Tensor:
        return torch.ops.serfast.blstm_recurrence(projected, recurrent, first_rows, lengths, None, None, 0, False)[0]

    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for counts in ([50, 50, 50, 50], [1, 50, 7, 30], [50, 0, 3, 2]):
        lengths.copy_(torch.tensor(counts))
        graph.replay()
        plain = run()
        for place, count in enumerate(counts):
            assert torch.equal(captured[50 * place : 50 * place + count], plain[50 * place : 50 * place + count])
