from collections.abc import Callable

import pytest
from torch import Tensor


class PlainCalls:
    """In the place of graphs: what would be captured is called."""

    def __init__(self) -> None:
        self.n_runs, self.n_captures, self.n_replays = 0, 0, 0

    def run(self, function: Callable[[], Tensor]) -> Tensor:
        self.n_runs += 1
        return function()

    def capture(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.n_captures += 1

        def replay() -> Tensor:
            self.n_replays += 1
            return function()

        return replay


@pytest.fixture
def plain_calls() -> type[PlainCalls]:
    return PlainCalls
