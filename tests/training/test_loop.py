import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from serfast import FeatureStore, ModelOptions, TrainingOptions
from serfast.corpora.folds import single
from serfast.errors import CorpusError
from serfast.training import CHECKPOINT, EpochRecord, TrainedModel, answer, loop, train_model
from serfast.training.batches import dropout_seeds, shuffled_batches
from serfast.training.checkpoint import load_tensors, save_tensors

CPU = torch.device("cpu")
SMALL = ModelOptions(n_units=8, n_layers=2, encoder_dropout=0.2, pooling_dropout=0.3, decoder_dropout=0.2)
OPTIONS = TrainingOptions(n_epochs=4, batch_size=8, learning_rate=5e-3)


def run(store: FeatureStore, folder: Path, **changes: object) -> TrainedModel:
    folder.mkdir(exist_ok=True)
    on_epoch = changes.pop("on_epoch", None)
    options = dataclasses.replace(OPTIONS, **changes)
    fold = single(store.corpus)[0]
    return train_model(store, fold, SMALL, options, folder=folder, device=CPU, on_epoch=on_epoch)


def same_weights(one: TrainedModel, other: TrainedModel) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    )


def test_ten_utterances_are_overfitted(make_store: Callable[..., FeatureStore], tmp_path: Path):
    store = make_store(tmp_path / "store", n_speakers=2, n_utterances=10, separation=0.0)
    model = ModelOptions(n_units=32, n_layers=1)
    options = TrainingOptions(n_epochs=60, patience=60, batch_size=10, learning_rate=1e-2)
    fold = dataclasses.replace(single(store.corpus)[0], validation=single(store.corpus)[0].train)
    trained = train_model(store, fold, model, options, folder=tmp_path, device=CPU)
    answers = answer(trained.model, trained.source, fold.train, batch_size=4, device=CPU)
    assert np.array_equal(answers.predicted, np.array(store.corpus.labels())[list(fold.train)])


def test_the_selected_epoch_is_the_best_on_validation(tiny_store: FeatureStore, tmp_path: Path):
    trained = run(tiny_store, tmp_path / "run", n_epochs=8, patience=8)
    best = max(record.validation_ua for record in trained.history)
    assert trained.history[trained.best_epoch - 1].validation_ua == best
    fold = single(tiny_store.corpus)[0]
    answers = answer(trained.model, trained.source, fold.validation, batch_size=3, device=CPU)
    truth = np.array(tiny_store.corpus.labels())[list(fold.validation)]
    assert (answers.predicted == truth).mean() == trained.history[trained.best_epoch - 1].validation_wa


def test_the_last_epoch_is_kept_on_request_and_ends_the_training(tiny_store: FeatureStore, tmp_path: Path):
    last = run(tiny_store, tmp_path / "last", n_epochs=5, patience=1, selection="last", learning_rate=1e-9)
    assert (last.best_epoch, len(last.history)) == (5, 5)
    assert same_weights(
        last, run(tiny_store, tmp_path / "all", n_epochs=5, patience=5, selection="last", learning_rate=1e-9)
    )
    trained = run(tiny_store, tmp_path / "trained", selection="last")
    fold = single(tiny_store.corpus)[0]
    answers = answer(trained.model, trained.source, fold.validation, batch_size=3, device=CPU)
    truth = np.array(tiny_store.corpus.labels())[list(fold.validation)]
    assert (answers.predicted == truth).mean() == trained.history[-1].validation_wa


def test_training_stops_when_patience_ends(tiny_store: FeatureStore, tmp_path: Path):
    trained = run(tiny_store, tmp_path / "run", n_epochs=50, patience=2, learning_rate=1e-9)
    assert len(trained.history) == trained.best_epoch + 2 < 50


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tiny_store: FeatureStore, tmp_path: Path):
    torch.manual_seed(1)
    first = run(tiny_store, tmp_path / "a")
    torch.manual_seed(2)
    assert same_weights(first, run(tiny_store, tmp_path / "b"))
    assert not same_weights(first, run(tiny_store, tmp_path / "c", seed=1))


def test_the_callers_random_stream_is_left_alone(tiny_store: FeatureStore, tmp_path: Path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(tiny_store, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_a_run_stopped_between_epochs_goes_on_to_the_same_bits(tiny_store: FeatureStore, tmp_path: Path):
    class StopError(Exception):
        pass

    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise StopError

    whole = run(tiny_store, tmp_path / "whole")
    with pytest.raises(StopError):
        run(tiny_store, tmp_path / "stopped", on_epoch=stop)
    resumed = run(tiny_store, tmp_path / "stopped")
    assert [record.epoch for record in resumed.history] == [1, 2, 3, 4]
    assert same_weights(whole, resumed)
    lines = (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]


def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(tiny_store: FeatureStore, tmp_path: Path):
    whole = run(tiny_store, tmp_path / "whole", n_epochs=12, patience=12)
    program = textwrap.dedent(f"""
        import sys, torch
        from pathlib import Path
        from serfast import FeatureStore, ModelOptions, TrainingOptions
        from serfast.corpora.folds import single
        from serfast.training import train_model
        torch.set_num_threads({torch.get_num_threads()})
        store = FeatureStore.open({str(tiny_store.path)!r})
        options = TrainingOptions(**{vars(OPTIONS)!r} | dict(n_epochs=12, patience=12))
        train_model(store, single(store.corpus)[0], ModelOptions(**{vars(SMALL)!r}), options, folder=Path(sys.argv[1]),
                    device=torch.device("cpu"), on_epoch=lambda record: print(record.epoch, flush=True))
        print("finished", flush=True)
    """)
    folder = tmp_path / "killed"
    folder.mkdir()
    n_kills = 0
    for delay_s in (0.0, 0.004, 0.011, 0.023, None):
        with subprocess.Popen([sys.executable, "-c", program, folder], stdout=subprocess.PIPE, text=True) as process:
            if delay_s is None:
                assert "finished" in process.communicate()[0]
                break
            process.stdout.readline()
            time.sleep(delay_s)
            os.kill(process.pid, signal.SIGKILL)
            n_kills += process.wait() == -signal.SIGKILL
    assert n_kills >= 2
    assert same_weights(whole, run(tiny_store, folder, n_epochs=12, patience=12))


def test_batches_hold_each_utterance_once_and_differ_between_epochs():
    lengths = np.random.default_rng(0).integers(1, 1000, 500)
    chosen = np.arange(100, 350)
    first = shuffled_batches(chosen, lengths, 16, seed=0, epoch=1)
    assert sorted(np.concatenate(first)) == list(chosen)
    assert max(len(batch) for batch in first) == 16
    second = shuffled_batches(chosen, lengths, 16, seed=0, epoch=2)
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    padded = sum(len(batch) * lengths[batch].max() for batch in first)
    assert padded < 1.25 * lengths[chosen].sum()


def test_dropout_seeds_depend_on_run_epoch_and_utterance_alone():
    indices = np.arange(1000)
    seeds = dropout_seeds(0, 1, indices)
    assert torch.equal(seeds[[5, 3]], dropout_seeds(0, 1, indices[[5, 3]]))
    assert (
        len(
            set(seeds.tolist())
            | set(dropout_seeds(0, 2, indices).tolist())
            | set(dropout_seeds(1, 1, indices).tolist())
        )
        == 3000
    )


def test_class_weights_make_a_rare_emotion_count(make_store: Callable[..., FeatureStore], tmp_path: Path):
    store = make_store(tmp_path / "store", n_utterances=30, separation=0.15)
    fold = single(store.corpus)[0]
    labels = np.array(store.corpus.labels())
    rare = [index for index in fold.train if labels[index] == 0][:6]
    fold = dataclasses.replace(fold, train=tuple(rare + [index for index in fold.train if labels[index] != 0]))
    shares = []
    for class_weights in (False, True):
        options = dataclasses.replace(OPTIONS, n_epochs=6, patience=6, class_weights=class_weights)
        folder = tmp_path / str(class_weights)
        folder.mkdir()
        trained = train_model(store, fold, SMALL, options, folder=folder, device=CPU)
        answers = answer(trained.model, trained.source, fold.validation, batch_size=8, device=CPU)
        exponentials = np.exp(answers.logits)
        shares.append((exponentials[:, 0] / exponentials.sum(axis=1)).mean())
    assert shares[1] > 1.5 * shares[0]


def test_a_loss_that_is_not_finite_stops_the_run(tiny_store: FeatureStore, tmp_path: Path):
    with pytest.raises(ValueError, match="learning_rate must keep the loss finite, got loss"):
        run(tiny_store, tmp_path / "run", learning_rate=1e30)


def test_a_broken_checkpoint_is_named(tmp_path: Path):
    save_tensors(tmp_path / CHECKPOINT, {"a": torch.ones(3)}, {"epoch": 1})
    assert load_tensors(tmp_path / CHECKPOINT)[1] == {"epoch": 1}
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:20])
    with pytest.raises(CorpusError, match=r"checkpoint.safetensors must be a file of tensors written by serfast"):
        load_tensors(tmp_path / CHECKPOINT)


@pytest.mark.parametrize(
    ("name", "value"), [("n_epochs", 0), ("learning_rate", 0.0), ("gradient_clip", float("nan")), ("seed", -1)]
)
def test_options_out_of_range_are_named(name: str, value: float):
    with pytest.raises(ValueError, match=f"{name} must"):
        dataclasses.replace(OPTIONS, **{name: value})


def test_one_cycle_rises_to_the_largest_rate_and_falls_to_nearly_nothing():
    options = TrainingOptions(schedule="one_cycle", learning_rate=1e-2)
    rates = [loop._rate(options, progress) for progress in np.linspace(0, 1, 1001)]
    assert rates[0] == pytest.approx(1e-2 / 25)
    assert max(rates) == rates[300] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-6)
    assert np.all(np.diff(rates[:301]) > 0)
    assert np.all(np.diff(rates[300:]) < 0)
    assert rates[150] == pytest.approx((1e-2 / 25 + 1e-2) / 2)


def test_averaged_weights_are_kept_and_training_goes_on_from_the_last_ones(tiny_store: FeatureStore, tmp_path: Path):
    plain = run(tiny_store, tmp_path / "plain")
    averaged = run(tiny_store, tmp_path / "averaged", averaging=0.9)
    losses = [[record.loss for record in trained.history] for trained in (plain, averaged)]
    assert losses[0] == losses[1]
    assert not same_weights(plain, averaged)


def test_an_average_over_a_run_is_the_exponential_mean_of_its_steps():
    model = torch.nn.Linear(1, 1, bias=False)
    # A gradient of 0 and no decay leave the weights to the test.
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    state = loop._State(model, optimizer, {"weight": model.weight.detach().clone()}, torch.zeros(()))
    options, expected = TrainingOptions(averaging=0.5), float(model.weight.detach())
    for n_steps, value in enumerate([1.0, 5.0, -2.0, 4.0, 0.5, 3.0, 2.0, 8.0, 1.0, -1.0, 6.0]):
        with torch.no_grad():
            model.weight.fill_(value)
        loop._prepare(state, options, n_steps, n_all=11)
        model.weight.grad = torch.zeros_like(model.weight)
        loop._update(state, options)
        decay = min(0.5, (1 + n_steps) / (10 + n_steps))
        expected = decay * expected + (1 - decay) * value
    assert float(state.average["weight"]) == pytest.approx(expected, rel=1e-5)


def test_an_interrupted_run_with_averaging_and_a_schedule_ends_with_the_same_bits(
    tiny_store: FeatureStore, tmp_path: Path
):
    changes = {"averaging": 0.9, "schedule": "one_cycle", "weight_decay": 0.1, "label_smoothing": 0.1, "noise": 0.3}

    def interrupt(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    whole = run(tiny_store, tmp_path / "whole", **changes)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store, tmp_path / "parts", on_epoch=interrupt, **changes)
    assert same_weights(whole, run(tiny_store, tmp_path / "parts", **changes))


def test_speaker_normalisation_uses_each_speakers_own_statistics(tiny_store: FeatureStore, tmp_path: Path):
    trained = run(tiny_store, tmp_path / "run", n_epochs=1, normalisation="speaker")
    assert trained.normaliser is None
    for speaker in tiny_store.corpus.speakers:
        own = [index for index, item in enumerate(tiny_store.corpus.utterances) if item.speaker == speaker]
        rows = trained.source.gather(np.array(own))
        np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scheme", "lazy"),
        ("schedule", "cosine"),
        ("selection", "worst"),
        ("normalisation", "utterance"),
        ("averaging", 1.0),
        ("label_smoothing", -0.1),
        ("tempo_change", 1.0),
        ("noise", float("nan")),
        ("weight_decay", -1.0),
        ("n_masked", -1),
    ],
)
def test_a_wrong_option_is_named(name: str, value: object):
    with pytest.raises((TypeError, ValueError), match=name):
        TrainingOptions(**{name: value})
