import json
from pathlib import Path

import pytest
import torch

import serfast
from serfast import FeatureStore
from serfast.evaluation import Recipe, runs
from serfast.evaluation.recipe_choice import recipe_of
from serfast.reports import fold_table

QUICK = {"n_epochs": 2, "pooling": "mean", "progress": False}


def test_options_without_lists_are_a_recipe():
    assert recipe_of("strong", n_units=7) == Recipe.from_options("strong", n_units=7)


def test_lists_are_combined():
    choice = recipe_of(n_units=[4, 6], pooling=["eq8", "eq9"], seed=3)
    assert choice.varied == ("n_units", "pooling")
    assert choice.values == ((4, "eq8"), (4, "eq9"), (6, "eq8"), (6, "eq9"))
    assert [recipe.model.n_units for recipe in choice.recipes] == [4, 4, 6, 6]
    assert {recipe.training.seed for recipe in choice.recipes} == {3}


def test_each_fold_takes_the_recipe_that_validates_best(tiny_store: FeatureStore, tmp_path: Path):
    sizes, options = [1, 3, 8], {**QUICK, "n_epochs": 4, "learning_rate": 1e-2}
    alone = {
        n_units: serfast.cross_validate(tiny_store, output=tmp_path / str(n_units), n_units=n_units, **options)
        for n_units in sizes
    }
    chosen = serfast.cross_validate(tiny_store, output=tmp_path / "chosen", n_units=sizes, **options)
    taken = set()
    for place, fold in enumerate(chosen.folds):
        validated = {}
        for n_units in sizes:
            lines = (tmp_path / str(n_units) / "folds" / fold.name / "metrics.jsonl").read_text().splitlines()
            validated[n_units] = max(json.loads(line)["validation_ua"] for line in lines)
        n_units = fold.choices["n_units"]
        assert n_units == max(sizes, key=lambda size: (validated[size], -sizes.index(size)))
        assert fold.ua == alone[n_units].folds[place].ua
        model = serfast.Recognizer.load(tmp_path / "chosen" / "folds" / fold.name).model
        own = serfast.Recognizer.load(tmp_path / str(n_units) / "folds" / fold.name).model
        assert torch.equal(model.encoder.weight_hh_l1, own.encoder.weight_hh_l1)
        assert fold.seconds > 0
        taken.add(n_units)
    assert len(taken) > 1
    assert [column.header.plain for column in fold_table(chosen).columns][-1] == "chosen"


def test_a_greedy_recipe_is_chosen_with_its_own_base(tiny_store: FeatureStore, tmp_path: Path):
    options = {**QUICK, "pooling": "eq9", "scheme": ["joint", "greedy"], "n_units": 4}
    result = serfast.cross_validate(tiny_store, output=tmp_path / "run", **options)
    assert {fold.choices["scheme"] for fold in result.folds} <= {"joint", "greedy"}
    assert (tmp_path / "run/folds/speaker_s0/candidates/scheme-greedy/base/model.safetensors").exists()


def test_a_finished_choice_is_read_back(tiny_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = {**QUICK, "n_units": [2, 3]}
    first = serfast.cross_validate(tiny_store, output=tmp_path / "run", **options)
    monkeypatch.setattr(runs, "run_folds", lambda *_, **__: pytest.fail("trained again"))
    assert serfast.cross_validate(tiny_store, output=tmp_path / "run", **options) == first


@pytest.mark.parametrize("changes", [{"n_units": []}, {"n_units": [4, 4]}, {"n_mfcc": [12, 13]}, {"n_units": [4, 0]}])
def test_a_wrong_list_is_named(changes: dict[str, list[int]]):
    with pytest.raises(ValueError, match="n_units|n_mfcc"):
        recipe_of(**changes)


def test_a_choice_is_not_trained_side_by_side(tiny_store: FeatureStore, tmp_path: Path):
    with pytest.raises(ValueError, match="side_by_side"):
        serfast.cross_validate(tiny_store, output=tmp_path / "run", n_units=[2, 3], side_by_side=True, **QUICK)
