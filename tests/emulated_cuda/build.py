"""Builds CUDA sources for a device that is emulated on the CPU."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from torch.utils.cpp_extension import include_paths, library_paths

CAN_BUILD = sys.platform == "linux" and shutil.which("g++") is not None
HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "csrc"
TARGET_TORCH = "0x020b000000000000"  # as in setup.py
FLAGS = ["-std=c++20", "-fPIC", "-w", "-U_FORTIFY_SOURCE", "-ffp-contract=off"]
SANITIZERS = [
    *("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    *("-fno-sanitize=null,object-size,vptr", "--param=asan-stack=0"),  # fibers have stacks of their own
]

BOUND = re.compile(r"__launch_bounds__\(([^(),]+)[^()]*\)(\s+\w+\([^{]*\) \{)")
LAUNCH = re.compile(r"(\w+)(<[^;<>]*>)?\s*<<<(.*?)>>>\(", re.DOTALL)
DYNAMIC_SHARED = re.compile(r"extern __shared__ (?:__align__\((\d+)\) )?unsigned char (\w+)\[\];")
SHARED = re.compile(r"__shared__ ([^;]+?) (\w+)((?:\[[^\]]*\])*);")


def plain_cpp(source: str) -> str:
    """CUDA C++ without what only nvcc can read: launches, their bounds and shared memory become calls of the device."""
    source = BOUND.sub(r"\2\n  emulated::check_launch_bound(\1);", source)
    source = DYNAMIC_SHARED.sub(_dynamic_shared, source)
    source = SHARED.sub(r"auto& \2 = emulated::shared<\1\3, __COUNTER__>();", source)
    return LAUNCH.sub(_launch, source)


def _dynamic_shared(found: re.Match[str]) -> str:
    alignment, name = found.groups()
    return f"unsigned char* const {name} = emulated::dynamic_shared({alignment or 1});"


def _launch(found: re.Match[str]) -> str:
    name, types, configuration = found.groups()
    if types or name == "kernel":  # a function, or a pointer to one
        return f"emulated::launch({name}{types or ''}, {configuration})("
    # The types of a template follow from its arguments: it has no address, and is called by name.
    return f"emulated::launch([&](auto... arguments) {{ {name}(arguments...); }}, {configuration})("


def build_kernels(folder: Path, *, sanitized: bool = False) -> Path:
    """A library that registers the kernels of ``csrc/*.cu`` for CUDA tensors, and runs them on the CPU's memory.

    Headers of the same name here take the places of those of ``csrc``.
    """
    sources = [path for path in (*SOURCES.glob("*.cu*"), *SOURCES.glob("*.h")) if not (HERE / path.name).exists()]
    for path in sources:
        (folder / path.name).write_text(plain_cpp(path.read_text(encoding="utf-8")), encoding="utf-8")
    flags = [*FLAGS, *(SANITIZERS if sanitized else ["-O2"])]
    torch_flags = [f"-DTORCH_TARGET_VERSION={TARGET_TORCH}", *(f"-I{path}" for path in include_paths())]
    objects = [path.with_suffix(".o") for path in sorted(folder.glob("*.cu"))]
    command = ["g++", *flags, *torch_flags, f"-I{HERE}", f"-I{folder}", "-include", "torch_device.h", "-x", "c++", "-c"]
    runs = [subprocess.Popen([*command, path.with_suffix(".cu"), "-o", path]) for path in objects]
    codes = [run.wait() for run in runs]
    if any(codes):
        raise RuntimeError(f"csrc/*.cu must compile for the emulated device, got exit codes {codes}")
    library = folder / "kernels.so"
    links = [*(f"-L{path}" for path in library_paths()), "-ltorch_cpu", "-lc10"]
    subprocess.run(["g++", "-shared", *flags, *objects, "-o", library, *links], check=True)
    return library


def build_program(source: Path, folder: Path, *, sanitized: bool = False) -> Path:
    """A program from one CUDA source without torch."""
    plain = folder / source.name
    plain.write_text(plain_cpp(source.read_text(encoding="utf-8")), encoding="utf-8")
    program = folder / source.stem
    includes = ["-include", "cuda_runtime.h", f"-I{HERE}", *(f"-I{path}" for path in include_paths())]
    flags = [*FLAGS, *(SANITIZERS if sanitized else ["-O1"])]
    subprocess.run(["g++", *flags, *includes, "-x", "c++", plain, "-o", program], check=True)
    return program
