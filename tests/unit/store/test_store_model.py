"""Both stores against a model that is obviously right: a dict for each revision."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tiphys.store.interface import Compacted, Event, ExpectationFailed, Operation
from tiphys.store.memory import MemoryStore
from tiphys.store.sqlite import SqliteStore

KEYS = st.sampled_from(["/a/1", "/a/2", "/a/3", "/ab/1", "/b/1"])
PREFIXES = st.sampled_from(["", "/", "/a/", "/a", "/b/", "/none/"])
VALUES = st.one_of(st.none(), st.sampled_from([b"x", b"y", b"z"]))
State = dict[str, tuple[bytes, int, int]]
"""Key -> (value, revision, create revision)."""


class StoreMachine(RuleBasedStateMachine):
    """Commits, compacts, restarts, and compares every list and watch with the model."""

    durable = True

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.states: dict[int, State] = {1: {}}
        self.events: list[Event] = []
        self.compacted = 0
        self.store = self.open()

    def open(self) -> Any:
        path = str(Path(self.directory.name) / "store.db")
        store = SqliteStore(path) if self.durable else MemoryStore()
        self.run(store.start())
        return store

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def teardown(self) -> None:
        self.run(self.store.stop())
        self.run(self.loop.shutdown_asyncgens())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()
        self.directory.cleanup()

    @property
    def newest(self) -> int:
        return max(self.states)

    def expect(self, operations: list[Operation]) -> int | None:
        """Move the model on; return the revision, None if an expectation fails."""
        state, revision, events = dict(self.states[self.newest]), self.newest + 1, []
        for operation in operations:
            old = state.get(operation.key)
            if operation.expected is not None and operation.expected != (old[1] if old else 0):
                return None
            if operation.value is not None:
                state[operation.key] = (operation.value, revision, old[2] if old else revision)
            elif state.pop(operation.key, None) is None:
                continue
            events.append(Event(operation.key, revision, operation.value, old[0] if old else None))
        if not events:
            return self.newest
        self.events += events
        self.states[revision] = state
        return revision

    @rule(changes=st.dictionaries(KEYS, st.tuples(VALUES, st.sampled_from([None, None, "right", 0, 3])), max_size=4))
    def commit(self, changes: dict[str, tuple[bytes | None, Any]]) -> None:
        current = self.states[self.newest]
        operations = []
        for key, (value, expected) in changes.items():
            if expected == "right":
                expected = current[key][1] if key in current else 0
            operations.append(Operation(key, value, expected))
        revision = self.expect(operations)
        if revision is None:
            with pytest.raises(ExpectationFailed):
                self.run(self.store.commit(operations))
        else:
            assert self.run(self.store.commit(operations)) == revision

    @rule(back=st.integers(0, 5))
    def compact(self, back: int) -> None:
        revision = max(self.newest - back, 1)
        self.run(self.store.compact(revision))
        self.compacted = max(self.compacted, revision)

    @precondition(lambda self: self.durable)
    @rule()
    def restart(self) -> None:
        self.run(self.store.stop())
        self.store = self.open()

    @rule(prefix=PREFIXES, back=st.integers(0, 8), limit=st.integers(0, 3), start=st.one_of(st.just(""), KEYS))
    def list(self, prefix: str, back: int, limit: int, start: str) -> None:
        revision = max(self.newest - back, 1)
        reading = self.store.list(prefix, revision=revision, limit=limit, start_after=start)
        if revision < self.compacted:
            with pytest.raises(Compacted):
                self.run(reading)
            return
        page = self.run(reading)
        keys = sorted(key for key in self.states[revision] if key.startswith(prefix) and key > start)
        shown = keys[:limit] if limit else keys
        assert [(e.key, e.value, e.revision, e.create_revision) for e in page.entries] == [
            (key, *self.states[revision][key]) for key in shown
        ]
        assert (page.revision, page.remaining) == (revision, len(keys) - len(shown))

    @rule(prefix=PREFIXES, back=st.integers(0, 8))
    def watch(self, prefix: str, back: int) -> None:
        after = max(self.newest - back, 1)
        expected = [e for e in self.events if e.revision > after and e.key.startswith(prefix)]

        async def take() -> list[Event]:
            seen: list[Event] = []
            async with aclosing(self.store.watch(prefix, after)) as batches:
                while len(seen) < len(expected):
                    seen += await anext(batches)
            return seen

        if expected and after < self.compacted:
            with pytest.raises(Compacted):
                self.run(take())
        else:
            assert self.run(take()) == expected

    @invariant()
    def newest_state_is_the_models(self) -> None:
        assert self.store.current_revision() == self.newest
        assert self.store.compacted_revision() == self.compacted


class MemoryMachine(StoreMachine):
    durable = False


@pytest.mark.parametrize(("machine", "examples"), [(StoreMachine, 25), (MemoryMachine, 60)])
def test_the_store_behaves_as_its_model(machine: type[StoreMachine], examples: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
