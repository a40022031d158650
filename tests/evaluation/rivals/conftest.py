from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from serfast import FeatureStore, Result
from serfast.evaluation.progress import Progress
from serfast.evaluation.protocol import make_protocol
from serfast.evaluation.runs import SystemRun, run_systems
from serfast.evaluation.system import System


@pytest.fixture
def run() -> Callable[..., Result]:
    """Run a system on each speaker of a store, in a folder."""

    def run(system: System, store: FeatureStore, output: Path, *, side_by_side: bool = False) -> Result:
        (result,) = run_systems(
            [SystemRun(system, output, output / "base")],
            store,
            make_protocol("leave_one_speaker_out", store),
            exclude=(),
            device=torch.device("cpu"),
            progress=Progress(False),
            side_by_side=side_by_side,
        )
        return result

    return run
