import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from serfast import reference
from serfast.ops import BLSTM_WEIGHTS, Lengths, blstm

LENGTHS = [40, 1, 99, 60, 7, 31, 13, 2, 55, 23, 8]


def make_layer(
    n_features: int, n_units: int, dtype: torch.dtype = torch.float32, scale: float = 1.0
) -> dict[str, Tensor]:
    torch.manual_seed(1)
    lstm = nn.LSTM(n_features, n_units, bidirectional=True)
    named = dict(lstm.named_parameters())
    return {name: (scale * named[name].detach().double()).to(dtype).requires_grad_() for name in BLSTM_WEIGHTS}


def make_rows(n_features: int, lengths: list[int], dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(sum(lengths), n_features, generator=generator, dtype=torch.float64).to(dtype)


def results(layer, rows: Tensor, lengths: list[int], weights: dict[str, Tensor], **options: object) -> list[Tensor]:
    """Hidden vectors and the gradients of the rows and of every weight."""
    rows = rows.detach().requires_grad_()
    hidden = layer(rows, torch.tensor(lengths), weights, **options)
    slopes = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(hidden.dtype)
    return [
        hidden.detach(),
        *torch.autograd.grad((hidden * slopes).sum(), [rows, *weights.values()]),
    ]


def torch_packed(rows: Tensor, lengths: Tensor, weights: dict[str, Tensor]) -> Tensor:
    lstm = nn.LSTM(rows.shape[1], weights["weight_hh_l0"].shape[1], bidirectional=True, batch_first=True)
    packed = pack_sequence(rows.split(lengths.tolist()), enforce_sorted=False)
    output = torch.func.functional_call(lstm, weights, (packed,))[0]
    padded, _ = pad_packed_sequence(output, batch_first=True)
    return torch.cat([hidden[:n] for hidden, n in zip(padded, lengths.tolist(), strict=True)])


def relative_error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize(("n_features", "n_units"), [(28, 128), (256, 128), (28, 256), (5, 1), (3, 17), (40, 100)])
def test_equals_torch_in_double_precision(n_features: int, n_units: int):
    weights = make_layer(n_features, n_units)
    exact_weights = {name: weight.detach().double().requires_grad_() for name, weight in weights.items()}
    rows = make_rows(n_features, LENGTHS)
    exact = results(torch_packed, rows.double(), LENGTHS, exact_weights)
    found = results(blstm, rows, LENGTHS, weights)
    assert relative_error(found[0], exact[0]) <= 5e-6
    for name, grad, truth in zip(("features", *BLSTM_WEIGHTS), found[1:], exact[1:], strict=True):
        assert relative_error(grad, truth) <= 5e-5, name


@pytest.mark.parametrize("length", [1, 1546, 3400])
def test_long_and_short_utterances_equal_torch(length: int):
    weights = make_layer(28, 32)
    exact_weights = {name: weight.detach().double().requires_grad_() for name, weight in weights.items()}
    rows = make_rows(28, [length])
    exact = results(torch_packed, rows.double(), [length], exact_weights)
    found = results(blstm, rows, [length], weights)
    assert relative_error(found[0], exact[0]) <= 5e-6
    for grad, truth in zip(found[1:], exact[1:], strict=True):
        assert (grad.double() - truth).norm() <= 5e-5 * truth.norm()


def test_hundred_thousand_frames_equal_those_in_double_precision():
    weights, lengths = make_layer(28, 32), [1, 100_000, 7]
    exact_weights = {name: weight.detach().double().requires_grad_() for name, weight in weights.items()}
    rows = make_rows(28, lengths)
    found, exact = (
        results(blstm, rows.to(typed["weight_hh_l0"].dtype), lengths, typed) for typed in (weights, exact_weights)
    )
    with torch.no_grad():  # with gradients, torch's time grows with the square of the length
        assert relative_error(found[0], torch_packed(rows.double(), torch.tensor(lengths), exact_weights)) <= 5e-6
    for grad, truth in zip(found, exact, strict=True):
        assert relative_error(grad, truth) <= 5e-5


def test_equals_the_reference_and_its_gradients():
    weights, rows = make_layer(5, 9, torch.float64), make_rows(5, [4, 1, 9], torch.float64)
    for found, exact in zip(
        results(blstm, rows, [4, 1, 9], weights), results(reference.blstm, rows, [4, 1, 9], weights), strict=True
    ):
        torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)


def test_gradcheck():
    weights, rows = make_layer(3, 3, torch.float64), make_rows(3, [3, 1, 2], torch.float64).requires_grad_()

    def layer(rows: Tensor, *tensors: Tensor) -> Tensor:
        return blstm(rows, torch.tensor([3, 1, 2]), dict(zip(BLSTM_WEIGHTS, tensors, strict=True)))

    assert torch.autograd.gradcheck(layer, (rows, *(weights[name] for name in BLSTM_WEIGHTS)))


@pytest.mark.parametrize("needs", ["features", "weight_hh_l0", "bias_ih_l0_reverse"])
def test_only_what_needs_a_gradient_gets_one(needs: str):
    weights = {name: weight.detach() for name, weight in make_layer(5, 4).items()}
    rows = make_rows(5, [3, 6])
    expected = dict(zip(("features", *BLSTM_WEIGHTS), results(blstm, rows, [3, 6], make_layer(5, 4))[1:], strict=True))
    leaf = (rows if needs == "features" else weights[needs]).requires_grad_()
    hidden = blstm(rows, torch.tensor([3, 6]), weights)
    slopes = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).float()
    (hidden * slopes).sum().backward()
    torch.testing.assert_close(leaf.grad, expected[needs])


def test_padding_is_never_read_and_zero_behind():
    weights, rows = make_layer(6, 20), make_rows(6, LENGTHS)
    padded = torch.full((len(LENGTHS), 120, 6), float("nan"))
    for place, frames in enumerate(rows.split(LENGTHS)):
        padded[place, : len(frames)] = frames
    padded.requires_grad_()
    hidden = blstm(padded, torch.tensor(LENGTHS), weights)
    packed = blstm(rows, torch.tensor(LENGTHS), weights).split(LENGTHS)
    for place, frames in enumerate(packed):
        assert torch.equal(hidden[place, : len(frames)], frames)
        assert not hidden[place, len(frames) :].any()
    hidden.sum().backward()
    assert padded.grad.isfinite().all()
    assert not padded.grad[1, 1:].any()


@pytest.mark.parametrize("n_threads", [1, 2])
@torch.no_grad()
def test_an_utterance_gets_the_same_bits_in_any_batch(n_threads: int):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 60, (256,), generator=generator).tolist()
    utterances = make_rows(12, lengths).split(lengths)
    weights = make_layer(12, 24)

    def run(chosen: list[int]) -> list[Tensor]:
        counts = [lengths[place] for place in chosen]
        rows = torch.cat([utterances[place] for place in chosen])
        return list(blstm(rows, torch.tensor(counts), weights).split(counts))

    threads_before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        alone = [run([place])[0] for place in range(256)]
        for n in (2, 31, 256):
            order = torch.randperm(256, generator=generator)[:n].tolist()
            for place, hidden in zip(order, run(order), strict=True):
                assert torch.equal(hidden, alone[place])
    finally:
        torch.set_num_threads(threads_before)


def test_gradients_are_the_same_bits_each_time():
    weights, rows = make_layer(12, 40), make_rows(12, LENGTHS)
    for first, second in zip(
        results(blstm, rows, LENGTHS, weights), results(blstm, rows, LENGTHS, weights), strict=True
    ):
        assert torch.equal(first, second)


@pytest.mark.parametrize("level", ["generic", "avx2", "avx512"])
def test_every_instruction_set_equals_the_reference(level: str):
    program = f"""
import torch
from serfast import ops, reference
from torch import nn
torch.manual_seed(0)
weights = dict(nn.LSTM(9, 37, bidirectional=True).named_parameters())
rows, lengths = torch.randn(60, 9), torch.tensor([{", ".join(["7"] * 8)}, 4])
for dtype, bound in ((torch.float32, 5e-6), (torch.float64, 1e-12)):
    typed = {{name: weight.detach().to(dtype).requires_grad_() for name, weight in weights.items()}}
    found = ops.blstm(rows.to(dtype), lengths, typed)
    found_grads = torch.autograd.grad(found.square().sum(), typed.values())
    exact_weights = {{name: weight.detach().double().requires_grad_() for name, weight in weights.items()}}
    exact = reference.blstm(rows.double(), lengths, exact_weights)
    exact_grads = torch.autograd.grad(exact.square().sum(), exact_weights.values())
    for result, truth in zip((found, *found_grads), (exact, *exact_grads)):
        assert (result.double() - truth).norm() <= bound * truth.norm()
print(ops.cpu_capability())
"""
    environment = {"SERFAST_CPU_CAPABILITY": level, "PATH": "/usr/bin"}
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    if "must be a level this processor has" in process.stderr:
        pytest.skip(f"this processor has no {level}")
    assert process.stdout.strip() == level, process.stderr


def test_groups_use_their_own_weights():
    layers = [make_layer(5, 8, scale=scale) for scale in (1.0, 2.0, -1.0)]
    stacked = {name: torch.stack([layer[name] for layer in layers]).detach().requires_grad_() for name in BLSTM_WEIGHTS}
    rows, group = make_rows(5, LENGTHS), torch.arange(len(LENGTHS)) % 3
    together = results(blstm, rows, LENGTHS, stacked, group=group)
    for found, exact in zip(together, results(reference.blstm, rows, LENGTHS, stacked, group=group), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)


def separately(rows: Tensor, lengths: Tensor, weights: dict[str, Tensor], group: Tensor) -> Tensor:
    """A call of its own for each group, its rows put back to their places."""
    group_of_row = group.repeat_interleave(lengths)
    n_outputs = sum(weight.shape[-1] for name, weight in weights.items() if name.startswith("weight_hh"))
    hidden = rows.new_zeros(len(rows), n_outputs)
    for member in group.unique().tolist():
        own = (group_of_row == member).nonzero()[:, 0]
        alone = {name: weight[member] for name, weight in weights.items()}
        hidden = hidden.index_copy(0, own, blstm(rows[own], lengths[group == member], alone))
    return hidden


@pytest.mark.parametrize("suffixes", [("", "_reverse"), ("",), ("_reverse",)])
@pytest.mark.parametrize("groups", [[2, 0, 2, 1, 0, 0, 2, 2, 1, 0, 0], [0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2]])
def test_a_group_has_the_bits_of_a_call_of_its_own(groups: list[int], suffixes: tuple[str, ...]):
    layers = [make_layer(5, 20, scale=scale) for scale in (1.0, 2.0, -1.0)]
    names = [name for name in BLSTM_WEIGHTS if name.partition("_l0")[2] in suffixes]
    stacked = {name: torch.stack([layer[name] for layer in layers]).detach().requires_grad_() for name in names}
    rows, group = make_rows(5, LENGTHS), torch.tensor(groups)
    together = results(blstm, rows, LENGTHS, stacked, group=group)
    for found, expected in zip(together, results(separately, rows, LENGTHS, stacked, group=group), strict=True):
        assert torch.equal(found, expected)


def test_gradients_of_stacked_biases_are_scaled_one_by_one():
    layers = [{name: weight.detach().requires_grad_() for name, weight in make_layer(5, 16).items()} for _ in range(2)]
    stacked = {name: torch.stack([layer[name] for layer in layers]) for name in BLSTM_WEIGHTS}
    blstm(make_rows(5, [6, 3]), torch.tensor([6, 3]), stacked, group=torch.tensor([0, 1])).sum().backward()
    for layer in layers:
        before = layer["bias_hh_l0"].grad.clone()
        layer["bias_ih_l0"].grad.zero_()
        assert before.any()
        assert torch.equal(layer["bias_hh_l0"].grad, before)


def test_compiles_whole_with_groups():
    layers = [make_layer(5, 8, scale=scale) for scale in (1.0, 2.0)]
    stacked = {name: torch.stack([layer[name] for layer in layers]).detach().requires_grad_() for name in BLSTM_WEIGHTS}
    rows, batch, group = make_rows(5, [6, 3, 4]), Lengths.packed(torch.tensor([6, 3, 4])), torch.tensor([1, 0, 1])
    compiled = torch.compile(
        lambda rows, group: blstm(rows, batch, stacked, group=group).square().sum(), fullgraph=True, backend="aot_eager"
    )
    for groups in (group, 1 - group):
        found = torch.autograd.grad(compiled(rows, groups), stacked.values())
        exact = torch.autograd.grad(blstm(rows, batch, stacked, group=groups).square().sum(), stacked.values())
        for result, truth in zip(found, exact, strict=True):
            torch.testing.assert_close(result, truth)


@pytest.mark.parametrize("suffix", ["", "_reverse"])
def test_one_direction_has_the_bits_of_its_half(suffix: str):
    both, rows = make_layer(5, 20), make_rows(5, LENGTHS)
    one = {name: weight for name, weight in both.items() if name.partition("_l0")[2] == suffix}
    half = slice(20, None) if suffix else slice(20)
    found = results(blstm, rows, LENGTHS, one)
    slopes = torch.zeros(len(rows), 40)
    slopes[:, half] = torch.randn(
        len(rows), 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    ).float()
    leaf = rows.clone().requires_grad_()
    hidden = blstm(leaf, torch.tensor(LENGTHS), both)
    expected = [hidden[:, half], *torch.autograd.grad(hidden, [leaf, *one.values()], slopes)]
    for result, truth in zip(found, expected, strict=True):
        assert torch.equal(result, truth)
    for result, truth in zip(found, results(reference.blstm, rows, LENGTHS, one), strict=True):
        torch.testing.assert_close(result, truth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_huge_and_tiny_weights_stay_finite_and_right(scale: float):
    weights = make_layer(5, 16, scale=scale)
    exact_weights = {name: weight.detach().double().requires_grad_() for name, weight in weights.items()}
    rows = make_rows(5, [20, 5])
    exact = results(torch_packed, rows.double(), [20, 5], exact_weights)
    found = results(blstm, rows, [20, 5], weights)
    assert all(result.isfinite().all() for result in found)
    assert relative_error(found[0], exact[0]) <= 5e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_features_are_computed_in_float32(dtype: torch.dtype):
    weights, rows = make_layer(5, 16), make_rows(5, LENGTHS).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = blstm(rows, torch.tensor(LENGTHS), weights)
    assert torch.equal(hidden, blstm(rows.float(), torch.tensor(LENGTHS), weights).to(dtype))


def test_a_second_derivative_is_refused():
    weights, rows = make_layer(5, 8), make_rows(5, [9]).requires_grad_()
    (grad,) = torch.autograd.grad(blstm(rows, torch.tensor([9]), weights).square().sum(), rows, create_graph=True)
    with pytest.raises(RuntimeError, match="blstm must be differentiated once, got a second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("n_groups", [None, 3])
@pytest.mark.parametrize(("n_directions", "first_direction"), [(2, 0), (1, 0), (1, 1)])
def test_registration_passes_opcheck(n_directions: int, first_direction: int, n_groups: int | None):
    batch, group = Lengths.packed(torch.tensor([3, 2])), torch.tensor([2, 0])
    arguments = (
        torch.randn(5, 64 * n_directions, requires_grad=True),
        torch.randn(n_groups or 1, n_directions, 64, 16, requires_grad=True),
        batch.first_rows,
        batch.on_device,
        None if n_groups is None else group,
        None if n_groups is None else torch.stack([group, batch.lengths]),
        first_direction,
        False,
        True,
    )
    torch.library.opcheck(torch.ops.serfast.blstm_recurrence.default, arguments)


def test_compiles_whole():
    weights, rows, batch = make_layer(5, 8), make_rows(5, [6, 3]), Lengths.packed(torch.tensor([6, 3]))
    compiled = torch.compile(
        lambda rows: blstm(rows, batch, weights).square().sum(), fullgraph=True, backend="aot_eager"
    )
    for found, exact in zip(
        torch.autograd.grad(compiled(rows), weights.values()),
        torch.autograd.grad(blstm(rows, batch, weights).square().sum(), weights.values()),
        strict=True,
    ):
        torch.testing.assert_close(found, exact)


ROWS = torch.zeros(5, 3)
WEIGHTS = {name: weight.detach() for name, weight in make_layer(3, 2).items()}


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((torch.zeros(5), torch.tensor([5]), WEIGHTS), ValueError, r"features must have shape \(row, feature\)"),
        (
            (ROWS.int(), torch.tensor([5]), WEIGHTS),
            TypeError,
            "features must be float32, .* got torch.int32",
        ),
        ((ROWS, torch.tensor([4]), WEIGHTS), ValueError, "lengths must sum to the 5 rows of the data, got 4"),
        ((ROWS, torch.tensor([5, 0]), WEIGHTS), ValueError, "lengths must be at least 1, got 0"),
        ((ROWS, torch.tensor([5]), {}), ValueError, "weights must hold weight_ih_l0, .*, got none for weight_ih_l0"),
        ((torch.zeros(5, 4), torch.tensor([5]), WEIGHTS), ValueError, r"weight_ih_l0 must have shape \(8, 4\)"),
        ((ROWS.double(), torch.tensor([5]), WEIGHTS), TypeError, "weight_ih_l0 must be torch.float64 like features"),
        (
            (ROWS, torch.tensor([5]), {name: WEIGHTS[name] for name in BLSTM_WEIGHTS[4:-1]}),
            ValueError,
            "weights must hold weight_ih_l0_reverse, .*, got none for bias_hh_l0_reverse",
        ),
        (
            (ROWS, torch.tensor([5]), {**WEIGHTS, "weight_ih_l1": ROWS}),
            ValueError,
            "weights must hold only weight_ih_l0, .*, got weight_ih_l1",
        ),
        (
            (ROWS, torch.tensor([5]), {**WEIGHTS, "weight_hh_l0": torch.zeros(2)}),
            ValueError,
            r"weight_hh_l0 must have shape \(4 \* unit, unit\), got \(2,\)",
        ),
    ],
)
def test_misuse_is_named(arguments: tuple, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        blstm(*arguments)


def test_misuse_of_options_is_named():
    stacked = {name: torch.stack([weight, weight]) for name, weight in WEIGHTS.items()}
    with pytest.raises(ValueError, match="precision must be one of high, highest, got 'low'"):
        blstm(ROWS, torch.tensor([5]), WEIGHTS, precision="low")
    with pytest.raises(ValueError, match="group must be at least 0 and below 2, the groups there are, got 2"):
        blstm(ROWS, torch.tensor([5]), stacked, group=torch.tensor([2]))
    with pytest.raises(ValueError, match=r"group must have shape \(1,\) to match lengths, got \(2,\)"):
        blstm(ROWS, torch.tensor([5]), stacked, group=torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="group must be an int64 tensor or Groups, got torch.int32"):
        blstm(ROWS, torch.tensor([5]), stacked, group=torch.tensor([0], dtype=torch.int32))
