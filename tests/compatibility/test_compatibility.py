"""The compatibility table is true, for the newest version to the letter and for the oldest in every cell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from probe import NEWEST, OLDEST, render, table

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"


async def test_the_document_says_what_a_server_of_the_newest_version_does() -> None:
    assert DOCUMENT.read_text() == render(await table(NEWEST))


@pytest.mark.parametrize("version", [OLDEST, (1, 31)], ids=lambda v: ".".join(map(str, v)))
async def test_older_versions_do_whatever_they_offer(version: tuple[int, int]) -> None:
    rows = await table(version)
    differing = {
        (name, column): cell for name, row in rows.items() for column, cell in row.items() if "differs" in cell
    }
    assert not differing
