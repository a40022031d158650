"""The emulated CUDA device: faults that it must notice."""

import math
import os
import subprocess
from pathlib import Path

import pytest

from tests.emulated_cuda.build import CAN_BUILD, build_program

N_THREADS = 64


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if not CAN_BUILD:
        pytest.skip("needs Linux and g++")
    return build_program(Path(__file__).with_name("faults.cu"), tmp_path_factory.mktemp("faults"))


@pytest.mark.skipif(not CAN_BUILD, reason="needs Linux and g++")
def test_sanitizers_notice_what_lies_past_the_end(tmp_path):
    watched = build_program(Path(__file__).with_name("faults.cu"), tmp_path, sanitized=True)
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    for name, exit_code in (("reversed", 0), ("past the end of memory", 1), ("past the end of shared memory", 1)):
        command = [watched, name, "0"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == exit_code, result.stderr
        assert ("heap-buffer-overflow" in result.stderr) == (exit_code == 1)


def output(program, name, schedule):
    return subprocess.run([program, name, str(schedule)], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("schedule", range(4))
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reversed", list(range(N_THREADS))[::-1]),
        ("copied", list(range(N_THREADS))),
        ("sent", list(range(N_THREADS))),
        ("overwritten", list(range(N_THREADS))[::-1]),
        ("dynamic memory", [1] * N_THREADS),
        ("counted", [3 + 32 + 64 + last for last in (31, 63) for _ in range(32)]),
    ],
)
def test_right_kernels_get_the_same_numbers_in_every_order(program, name, expected, schedule):
    assert [float(number) for number in output(program, name, schedule).split()] == expected


@pytest.mark.parametrize("schedule", [0, 2])  # what is on its way comes late
@pytest.mark.parametrize("name", ["reversed without a barrier", "copied without waiting"])
def test_numbers_that_are_not_there_yet_are_nan(program, name, schedule):
    assert any(math.isnan(float(number)) for number in output(program, name, schedule).split())


def test_what_is_written_over_too_soon_changes_numbers(program):
    expected = output(program, "overwritten", 0)
    assert all(output(program, "overwritten too soon", schedule) != expected for schedule in (1, 3, 5))


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("copied off a boundary", "an asynchronous copy must be of 4, 8 or 16 bytes on their boundary, got 16"),
        ("the first lane left", "a warp's exchange must be made by all of its lanes, got 31"),
        ("copies left behind", "a thread must wait for its copies before it ends, got 1"),
        ("beyond its bound", "a block must have at most the threads that its kernel is bound to, got 64"),
        ("much memory of both kinds", "a block must ask for its shared memory, declared and dynamic, got 53248"),
        ("mixed exchanges", "a warp's lanes must make the same exchange"),
        ("the last lane left", "a lane must not leave while others of its warp wait, got 31"),
        ("arrived twice", "a barrier must be arrived at no more often than it expects"),
        ("sent away", "sent bytes must go to the shared memory of the barrier's block, got others"),
        ("stuck", "threads wait at a barrier that the others never reach"),
        ("no blocks", "a grid must have blocks, got 0"),
        ("many blocks", "a grid must have at most 65535 blocks along y and z, got 70000"),
        ("many threads", "a block must have 1 to 1024 threads, got 2048"),
        ("much dynamic memory", "a kernel must ask for its dynamic shared memory, got 50176"),
        ("much static memory", "a block must declare at most 48 KB of shared memory, got 53248"),
        ("sent without waiting", "a block must run while others send it bytes, got one that has ended"),
        ("sent too little", "threads wait at a barrier that the others never reach"),
        ("sent to nobody", "a barrier that counts bytes must be initialised before it is used, got one that is not"),
        ("a square off a boundary", "a square must start at 32 bytes with a stride of 16, got 17"),
    ],
)
def test_what_a_device_forbids_is_refused(program, name, refusal):
    assert output(program, name, 0).startswith(refusal)
