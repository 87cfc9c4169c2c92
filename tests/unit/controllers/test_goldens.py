"""Golden files: objects in, objects that the controllers make out (tests/golden/controllers/*.yaml).

Each file names the controllers to run, the objects that a user made, and all objects that there are afterwards, without
uids and revisions. `TIPHYS_UPDATE_GOLDEN=1` writes what the controllers do now; read the difference before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakecluster import ALL, FakeCluster
from running import quiet, running

GOLDEN = Path(__file__).parents[2] / "golden" / "controllers"


def clean(value: Any) -> Any:
    """Return a value without what differs from run to run."""
    if isinstance(value, dict):
        return {k: clean(v) for k, v in sorted(value.items()) if k not in ("uid", "resourceVersion")}
    return [clean(v) for v in value] if isinstance(value, list) else value


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def write(path: Path, golden: Any) -> None:
    path.write_text(yaml.safe_dump(golden, sort_keys=False, width=120))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
async def test_golden(path: Path) -> None:
    golden = read(path)
    cluster = FakeCluster()
    kinds = {resource.kind: resource for resource in ALL}
    for obj in golden["given"]:
        cluster.put(kinds[obj["kind"]], obj)
    given = set(cluster.objects)
    async with running(cluster, *golden["controllers"]):
        await quiet(cluster)
    made = [clean(o) for key, o in cluster.objects.items() if key not in given and key[1] != "events"]
    status = {k[3]: clean(o["status"]) for k, o in cluster.objects.items() if k in given and "status" in o}
    events = sorted(
        f"{e['type']} {e['reason']}: {e['message']}" for (_, p, _, _), e in cluster.objects.items() if p == "events"
    )
    result = {"made": made, "status": status, "events": events}
    if os.environ.get("TIPHYS_UPDATE_GOLDEN"):
        write(path, {**golden, "expected": result})
    assert result == golden.get("expected")
