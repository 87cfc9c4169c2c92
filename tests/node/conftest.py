"""Puts the node tests' own support modules (leaks, runtime_support) on the path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
