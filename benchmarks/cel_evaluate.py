"""Measures expressions: importing the engine, compiling three typical rules, and evaluating them as a write does.

    python benchmarks/cel_evaluate.py

Prints JSON. Data is JSON as a write brings it, checked against a schema, with a budget. If the package `cel-python` is
installed, it evaluates the same rules over the same data, once with the data converted for it beforehand and once not.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import time
from collections.abc import Callable
from typing import Any

RULES = {
    "three numbers": "self.minReplicas <= self.replicas && self.replicas <= self.maxReplicas",
    "pattern": "!has(self.host) || self.host.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "20 elements": "self.widgets.all(w, w.name.startsWith('w') && w.size < 100)",
}
DATA: dict[str, Any] = {
    "self": {
        "minReplicas": 1,
        "replicas": 3,
        "maxReplicas": 5,
        "host": "example-host",
        "widgets": [{"name": f"w{index}", "size": index} for index in range(20)],
    }
}


def best_us(run: Callable[[], object], times: int) -> float:
    """Return the best average of five rounds, in microseconds."""
    rounds = []
    for _ in range(5):
        started_s = time.perf_counter()
        for _ in range(times):
            run()
        rounds.append((time.perf_counter() - started_s) / times * 1e6)
    return round(min(rounds), 2)


def own(times: int) -> dict[str, object]:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s = time.perf_counter()
    from tiphys.cel import types
    from tiphys.cel.cost import Budget
    from tiphys.cel.environment import Environment

    import_s = time.perf_counter() - started_s
    widget = types.ObjectType("widget", {"name": types.STRING, "size": types.INT})
    numbers = dict.fromkeys(("minReplicas", "replicas", "maxReplicas"), types.INT)
    schema = types.ObjectType("self", {**numbers, "host": types.STRING, "widgets": types.list_of(widget)})
    environment = Environment({"self": schema})
    environment.compile("self.host.matches('x')")
    rules = {}
    for name, text in RULES.items():
        program = environment.compile(text)
        assert program.evaluate(DATA, Budget(1_000_000)) is True
        rules[name] = {
            "compile_ms": round(best_us(lambda text=text: environment.compile(text), 20) / 1000, 3),
            "evaluate_us": best_us(lambda program=program: program.evaluate(DATA, Budget(1_000_000)), times),
        }
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    return {"import_ms": round(import_s * 1000, 1), "memory_kib": grown_kib, "rules": rules}


def cel_python(times: int) -> dict[str, object] | None:
    if importlib.util.find_spec("celpy") is None:
        return None
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s = time.perf_counter()
    import celpy

    import_s = time.perf_counter() - started_s
    environment = celpy.Environment()
    data = celpy.json_to_cel(DATA)
    rules = {}
    for name, text in RULES.items():
        started_s = time.perf_counter()
        program = environment.program(environment.compile(text))
        compile_s = time.perf_counter() - started_s
        rules[name] = {
            "compile_ms": round(compile_s * 1000, 3),
            "evaluate_us": best_us(lambda program=program: program.evaluate(data), times),
            "with_conversion_us": best_us(lambda program=program: program.evaluate(celpy.json_to_cel(DATA)), times),
        }
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    return {"import_ms": round(import_s * 1000, 1), "memory_kib": grown_kib, "rules": rules}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=2000, help="evaluations of a round")
    arguments = parser.parse_args()
    print(
        json.dumps({"tiphys": own(arguments.times), "cel-python": cel_python(max(1, arguments.times // 100))}, indent=2)
    )


if __name__ == "__main__":
    main()
