import pytest
import torch

from serfast.models import EmotionClassifier, EmotionEnsemble, ModelOptions
from serfast.ops import Lengths

LENGTHS = torch.tensor([20, 1, 33])


def make_classifiers(pooling: str) -> list[EmotionClassifier]:
    torch.manual_seed(0)
    classifiers = [EmotionClassifier(6, 4, ModelOptions(pooling=pooling, n_units=8)).eval() for _ in range(3)]
    for classifier in classifiers:
        for parameter in classifier.head.parameters():
            torch.nn.init.normal_(parameter)
    return classifiers


@pytest.mark.parametrize("pooling", ["eq8", "mean", "last"])
@torch.inference_mode()
def test_probabilities_and_attention_are_the_means_of_the_classifiers(pooling: str):
    classifiers = make_classifiers(pooling)
    ensemble, rows = EmotionEnsemble(classifiers), torch.randn(int(LENGTHS.sum()), 6)
    answers = [classifier(rows, LENGTHS) for classifier in classifiers]
    logits, weights = ensemble(rows, LENGTHS)
    torch.testing.assert_close(logits.exp(), sum(own.softmax(dim=1) for own, _ in answers) / 3)
    if pooling == "last":
        assert weights is None
    else:
        torch.testing.assert_close(weights, sum(own for _, own in answers) / 3)
    padded = torch.nn.utils.rnn.pad_sequence(rows.split(LENGTHS.tolist()), batch_first=True)
    assert torch.equal(ensemble(padded, LENGTHS)[0], logits)


@torch.inference_mode()
def test_encoder_and_head_are_the_whole_model():
    ensemble, rows = EmotionEnsemble(make_classifiers("eq8")), torch.randn(int(LENGTHS.sum()), 6)
    lengths = Lengths.packed(LENGTHS)
    hidden = ensemble.encoder(rows, lengths)
    assert hidden.shape == (len(rows), 3 * 16)
    for whole, parts in zip(ensemble(rows, LENGTHS), ensemble.head(hidden, lengths), strict=True):
        assert torch.equal(whole, parts)


def test_one_alone_answers_as_without_the_others_and_weights_are_found():
    classifiers = make_classifiers("mean")
    rows = torch.randn(int(LENGTHS.sum()), 6)
    alone = EmotionEnsemble(classifiers[:1])
    torch.testing.assert_close(alone(rows, LENGTHS)[0], classifiers[0](rows, LENGTHS)[0].log_softmax(dim=1))
    assert len(list(EmotionEnsemble(classifiers).parameters())) == 3 * len(list(classifiers[0].parameters()))
