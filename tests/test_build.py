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


@pytest.fixture
def setup_script(monkeypatch):
    """The names of setup.py, which builds nothing."""
    monkeypatch.setattr(pytest.importorskip("setuptools"), "setup", lambda **options: None)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # setup.py writes into it
    monkeypatch.chdir(CSRC.parent)
    return runpy.run_path("setup.py")


@pytest.mark.parametrize(
    ("version", "choice", "is_built"),
    [(13000, "", True), (12060, "", False), (12060, "1", True), (12060, "0", False), (13000, "0", False)],
)
def test_cuda_kernels_are_built_for_the_cuda_of_torch_or_on_demand(
    setup_script, monkeypatch, tmp_path, version, choice, is_built
):
    monkeypatch.setenv("SERFAST_CUDA", choice)
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "cuda_runtime_api.h").write_text(f"#define CUDART_VERSION  {version}\n")
    assert setup_script["wants_cuda"](tmp_path, "13.0") == is_built
    assert not setup_script["wants_cuda"](tmp_path, None) or choice == "1"


def test_a_cuda_toolkit_that_is_too_old_is_named(setup_script, monkeypatch, tmp_path):
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "cuda_runtime_api.h").write_text("#define CUDART_VERSION  12050\n")
    monkeypatch.setenv("SERFAST_CUDA", "")
    assert not setup_script["wants_cuda"](tmp_path, "12.6")
    monkeypatch.setenv("SERFAST_CUDA", "1")
    with pytest.raises(SystemExit, match=r"CUDA_HOME must hold a CUDA toolkit of version 12.6 or newer, got 12.5 in /"):
        setup_script["wants_cuda"](tmp_path, "12.6")


@pytest.mark.parametrize("operator", ["attention_pool", "blstm", "linear"])
def test_nvcc_fuses_nothing_by_itself(setup_script, tmp_path, operator):
    """Two copies of a loop that were fused differently would give an utterance other bits at another place."""
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
