"""The emulated CUDA device: faults that it must notice, and the kernels under other orders of their threads."""

import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from serfast.ops import BLSTM_WEIGHTS, attention_pool, blstm, linear
from tests.ops.emulated_cuda.build import build_program

N_THREADS = 64


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    return build_program(Path(__file__).parent / "emulated_cuda" / "faults.cu", tmp_path_factory.mktemp("faults"))


def output(program, name, schedule):
    return subprocess.run([program, name, str(schedule)], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("schedule", range(4))
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reversed", list(range(N_THREADS))[::-1]),
        ("copied", list(range(N_THREADS))),
        ("dynamic memory", [1] * N_THREADS),
    ],
)
def test_right_kernels_get_the_same_numbers_in_every_order(program, name, expected, schedule):
    assert [float(number) for number in output(program, name, schedule).split()] == expected


@pytest.mark.parametrize("schedule", range(4))
@pytest.mark.parametrize("name", ["reversed without a barrier", "copied without waiting"])
def test_numbers_that_are_not_there_yet_are_nan(program, name, schedule):
    assert any(math.isnan(float(number)) for number in output(program, name, schedule).split())


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("copied off a boundary", "an asynchronous copy must be of 4, 8 or 16 bytes on their boundary, got 16"),
        ("a lane left", "a warp's exchange must be made by all of its lanes, got 31"),
        ("stuck", "threads wait at a barrier that the others never reach"),
        ("no blocks", "a grid must have blocks, got 0"),
        ("many blocks", "a grid must have at most 65535 blocks along y and z, got 70000"),
        ("many threads", "a block must have 1 to 1024 threads, got 2048"),
        ("much dynamic memory", "a kernel must ask for its dynamic shared memory, got 50176"),
        ("much static memory", "a block must declare at most 48 KB of shared memory, got 53248"),
        ("a square off a boundary", "a square must start at 32 bytes with a stride of 16, got 17"),
    ],
)
def test_what_a_device_forbids_is_refused(program, name, refusal):
    assert output(program, name, 0) == refusal
    assert output(program, name, 1).split(", got")[0] == refusal.split(", got")[0]


@pytest.mark.parametrize("capability", [8, 9])
def test_kernels_give_the_same_bits_in_every_order_of_their_threads(emulated_cuda, run, capability):
    emulated_cuda.emulated_cuda_capability(capability)
    torch.manual_seed(0)
    lengths, group = torch.tensor([40, 1, 99, 7]), torch.tensor([1, 0, 1, 0])
    n_rows = int(lengths.sum())
    slopes = [torch.randn(4, 72), torch.randn(n_rows)]
    pooled = (torch.randn(n_rows, 72), lengths, torch.randn(2, 40), torch.randn(2, 40, 72), slopes)
    halves = (torch.randn(150, 100, dtype=torch.bfloat16), torch.randn(70, 100, dtype=torch.bfloat16))
    layer = dict(torch.nn.LSTM(28, 40, bidirectional=True).named_parameters())
    stacked = {name: torch.stack([layer[name].detach(), -layer[name].detach()]) for name in BLSTM_WEIGHTS}
    features = torch.randn(n_rows, 28)

    def everything():
        weights = {name: weight.clone().requires_grad_() for name, weight in stacked.items()}
        hidden = blstm(features, lengths, weights, group=group)
        gradients = torch.autograd.grad(hidden.square().sum(), list(weights.values()))
        pool = run(attention_pool, *pooled, group=group, dropout=0.4, training=True, seed=3)
        return [hidden, *gradients, *pool, linear(*halves), linear(features, features[:65])]

    expected = everything()
    for schedule in range(1, 6):
        emulated_cuda.emulated_cuda_schedule(schedule)
        for result, truth in zip(everything(), expected, strict=True):
            assert torch.equal(result, truth)
