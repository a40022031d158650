"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer, on buffers of exactly the size they need."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from serfast.ops import cpu_capability

REGISTER_BYTES = {"generic": 16, "avx2": 32, "avx512": 64}
SOURCES = Path(__file__).parents[2] / "csrc"
# A null pointer crashes by itself and the arrays on the stack have bounds: not looking there builds three times faster.
FLAGS = [
    *("-std=c++17", "-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    *("-fno-sanitize=null,object-size", "--param=asan-stack=0"),
]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize(
    ("operator", "level", "scalar"),
    [
        ("attention_pool", "generic", "BFloat16"),
        ("attention_pool", "avx2", "Float16"),
        ("attention_pool", "avx512", "Float32"),
        ("attention_pool", "avx512", "Float64"),
        *(("blstm", level, None) for level in REGISTER_BYTES),
        *(("linear", level, None) for level in REGISTER_BYTES),
    ],
)
def test_kernels_stay_within_their_buffers(tmp_path, operator, level, scalar):
    levels = list(REGISTER_BYTES)
    if levels.index(level) > levels.index(cpu_capability()):
        pytest.skip(f"this processor, or SERFAST_CPU_CAPABILITY, has no {level}")
    program = tmp_path / "watched"
    names = [f"-DSERFAST_REGISTER_BYTES={REGISTER_BYTES[level]}"]
    if scalar is not None:
        names.append(f"-DSERFAST_SCALAR={scalar}")
    source = Path(__file__).with_name(f"sanitized_{operator}.cpp")
    subprocess.run(["g++", *FLAGS, *names, f"-I{SOURCES}", str(source), "-o", str(program)], check=True)
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    result = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip() == "watched"
