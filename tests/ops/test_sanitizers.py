"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer, on buffers of exactly the size they need."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from serfast.ops import cpu_capability

REGISTER_BYTES = {"generic": 16, "avx2": 32, "avx512": 64}
SOURCES = Path(__file__).parents[2] / "csrc"


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize(
    ("level", "scalar"),
    [("avx512", "Float32"), ("avx2", "Float16"), ("generic", "BFloat16")],
)
def test_attention_pool_stays_within_its_buffers(tmp_path, level, scalar):
    levels = list(REGISTER_BYTES)
    if levels.index(level) > levels.index(cpu_capability()):
        pytest.skip(f"this processor, or SERFAST_CPU_CAPABILITY, has no {level}")
    program = tmp_path / "watched"
    flags = ["-std=c++17", "-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    names = [f"-DSERFAST_REGISTER_BYTES={REGISTER_BYTES[level]}", f"-DSERFAST_SCALAR={scalar}"]
    source = Path(__file__).with_name("sanitized_attention_pool.cpp")
    subprocess.run(["g++", *flags, *names, f"-I{SOURCES}", str(source), "-o", str(program)], check=True)
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    result = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip() == "watched"
