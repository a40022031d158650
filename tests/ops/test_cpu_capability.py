"""The choice of instruction set."""

import os
import subprocess
import sys

import pytest

from serfast.ops import cpu_capability


def imported_with(level):
    environment = os.environ | {"SERFAST_CPU_CAPABILITY": level}
    command = [sys.executable, "-c", "import serfast.ops; print(serfast.ops.cpu_capability())"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_capability_is_a_known_level():
    assert cpu_capability() in ("generic", "avx2", "avx512")


def test_variable_chooses_the_level():
    assert imported_with("generic").stdout.strip() == "generic"


@pytest.mark.parametrize("level", ["sse", "", "AVX2"])
def test_unknown_level_raises(level):
    expected = f"ValueError: SERFAST_CPU_CAPABILITY must be generic, avx2 or avx512, got {level}"
    assert expected.strip() in imported_with(level).stderr
