"""The same seed gives the same history: of every object, in every process, whatever strings and objects hash to."""

from __future__ import annotations

import os
import subprocess
import sys

from tiphys.base.virtualloop import run_virtual
from tiphys.cluster.trial import run_scenario

PROGRAM = """
from tiphys.base.virtualloop import run_virtual
from tiphys.cluster.trial import run_scenario
ballast = [object() for _ in range({ballast})]
for name in ("rollout", "jobs"):
    print(run_virtual(run_scenario(name, 5, faults=12, bad_network=True)).digest())
"""


def test_the_same_seed_gives_the_same_history_in_one_process() -> None:
    first = run_virtual(run_scenario("stateful", 7, faults=12, bad_network=True))
    second = run_virtual(run_scenario("stateful", 7, faults=12, bad_network=True))
    for one, other in zip(first.lines(), second.lines(), strict=True):
        assert one == other


def test_the_same_seed_gives_the_same_history_in_every_process() -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(ballast=ballast)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for ballast, hash_seed in ((0, "1"), (12_345, "2"))
    ]
    outputs = [child.communicate(timeout=120)[0].split() for child in children]
    assert len(outputs[0]) == 2
    assert outputs[0] == outputs[1]


def test_another_seed_gives_another_history() -> None:
    histories = [run_virtual(run_scenario("frozen", seed)).digest() for seed in (1, 2)]
    assert histories[0] != histories[1]
