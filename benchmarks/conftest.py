"""Lets benchmarks share modules. Last on the path, so that the installed serfast goes before the sources."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
