"""Decides what a simulated process prints, how long it runs and how it exits.

Input is a container's command line (or a pod annotation); output is a list of steps that simulated.py plays on the
event loop's time. Understood: `true`, `false`, `sleep N`, `exit N`, `echo TEXT`, `hostname`, `cat` (its input comes
back), `env`, and lists of these in `sh -c "..."` joined by `;`, `&&` or newlines, with an outer `while true` running
for ever. Anything else is a server: it runs until it is stopped. An exec of anything else ends at once with 0.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SHELLS = frozenset({"sh", "/bin/sh", "bash", "/bin/bash", "ash", "/bin/ash"})
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|)$")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Print:
    text: bytes


@dataclass(frozen=True, slots=True)
class CopyInput:
    """Write what comes in back out until the input ends."""


@dataclass(frozen=True, slots=True)
class RunForever:
    """Runs until it is stopped."""


@dataclass(frozen=True, slots=True)
class Exit:
    code: int


Step = Sleep | Print | CopyInput | RunForever | Exit


def parse_duration(text: str) -> float:
    """Return the seconds of `5s`, `200ms`, `1.5` or `infinity`. Raises ValueError."""
    if text in ("infinity", "inf"):
        return float("inf")
    match = _DURATION.match(text)
    if not match:
        raise ValueError(f"not a duration: {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def parse_exit_annotation(text: str) -> list[Step]:
    """Return the steps of `CODE [after DURATION]`, e.g. `1 after 5s`. Raises ValueError."""
    words = text.split()
    if len(words) == 1:
        return [Exit(int(words[0]))]
    if len(words) == 3 and words[1] == "after":
        return [Sleep(parse_duration(words[2])), Exit(int(words[0]))]
    raise ValueError(f'not an exit rule: {text!r}; write it like "1 after 5s"')


def plan_process(
    command: Sequence[str], environment: Mapping[str, str], hostname: str, *, server: bool = True
) -> list[Step]:
    """Return the steps of a command line. `server`: what is not understood runs for ever rather than ending with 0."""
    if len(command) >= 3 and command[0] in SHELLS and command[1].startswith("-") and command[1].endswith("c"):
        return _plan_script(command[2], environment, hostname, server)
    return _plan_command(list(command), environment, hostname, server)


def _plan_script(script: str, environment: Mapping[str, str], hostname: str, server: bool) -> list[Step]:
    steps: list[Step] = []
    for part in re.split(r";|&&|\n", script):
        try:
            words = shlex.split(part)
        except ValueError:
            words = part.split()
        if not words:
            continue
        if words[0] in ("while", "until", "for"):
            return [*steps, RunForever()]
        if words[0] == "exec":
            words = words[1:]
        planned = _plan_command(words, environment, hostname, server)
        last = planned[-1] if planned else Exit(0)
        if isinstance(last, RunForever) or words[0] == "exit":
            return [*steps, *planned]
        steps += [step for step in planned if not isinstance(step, Exit)]
        if isinstance(last, Exit) and last.code and "&&" in script:
            return [*steps, last]
    return [*steps, Exit(0)]


def _plan_command(words: list[str], environment: Mapping[str, str], hostname: str, server: bool) -> list[Step]:
    name, args = (words[0].rsplit("/", 1)[-1], words[1:]) if words else ("", [])
    if name == "true":
        return [Exit(0)]
    if name == "false":
        return [Exit(1)]
    if name == "exit":
        return [Exit(int(args[0]) & 0xFF if args and args[0].isdigit() else 0)]
    if name == "echo":
        expanded = [re.sub(r"\$\{?(\w+)\}?", lambda m: environment.get(m[1], ""), arg) for arg in args]
        return [Print((" ".join(expanded) + "\n").encode()), Exit(0)]
    if name == "sleep":
        try:
            seconds = sum(parse_duration(arg) for arg in args)
        except ValueError:
            return [Exit(1)]
        return [RunForever()] if seconds == float("inf") else [Sleep(seconds), Exit(0)]
    if name == "hostname":
        return [Print(f"{hostname}\n".encode()), Exit(0)]
    if name == "env":
        return [Print("".join(f"{key}={value}\n" for key, value in environment.items()).encode()), Exit(0)]
    if name == "cat" and not args:
        return [CopyInput(), Exit(0)]
    return [RunForever()] if server else [Exit(0)]
