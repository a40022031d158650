import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import serfast
from serfast.corpora import Corpus
from serfast.evaluation import LadderRow, Result, runs
from serfast.evaluation.fold_reports import FoldReport
from serfast.evaluation.ladder import BASELINE, LadderOptions, ladder, run_ladder
from serfast.evaluation.progress import Progress
from serfast.evaluation.rivals import GhoshBottleneck
from serfast.evaluation.system import FoldContext, System
from serfast.training import EpochRecord

TINY = LadderOptions(n_units=6, n_units_final=8, n_decoder_final=5, n_epochs=2)
NEURAL = ["blstm_last", "attention_eq9", "greedy_eq8", "greedy_dropout_eq9", "final_eq9"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return serfast.corpora.synthetic.generate(tmp_path_factory.mktemp("corpus"), n_speakers=4, n_utterances=4)


def run(corpus: Corpus, output: Path, rungs: list[str] | None = None, **changes: object) -> tuple[LadderRow, ...]:
    given = {
        "protocol": "paper",
        "n_seeds": 1,
        "store": output / "features",
        "exclude": (),
        "jobs": None,
        "side_by_side": False,
    }
    given |= changes
    shown = Progress(False)
    return run_ladder(corpus, TINY, output=output, rungs=rungs, device=torch.device("cpu"), progress=shown, **given)


def answers(result: Result) -> list[tuple[str, str, dict[str, float]]]:
    return [(row.key, row.fold, row.probabilities) for row in result.predictions]


def test_the_rungs_have_distinct_names_and_every_base_stands_before_what_builds_on_it():
    rungs = ladder(LadderOptions())
    assert len({rung.name for rung in rungs}) == len(rungs)
    systems = [rung.system for rung in rungs]
    for place, system in enumerate(systems):
        if system.base is not None:
            assert systems.index(system.base) < place
    assert BASELINE in {rung.name for rung in rungs}


def test_the_papers_values_are_those_of_its_sections():
    by_name = {rung.name: rung.system for rung in ladder(LadderOptions())}
    final = by_name["final_eq8"]
    assert (final.model.n_units, final.model.n_decoder, final.model.pooling_dropout) == (256, 128, 0.5)
    assert (final.training.scheme, final.model.pooling) == ("greedy", "eq8")
    assert final.base == by_name["mean_large"]
    assert by_name["greedy_dropout_eq9"].model.pooling_dropout == 0.5
    assert by_name["greedy_eq9"].model.pooling_dropout == 0.0
    assert by_name["attention_eq9"].base is None
    assert by_name["greedy_eq9"].base == by_name["greedy_dropout_eq8"].base == by_name["mean"]
    assert by_name["lstm_last_reversed"].model.direction == "reverse"


def test_the_row_that_uses_recordings_of_test_speakers_says_so():
    rungs = ladder(LadderOptions())
    by_speaker = [rung.name for rung in rungs if '"normalisation": "speaker"' in json.dumps(rung.system.to_dict())]
    assert by_speaker == [rung.name for rung in rungs if "transductive" in rung.title] == ["svm_speaker"]


def test_sizes_and_epochs_hold_for_the_rivals_too():
    by_name = {rung.name: rung.system for rung in ladder(LadderOptions(n_units=6, n_epochs=2, patience=1), seed=3)}
    lee, ghosh = by_name["lee"], by_name["ghosh"]
    assert lee.n_units == ghosh.model.n_units == by_name["mean"].model.n_units == 6
    for training in (by_name["han"].training, lee.training, ghosh.training):
        assert (training.n_epochs, training.patience, training.seed) == (2, 1, 3)
    assert (ghosh.pretraining.n_epochs, ghosh.pretraining.patience) == (2, 1)
    usual = {rung.name: rung.system for rung in ladder(LadderOptions())}
    assert usual["ghosh"].pretraining == GhoshBottleneck().pretraining


def test_every_rung_runs_under_one_protocol_and_is_read_back(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = run(corpus, tmp_path)
    assert [row.name for row in rows] == [rung.name for rung in ladder(TINY)]
    assert len({result.splits_digest for row in rows for result in row.results}) == 1
    for row in rows:
        assert len(row.results[0].predictions) == len(corpus.utterances), row.name
        assert row.results[0].pooled.ua > 0
    monkeypatch.setattr(runs, "run_folds", lambda *_, **__: pytest.fail("trained again"))
    assert [answers(row.results[0]) for row in run(corpus, tmp_path)] == [answers(row.results[0]) for row in rows]


def test_rows_share_the_encoder_of_their_base(corpus: Corpus, tmp_path: Path):
    rows = run(corpus, tmp_path, ["greedy_eq8", "greedy_eq9"])
    assert [row.name for row in rows] == ["mean", "greedy_eq8", "greedy_eq9"]
    folds = [sorted((tmp_path / "seed-0" / row.name / "folds").iterdir()) for row in rows]
    for base, *others in zip(*folds, strict=True):
        weight = serfast.Recognizer.load(base).model.encoder.weight_hh_l1
        for other in others:
            assert torch.equal(weight, serfast.Recognizer.load(other).model.encoder.weight_hh_l1)
    assert not (tmp_path / "seed-0" / "base").exists()


Members = list[tuple[System, FoldContext]]


def recorded(
    told: list[Members], way: Callable[..., object], members: Members, *rest: object, **more: object
) -> object:
    told.append(members)
    return way(members, *rest, **more)


def test_rows_are_trained_side_by_side_where_they_can(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    systems = {rung.name: rung.system for rung in ladder(TINY)}
    in_turn = [name for name, system in systems.items() if system.fit_side_by_side is None]
    assert in_turn == ["svm", "svm_speaker"]
    names = ["lstm_last_reversed", "greedy_dropout_eq8", "han", "lee", "ghosh", "svm"]
    alone = run(corpus, tmp_path / "alone", names, store=tmp_path / "features")
    ways: dict[str, list[Members]] = {"run_folds": [], "run_folds_side_by_side": []}
    for name, told in ways.items():
        monkeypatch.setattr(runs, name, partial(recorded, told, getattr(runs, name)))
    together = run(corpus, tmp_path / "together", names, store=tmp_path / "features", side_by_side=True)
    assert [members[0][0] for members in ways["run_folds"]] == [systems["svm"]]
    wanted = ["lstm_last_reversed", "mean", "greedy_dropout_eq8", "han", "lee", "ghosh"]
    assert [members[0][0] for members in ways["run_folds_side_by_side"]] == [systems[name] for name in wanted]
    for one, other in zip(alone, together, strict=True):
        for expected, found in zip(one.results[0].predictions, other.results[0].predictions, strict=True):
            assert (found.key, found.fold) == (expected.key, expected.fold)
            assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-3)
    with pytest.raises(ValueError, match="jobs must be None with side_by_side, got 2"):
        run(corpus, tmp_path / "both", ["mean"], side_by_side=True, jobs=2)


def test_seeds_are_trained_side_by_side_too(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ["greedy_dropout_eq9", "han", "lee", "ghosh", "svm"]
    alone = run(corpus, tmp_path / "alone", names, n_seeds=2, store=tmp_path / "features")
    together: list[Members] = []
    way = partial(recorded, together, runs.run_folds_side_by_side)
    monkeypatch.setattr(runs, "run_folds_side_by_side", way)
    rows = run(corpus, tmp_path / "together", names, n_seeds=2, store=tmp_path / "features", side_by_side=True)
    n_folds = len(rows[0].results[0].folds)
    for members in together:
        assert [system.training.seed for system, _ in members] == [0] * n_folds + [1] * n_folds
    assert [row.name for row in rows] == ["mean", *names]
    assert len(together) == len(rows) - 1  # but the support vector machine
    for one, other in zip(alone, rows, strict=True):
        for expected, found in zip(one.results, other.results, strict=True):
            for truth, answer in zip(expected.predictions, found.predictions, strict=True):
                assert (answer.key, answer.fold) == (truth.key, truth.fold)
                assert answer.probabilities == pytest.approx(truth.probabilities, abs=1e-3)
        assert one.name == "svm" or answers(other.results[0]) != answers(other.results[1])


def test_seeds_are_runs_of_their_own(corpus: Corpus, tmp_path: Path):
    (row,) = run(corpus, tmp_path, ["mean"], n_seeds=2)
    first, second = row.results
    assert first.splits_digest == second.splits_digest
    assert answers(first) != answers(second)


@pytest.mark.parametrize("n_seen", [5, 27, 40])
def test_a_stopped_ladder_goes_on_to_the_same_answers(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_seen: int
):
    whole = run(corpus, tmp_path / "whole", NEURAL, store=tmp_path / "features")
    seen = []

    def interrupt(self: FoldReport, record: EpochRecord) -> None:
        seen.append(record)
        if len(seen) == n_seen:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FoldReport, "epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(corpus, tmp_path / "parts", NEURAL, store=tmp_path / "features")
    resumed = run(corpus, tmp_path / "parts", NEURAL, store=tmp_path / "features")
    assert [answers(row.results[0]) for row in resumed] == [answers(row.results[0]) for row in whole]


def test_an_unknown_row_is_named_beside_the_known_ones(corpus: Corpus, tmp_path: Path):
    with pytest.raises(ValueError, match="rows must be among lstm_last, .*, got best"):
        run(corpus, tmp_path, ["mean", "best"])
    with pytest.raises(ValueError, match="seeds must be at least 1"):
        run(corpus, tmp_path, ["mean"], n_seeds=0)
