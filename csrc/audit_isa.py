"""Check that no wide vector instruction escapes from the code that is chosen at run time.

The baseline of the extension must run on every processor: outside the ``avx2`` and ``avx512`` namespaces no instruction
may be VEX or EVEX encoded, and inside ``avx2`` none may need AVX-512. Usage: ``python csrc/audit_isa.py MODULE.so``.
"""

import re
import subprocess
import sys
from pathlib import Path

_FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
_INSTRUCTION = re.compile(r"^\s+[0-9a-f]+:\s+(\S+)\s*(.*)$")
_AVX512_REGISTER = re.compile(r"%zmm|%k[0-7]|%[xy]mm(1[6-9]|2\d|3[01])")
_NAMESPACES = ("generic", "avx2", "avx512")


def namespace_of(function: str) -> str:
    """The instruction set a function is compiled for, by its namespace; generic for everything else."""
    return next((name for name in _NAMESPACES[1:] if f"serfast::{name}::" in function), "generic")


def level_of(mnemonic: str, operands: str) -> str:
    """The instruction set an instruction needs."""
    if _AVX512_REGISTER.search(operands):
        return "avx512"
    return "avx2" if mnemonic.startswith("v") and "mm" in operands else "generic"


def audit(module: Path) -> tuple[list[str], dict[str, int]]:
    """Instructions that some processor lacks, and how many wide ones each namespace holds."""
    command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(module)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    function, escaped, n_wide = "", [], dict.fromkeys(_NAMESPACES, 0)
    for line in listing.splitlines():
        if (header := _FUNCTION.match(line)) is not None:
            function = header[1]
        elif (instruction := _INSTRUCTION.match(line)) is not None:
            namespace, level = namespace_of(function), level_of(instruction[1], instruction[2])
            n_wide[namespace] += level != "generic"
            if _NAMESPACES.index(level) > _NAMESPACES.index(namespace):
                escaped.append(f"{function}: {instruction[1]} {instruction[2]}")
    return escaped, n_wide


def main() -> None:
    """Audit the module named on the command line; the exit status tells whether it is clean."""
    escaped, n_wide = audit(Path(sys.argv[1]))
    summary = f"{len(escaped)} instructions outside their namespace; wide instructions in each: {n_wide}"
    print(*escaped[:20], summary, sep="\n")
    sys.exit(1 if escaped or n_wide["avx2"] == 0 or n_wide["avx512"] == 0 else 0)


if __name__ == "__main__":
    main()
