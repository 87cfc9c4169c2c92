"""The house's rules that a machine can check, over all of the project's code. Each failure lists every place."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

from tiphys.cli.main import main as command

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "tiphys"
FILE_LINES = 500
FILE_LINES_EVER = 850
FUNCTION_LINES = 70
LINE = 120

BLANKET = {
    "apiserver/cache.py": "the request boundary of every watch of a resource",
    "apiserver/dirtynames.py": "the worker boundary",
    "apiserver/fairness/upkeep.py": "the worker boundary",
    "apiserver/pipeline.py": "the request boundary",
    "apiserver/watches.py": "the request boundary of watches",
    "base/virtualloop.py": "what a worker thread raises is handed to its caller",
    "client/local.py": "the request boundary without sockets",
    "client/queue.py": "the worker boundary",
    "cluster/guardian.py": "the top of a process",
    "cluster/up.py": "the top of a process",
    "kubelet/operations.py": "the worker boundary",
    "kubelet/run.py": "the worker boundary",
    "scheduler/loop.py": "the worker boundary",
    "wire/connection.py": "the request boundary",
    "wire/step.py": "what a coroutine is thrown, it is thrown on",
    "wire/streams.py": "the request boundary of sessions",
}
"""Where `except Exception` may stand, and as what."""


@cache
def trees() -> dict[str, tuple[str, ast.Module]]:
    """Return path below the package -> (text, tree)."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        found[str(path.relative_to(PACKAGE))] = (text, ast.parse(text))
    return found


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_every_module_says_what_it_decides() -> None:
    bare = [path for path, (text, tree) in trees().items() if text.strip() and not ast.get_docstring(tree)]
    assert not bare


def test_long_files_give_their_reason() -> None:
    wrong = []
    for path, (text, tree) in trees().items():
        count = text.count("\n")
        docstring = ast.get_docstring(tree) or ""
        if count > FILE_LINES_EVER or (
            count > FILE_LINES and not re.search(r"\b(lines|long|longer)\b", docstring, re.IGNORECASE)
        ):
            wrong.append(f"{path}: {count} lines, and its docstring does not say why (with the word `lines` or `long`)")
    assert not wrong, "\n".join(wrong)


def test_functions_fit_on_a_screen() -> None:
    wrong = []
    for path, (_, tree) in trees().items():
        for function in functions(tree):
            count = (function.end_lineno or function.lineno) - function.lineno + 1
            if count > FUNCTION_LINES:
                wrong.append(f"{path}:{function.lineno} {function.name}: {count} lines")
    assert not wrong, "\n".join(wrong)


def test_blanket_catches_stand_only_at_the_boundaries() -> None:
    wrong = []
    for path, (_, tree) in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and path not in BLANKET:
                caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                names = {name.id for name in caught if isinstance(name, ast.Name)}
                if node.type is None or names & {"Exception", "BaseException"}:
                    reraises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
                    if not reraises:
                        wrong.append(f"{path}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_to_do() -> None:
    words = re.compile(r"\b(TO" + "DO|FIX" + r"ME|XXX|HACK)\b")
    wrong = [
        f"{path}:{number}"
        for path, (text, _) in trees().items()
        for number, line in enumerate(text.splitlines(), 1)
        if words.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_names_say_what_a_thing_is() -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert not [path for path in trees() if banned & set(Path(path).with_suffix("").parts)]
    deep = [path for path in trees() if len(Path(path).parts) > 3]
    assert not deep, deep


def test_no_place_of_one_machine_is_in_the_files() -> None:
    places = re.compile(r"/(home|Users|root|work)/\w")
    wrong: list[str] = []
    for pattern in ("src/**/*.py", "scripts/*", "examples/*", "docs/**/*.md", "*.md", "Makefile", "pyproject.toml"):
        files = [path for path in ROOT.glob(pattern) if path.is_file()]
        wrong += [str(path.relative_to(ROOT)) for path in files if places.search(path.read_text())]
    assert not wrong, wrong


def test_departures_from_kubernetes_are_listed() -> None:
    path = ROOT / "scripts" / "weaknesses.py"
    spec = importlib.util.spec_from_file_location("weaknesses", path)
    assert spec and spec.loader
    weaknesses = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weaknesses)
    document = weaknesses.DOCUMENT.read_text()
    assert document == weaknesses.wanted(document), "run: python scripts/weaknesses.py"


def test_every_command_and_flag_is_documented() -> None:
    texts = (ROOT / "README.md").read_text() + (ROOT / "docs" / "guide.md").read_text()
    missing = []
    for words, each in commands(command, ()):
        if isinstance(each, click.Group):
            continue
        if words[-1] not in texts:
            missing.append(" ".join(words))
        assert each.help, words
        for parameter in each.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (words, parameter.name)
                if not any(option in texts for option in parameter.opts):
                    missing.append(f"{' '.join(words)} {parameter.opts[-1]}")
    assert not missing, missing


def commands(group: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if words:
        yield words, group
    if isinstance(group, click.Group):
        for name, each in group.commands.items():
            yield from commands(each, (*words, name))
