"""Makes the support modules of this folder importable, and the reads of a store of their own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from reads_world import World


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    from reads_world import World

    world = World()
    await world.store.start()
    await world.cache.start()
    yield world
    world.reads.close()
    await world.cache.stop()
    await world.store.stop()
