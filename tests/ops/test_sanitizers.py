"""Kernels under AddressSanitizer and UndefinedBehaviorSanitizer, on buffers of exactly the size they need.

Those of the CPU run as they are, those of CUDA on the emulated device.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serfast.ops import cpu_capability, has_cuda_kernels
from tests.emulated_cuda.build import CAN_BUILD

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


@pytest.mark.skipif(not CAN_BUILD, reason="needs Linux and g++")
@pytest.mark.skipif(has_cuda_kernels(), reason="the CUDA kernels themselves are there, for compute-sanitizer")
def test_emulated_cuda_kernels_stay_within_their_buffers(tmp_path):
    libraries = [
        subprocess.run(["g++", f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    environment = os.environ | {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "SERFAST_SANITIZED_CUDA": "1",
    }
    files = [Path(__file__).with_name(f"test_{name}_cuda.py") for name in ("attention_pool", "blstm", "linear")]
    left_out = ("opcheck", "among_any_others", "float64", "long_utterances", "s-128", "s-256", "300")
    kept = " and not ".join(["emulated_cuda", *left_out])
    # Outside of the sources, which would be imported instead of what is installed.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--capture=no", "-p", "no:cacheprovider", *files, "-k", kept]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[:3000] + result.stdout[-1000:]
    assert " passed" in result.stdout
