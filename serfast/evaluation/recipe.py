"""A recipe: every choice of an experiment that is not the corpus and not the protocol."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from serfast.features import FeatureOptions
from serfast.models import ModelOptions
from serfast.training import TrainingOptions

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How features are extracted, how the model is shaped and how it is trained."""

    features: FeatureOptions = field(default_factory=FeatureOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)

    @classmethod
    def from_options(cls, **options: Any) -> "Recipe":
        """A recipe from options by name, each a field of FeatureOptions, ModelOptions or TrainingOptions.

        Raises:
            TypeError: if a name is no option.
            ValueError: if a value is out of range.
        """
        parts: dict[str, Any] = {}
        for part, kind in (("features", FeatureOptions), ("model", ModelOptions), ("training", TrainingOptions)):
            names = {option.name for option in fields(kind)} & options.keys()
            parts[part] = kind(**{name: options.pop(name) for name in names})
        if options:
            known = sorted(option.name for part in parts.values() for option in fields(part))
            raise TypeError(f"options must be among {', '.join(known)}, got {', '.join(sorted(options))}")
        return cls(**parts)

    def to_dict(self) -> dict[str, Any]:
        """Every choice by part and name, JSON-safe."""
        return {
            "features": self.features.to_dict(),
            "model": asdict(self.model),
            "training": asdict(self.training),
        }
