"""An image with this machine's own Python interpreter, made on the spot: servers of tests run in real pods with it.

It holds the interpreter, what the programs import of the standard library, the shared libraries of all of
these, each under the path that it has here, and the programs themselves below PROGRAMS. Nothing is downloaded.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import marshal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tiphys.runtime.imagebuild import File, ImageConfig, build_image, busybox_layer

PROGRAMS = "srv"
_LIST = """
import sys, json, importlib
for name in json.loads(sys.argv[1]): importlib.import_module(name)
import encodings, os
found = {n: m.__file__ for n, m in sys.modules.items() if getattr(m, "__file__", None)}
print(json.dumps([sorted(set(found.values())), os.path.realpath(sys.executable)]))
"""


def build_python_image(path: Path, reference: str, programs: Mapping[str, str]) -> None:
    """Write an OCI archive; `programs` are file name -> source, of the standard library only."""
    modules = {name for text in programs.values() for name in _imports(text)} | {"encodings.idna", "encodings.latin_1"}
    command = [sys.executable, "-I", "-S", "-c", _LIST, json.dumps(sorted(modules))]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    sources, executable = json.loads(done.stdout)
    extensions = [name for name in sources if name.endswith(".so")]
    files = {executable.lstrip("/"): File(Path(executable).read_bytes(), 0o755)}
    files["usr/bin/python3"] = File(link=executable)
    for library in {*extensions, *_libraries(executable, *extensions)}:
        files[library.lstrip("/")] = File(Path(library).read_bytes(), 0o755)
    for source in sources:
        if source.endswith(".py"):
            files[f"{source.lstrip('/')}c"] = File(_compiled(source))
    written = {f"{PROGRAMS}/{name}": File(text.encode()) for name, text in programs.items()}
    config = ImageConfig(cmd=("python3", "-V"))
    build_image(path, [reference], [{**busybox_layer(), **files}, written], config)


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _libraries(*binaries: str) -> set[str]:
    """Return what the loader maps for binaries, under the names by which it looks for them."""
    listed = subprocess.run(["ldd", *binaries], capture_output=True, check=True, text=True).stdout
    words = [word for line in listed.splitlines() if line.startswith("\t") for word in line.split()]
    return {word for word in words if word.startswith("/")}


def _compiled(source: str) -> bytes:
    """Return the byte code of a module, as a file that stands in the place of its source."""
    cached = Path(importlib.util.cache_from_source(source))
    if cached.exists():
        return cached.read_bytes()
    code = compile(Path(source).read_bytes(), source, "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)
