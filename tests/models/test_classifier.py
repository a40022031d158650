import dataclasses

import pytest
import torch

from serfast.models import POOLINGS, AttentionPool, EmotionClassifier, ModelOptions
from serfast.ops import Lengths

LENGTHS = torch.tensor([31, 1, 100, 64])


def make_classifier(pooling: str) -> EmotionClassifier:
    torch.manual_seed(0)
    model = EmotionClassifier(6, 4, ModelOptions(pooling=pooling, n_units=16)).eval()
    for parameter in model.head.pooling.parameters():
        torch.nn.init.normal_(parameter)
    return model


def make_rows() -> torch.Tensor:
    return torch.randn(int(LENGTHS.sum()), 6, generator=torch.Generator().manual_seed(1))


def pad(rows: torch.Tensor, filler: float, n_frames: int = 120) -> torch.Tensor:
    padded = rows.new_full((len(LENGTHS), n_frames, rows.shape[1]), filler)
    for place, utterance in enumerate(rows.split(LENGTHS.tolist())):
        padded[place, : len(utterance)] = utterance
    return padded


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.inference_mode()
def test_logits_do_not_depend_on_the_batch_or_its_order(pooling: str):
    model, rows = make_classifier(pooling), make_rows()
    together, _ = model(rows, LENGTHS)
    utterances = rows.split(LENGTHS.tolist())
    alone = torch.cat([model(utterance, torch.tensor([len(utterance)]))[0] for utterance in utterances])
    order = [2, 0, 3, 1]
    shuffled, _ = model(torch.cat([utterances[place] for place in order]), LENGTHS[order])
    assert torch.equal(together[order], shuffled)
    assert torch.equal(together, alone)


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.inference_mode()
def test_padding_changes_nothing_even_if_it_is_nan(pooling: str):
    model, rows = make_classifier(pooling), make_rows()
    logits, weights = model(rows, LENGTHS)
    padded_logits, padded_weights = model(pad(rows, float("nan")), LENGTHS)
    assert torch.equal(logits, padded_logits)
    if pooling == "last":
        assert weights is None
        assert padded_weights is None
    else:
        assert torch.equal(pad(weights[:, None], 0.0)[:, :, 0], padded_weights)


@torch.inference_mode()
def test_last_pooling_takes_the_final_state_of_each_direction():
    model, rows = make_classifier("last"), make_rows()
    hidden = model.encoder(rows, Lengths.packed(LENGTHS))
    context, _ = model.head.pooling(hidden, Lengths.packed(LENGTHS))
    first = LENGTHS.cumsum(0) - LENGTHS
    for place, length in enumerate(LENGTHS):
        assert torch.equal(context[place, :16], hidden[first[place] + length - 1, :16])
        assert torch.equal(context[place, 16:], hidden[first[place], 16:])


def test_attention_sets_out_from_the_mean():
    hidden = torch.randn(int(LENGTHS.sum()), 8)
    mean, _ = AttentionPool(8, "mean")(hidden, LENGTHS)
    for scoring in ("eq8", "eq9"):
        torch.testing.assert_close(AttentionPool(8, scoring)(hidden, LENGTHS)[0], mean)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_parameter_is_trained(pooling: str):
    options = ModelOptions(pooling=pooling, n_units=4, n_decoder=5)
    model = EmotionClassifier(6, 4, options)
    for parameter in model.head.pooling.parameters():
        torch.nn.init.normal_(parameter)
    logits, _ = model(make_rows(), LENGTHS)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"pooling": "max"}, "pooling must be one of last, mean, eq8, eq9, got 'max'"),
        ({"n_units": 0}, "n_units must be at least 1, got 0"),
        ({"precision": "low"}, "precision must be one of high, highest, got 'low'"),
        ({"pooling_dropout": 1.0}, r"pooling_dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_options_out_of_range_are_named(option: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ModelOptions(), **option)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_one_directional_model_pools_the_state_that_has_seen_everything(direction: str):
    torch.manual_seed(0)
    model = EmotionClassifier(6, 4, ModelOptions(direction=direction, pooling="last", n_units=6)).eval()
    rows = make_rows()
    logits, weights = model(rows, LENGTHS)
    hidden = torch.split(model.encoder(rows, LENGTHS), LENGTHS.tolist())
    contexts = torch.stack([piece[-1 if direction == "forward" else 0] for piece in hidden])
    assert torch.equal(model.head.decoder(contexts), logits)
    assert weights is None


@torch.no_grad()
@pytest.mark.usefixtures("emulated_cuda")
@pytest.mark.parametrize("direction", ["both", "forward", "reverse"])
def test_precision_is_that_of_every_layer(direction: str):
    errors = {}
    for precision in ("high", "highest"):
        torch.manual_seed(0)
        options = ModelOptions(direction=direction, n_layers=3, n_units=20, precision=precision)
        encoder, rows = EmotionClassifier(6, 4, options).eval().encoder, make_rows()
        hidden = encoder(rows, LENGTHS).double()
        exact = encoder.double()(rows.double(), LENGTHS)
        errors[precision] = (hidden - exact).norm() / exact.norm()
    assert errors["highest"] < 5e-6 < errors["high"] < 5e-4
