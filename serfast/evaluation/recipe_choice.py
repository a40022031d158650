"""Several recipes, one of which the validation part of each fold chooses."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from serfast import atomic
from serfast.evaluation.fold import run_fold
from serfast.evaluation.recipe import Recipe
from serfast.evaluation.system import FoldContext, FoldOutcome
from serfast.features import FeatureOptions
from serfast.recognizer import MODEL

__all__ = ["RecipeChoice", "recipe_of"]


@dataclass(frozen=True)
class RecipeChoice:
    """Recipes that differ in some options; in each fold the one with the best validation UA answers.

    Attributes:
        varied: names of the options that differ.
        values: the values of those options in each recipe.
        recipes: the recipes; between equals the first is chosen. All read the same features.
    """

    varied: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    recipes: tuple[Recipe, ...]

    @property
    def features(self) -> FeatureOptions:
        """What all of the recipes read."""
        return self.recipes[0].features

    @property
    def base(self) -> None:
        """None: the base of each recipe is trained in a folder beside it."""

    @property
    def fit_side_by_side(self) -> None:
        """None: the recipes of a fold are trained one after another."""

    def remarks(self, corpus: str) -> tuple[str, ...]:
        """What a reader of results on the corpus of that name must know."""
        several = "n_models" in self.varied  # which the choices of the folds tell
        recipes = [replace(recipe, n_models=1) if several else recipe for recipe in self.recipes]
        return tuple(dict.fromkeys(remark for recipe in recipes for remark in recipe.remarks(corpus)))

    def to_dict(self) -> dict[str, Any]:
        """The choices of every recipe, JSON-safe."""
        return {"varied": list(self.varied), "recipes": [recipe.to_dict() for recipe in self.recipes]}

    def fit(self, context: FoldContext) -> FoldOutcome:
        """Train every recipe on the fold; keep the recognizer and the answers of the best."""
        outcomes = []
        for recipe, values in zip(self.recipes, self.values, strict=True):
            name = "-".join(f"{option}-{value}" for option, value in zip(self.varied, values, strict=True))
            folder = context.folder / "candidates" / name
            own = replace(context, folder=folder, base_folder=folder / "base")
            if recipe.base is not None:
                run_fold(recipe.base, replace(own, folder=own.base_folder))
            folder.mkdir(parents=True, exist_ok=True)
            outcomes.append((recipe.fit(own), dict(zip(self.varied, values, strict=True)), folder))
        best, choices, folder = max(outcomes, key=lambda found: found[0].validation_ua or 0.0)
        atomic.write_bytes(context.folder / MODEL, (folder / MODEL).read_bytes())
        return replace(best, choices=choices, seconds=sum(outcome.seconds for outcome, _, _ in outcomes))


def recipe_of(recipe: str = "default", **options: Any) -> Recipe | RecipeChoice:
    """As :meth:`Recipe.from_options`; where an option is a list, the validation part of each fold chooses from it.

    Raises:
        TypeError: if a name is no option.
        ValueError: if there is no such recipe, a value is out of range, a list is empty, or it is of features.
    """
    varied = {name: value for name, value in options.items() if isinstance(value, list)}
    if not varied:
        return Recipe.from_options(recipe, **options)
    for name, value in varied.items():
        if not value or len(value) != len({repr(item) for item in value}):
            raise ValueError(f"{name} must be a value, or a list of different ones to choose from, got {value}")
    values = tuple(product(*varied.values()))
    recipes = tuple(
        Recipe.from_options(recipe, **{**options, **dict(zip(varied, chosen, strict=True))}) for chosen in values
    )
    if any(other.features != recipes[0].features for other in recipes):
        raise ValueError(f"options of the features must be one value each, got lists of {', '.join(varied)}")
    return RecipeChoice(tuple(varied), values, recipes)
