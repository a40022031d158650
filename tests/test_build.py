"""What was built: binaries that load everywhere, from the torch that was there."""

import importlib.util
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serfast import _C

CSRC = Path(__file__).parents[1] / "csrc"


@pytest.fixture
def build_backend():
    pytest.importorskip("setuptools")
    spec = importlib.util.spec_from_file_location("build_backend", CSRC / "build_backend.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_module_is_for_every_python():
    assert Path(_C.__file__).name == "_C.abi3.so"


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets are chosen on x86-64 only")
def test_no_wide_instruction_escapes_its_dispatch():
    command = [sys.executable, str(CSRC / "audit_isa.py"), _C.__file__]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("operator", ["attention_pool", "blstm", "linear"])
def test_nvcc_fuses_nothing_by_itself(monkeypatch, tmp_path, operator):
    """Two copies of a loop that were fused differently would give an utterance other bits at another place."""
    monkeypatch.setattr(pytest.importorskip("setuptools"), "setup", lambda **options: None)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # setup.py writes into it
    monkeypatch.chdir(CSRC.parent)
    setup_script = runpy.run_path("setup.py")
    toolkit = setup_script["find_cuda_toolkit"]()
    if toolkit is None:
        pytest.skip("needs a CUDA toolkit")
    nvcc = [str(toolkit / "bin" / "nvcc"), *setup_script["cuda_flags"](), "-std=c++17", "-arch=compute_90", "--ptx"]
    ptx = tmp_path / "kernels.ptx"
    subprocess.run([*nvcc, f"-I{CSRC}", str(CSRC / f"{operator}_cuda.cu"), "-o", str(ptx)], check=True)
    code = ptx.read_text(encoding="utf-8")
    assert re.search(r"\b(add|mul)\.rn\.f32\b", code)
    assert re.findall(r"\b(?:add|sub|mul)(?:\.ftz)?\.f(?:32|64)\b", code) == []


def test_build_asks_for_torch_only_where_there_is_none(build_backend, monkeypatch, tmp_path):
    assert build_backend.get_requires_for_build_wheel() == []
    monkeypatch.setattr(build_backend.sysconfig, "get_path", lambda scheme: str(tmp_path))
    assert build_backend.get_requires_for_build_wheel() == ["torch>=2.11"]
    (tmp_path / "torch" / "include" / "torch" / "csrc" / "stable").mkdir(parents=True)
    (tmp_path / "torch" / build_backend.STABLE_ABI_HEADER).touch()
    for version, expected in (("2.10.1", ["torch>=2.11"]), ("2.11.0+cpu", []), ("3.0.0", [])):
        (tmp_path / "torch" / "version.py").write_text(f"__version__ = '{version}'\n")
        assert build_backend.get_requires_for_build_wheel() == expected


def test_named_torch_must_be_there(build_backend, monkeypatch, tmp_path):
    monkeypatch.setenv("SERFAST_BUILD_TORCH", str(tmp_path))
    with pytest.raises(SystemExit, match="SERFAST_BUILD_TORCH must name a site-packages with torch >= 2.11, got"):
        build_backend.get_requires_for_build_editable()
