"""Extension modules of serfast: ``_C`` (CPU, always) and ``_C_cuda`` (with a CUDA toolkit).

Both are built on the LibTorch stable ABI and CPython's limited API, so one binary runs with every torch >= 2.11 and
every CPython >= 3.10. ``SERFAST_CUDA=1`` demands the CUDA module, ``SERFAST_CUDA=0`` leaves it out; by default it is
built where torch has CUDA and a toolkit of the same major version, 12.6 or newer, is found. ``TORCH_CUDA_ARCH_LIST``
chooses its targets. Everything else is in pyproject.toml.
"""

import os
import re
import shutil
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent.resolve()
TARGET_TORCH = "0x020b000000000000"  # 2.11; one byte per part of the version
CUDA_TARGETS = "8.0;9.0+PTX"
OLDEST_CUDA = (12, 6)  # whose libcu++ can initialise a barrier in shared memory


def find_cuda_toolkit() -> Path | None:
    """The folder of a complete CUDA toolkit. An nvcc on the path may be a wrapper outside it, so headers decide."""
    nvcc = shutil.which("nvcc")
    named = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    candidates = [Path(folder) for folder in named if folder]
    if nvcc is not None:
        candidates.append(Path(nvcc).resolve().parent.parent)
    candidates.append(Path("/usr/local/cuda"))
    return next((folder for folder in candidates if (folder / "include" / "cuda_runtime.h").is_file()), None)


def cuda_version(toolkit: Path) -> tuple[int, int]:
    """Version of a CUDA toolkit, from its own header."""
    header = (toolkit / "include" / "cuda_runtime_api.h").read_text(encoding="utf-8")
    version = re.search(r"#define CUDART_VERSION\s+(\d+)", header)
    if version is None:
        raise SystemExit(f"CUDA_HOME must hold a CUDA toolkit with CUDART_VERSION in cuda_runtime_api.h, got {toolkit}")
    return int(version[1]) // 1000, int(version[1]) % 1000 // 10


def wants_cuda(toolkit: Path | None, torch_cuda: str | None) -> bool:
    """Whether to build ``_C_cuda``.

    Raises:
        SystemExit: if ``SERFAST_CUDA`` is not 0 or 1, or is 1 where there is no toolkit, or one that is too old.
    """
    choice = os.environ.get("SERFAST_CUDA")
    if choice not in (None, "", "0", "1"):
        raise SystemExit(f"SERFAST_CUDA must be 0 or 1, got {choice}")
    if choice == "1":
        if toolkit is None:
            raise SystemExit("SERFAST_CUDA must be 0 without a CUDA toolkit, got 1; install one or set CUDA_HOME")
        if cuda_version(toolkit) < OLDEST_CUDA:
            oldest, found = (".".join(map(str, version)) for version in (OLDEST_CUDA, cuda_version(toolkit)))
            raise SystemExit(
                f"CUDA_HOME must hold a CUDA toolkit of version {oldest} or newer, got {found} in {toolkit}"
            )
        return True
    if choice == "0" or toolkit is None or torch_cuda is None:
        return False
    version = cuda_version(toolkit)
    return version >= OLDEST_CUDA and version[0] == int(torch_cuda.partition(".")[0])


def shared_flags() -> list[str]:
    """Flags for every compiler. Torch's headers are the system's, so that only our own code is warned about."""
    from torch.utils.cpp_extension import include_paths

    torch_headers = [flag for path in include_paths() for flag in ("-isystem", path)]
    return [f"-DTORCH_TARGET_VERSION={TARGET_TORCH}", *torch_headers]


def cpu_flags() -> list[str]:
    """Flags for g++ and clang++. Instruction sets are chosen in the sources, so there is no -march."""
    return [
        *shared_flags(),
        "-O3",
        "-g0",
        "-ffp-contract=fast",
        "-fvisibility=hidden",
        f"-ffile-prefix-map={ROOT}=serfast",
        "-Wall",
        "-Wextra",
    ]


def cuda_flags() -> list[str]:
    """Flags for nvcc: warnings and register spills are errors where ``CFLAGS`` makes them so, as in checks.

    Elsewhere another compiler's few spilled bytes must not stop an installation.
    """
    strict = ["-Werror=all-warnings"] if "-Werror" in os.environ.get("CFLAGS", "").split() else []
    return [
        *shared_flags(),
        "-DUSE_CUDA",
        "-O3",
        # What is fused stands in the sources: a copy of a loop that is fused otherwise gives an utterance other bits.
        "--fmad=false",
        "-Xcompiler=-fvisibility=hidden,-Wall",
        "-Xptxas=-warn-spills",
        "--threads=2",
        *strict,
    ]


def found(pattern: str) -> list[str]:
    """Files of csrc that match the pattern, relative to the root, as setuptools wants them."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob(pattern))


def extension(name: str, sources: list[str], flags: dict[str, list[str]]) -> Extension:
    """One extension module on torch's stable ABI and CPython's limited API."""
    from torch.utils.cpp_extension import CppExtension

    headers = found("*.h") + found("*.inl") + found("*.cuh")
    module = CppExtension(name, sources, depends=headers, py_limited_api=True, extra_compile_args=flags)
    module.include_dirs.clear()  # torch's are in the flags
    return module


def extensions() -> list[Extension]:
    """The extension modules to build here. Every ``csrc/*.cpp`` and ``csrc/*.cu`` belongs to one of them."""
    toolkit = find_cuda_toolkit()
    if toolkit is not None:
        os.environ["CUDA_HOME"] = str(toolkit)  # read when cpp_extension is imported

    import torch
    from torch.utils import cpp_extension

    cpu_sources = [source for source in found("*.cpp") if not source.endswith("_cuda.cpp")]
    modules = [extension("serfast._C", cpu_sources, {"cxx": cpu_flags()})]
    if wants_cuda(toolkit, torch.version.cuda) and toolkit is not None:
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", CUDA_TARGETS)
        cpp_extension.CUDA_HOME = str(toolkit)  # torch ignores the toolkit when it was built without CUDA itself
        flags = {"cxx": cpu_flags(), "nvcc": cuda_flags()}
        module = extension("serfast._C_cuda", found("*_cuda.cpp") + found("*.cu"), flags)
        module.include_dirs.append(str(toolkit / "include"))
        module.library_dirs.append(str(toolkit / "lib64"))
        module.libraries.append("cudart")
        # libtorch.so of a CUDA torch brings libtorch_cuda.so, which holds what the kernels call.
        module.extra_link_args += ["-Wl,--no-as-needed", "-ltorch"]
        modules.append(module)
    return modules


def build_command() -> type:
    """The ``build_ext`` of torch, which compiles with ninja and knows .cu files."""
    from torch.utils.cpp_extension import BuildExtension

    return BuildExtension


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": build_command()},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
