import json

import pytest

from serfast.evaluation import RECIPES, Recipe


def test_a_recipe_begins_with_its_name_and_options_change_it():
    strong = Recipe.from_options("strong", n_units=7, normalisation="training")
    assert (strong.name, strong.model.n_units, strong.training.normalisation) == ("strong", 7, "training")
    assert strong.training.noise == RECIPES["strong"]["noise"] > 0
    assert Recipe.from_options() == Recipe()
    with pytest.raises(ValueError, match="recipe must be one of default, strong, got 'best'"):
        Recipe.from_options("best")


def test_every_choice_is_written_down():
    for name in RECIPES:
        written = json.loads(json.dumps(Recipe.from_options(name).to_dict()))
        assert written["recipe"] == name
        for option, value in RECIPES[name].items():
            assert {**written, **written["model"], **written["training"]}[option] == value


def test_remarks_name_what_flatters():
    strong = Recipe.from_options("strong", seed=3, n_units=16)
    averaged, transductive, selected = strong.remarks("emodb")
    assert averaged == "3 models a fold, alike but for seeds: their probabilities are averaged"
    assert transductive.startswith("transductive")
    assert selected.startswith("selected on this corpus")
    assert strong.remarks("iemocap") == (averaged, transductive)
    assert Recipe.from_options("strong", normalisation="training", n_models=1).remarks("emodb") == (selected,)
    assert Recipe().remarks("emodb") == ()
