"""Training of one model: options, batches, the loop, checkpoints and answers of a trained model."""

from serfast.training.classification import TrainedModel, base_options, train_model
from serfast.training.distributed import crew, launched
from serfast.training.inference import Answers, answer
from serfast.training.loop import CHECKPOINT, EpochRecord, Task, Validation, run_epochs
from serfast.training.options import TrainingOptions
from serfast.training.side_by_side import train_side_by_side

__all__ = [
    "CHECKPOINT",
    "Answers",
    "EpochRecord",
    "Task",
    "TrainedModel",
    "TrainingOptions",
    "Validation",
    "answer",
    "base_options",
    "crew",
    "launched",
    "run_epochs",
    "train_model",
    "train_side_by_side",
]
