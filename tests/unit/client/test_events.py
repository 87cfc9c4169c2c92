"""More events than can wait: the rest is dropped, which is said once."""

from __future__ import annotations

import logging

import pytest

from tiphys.api.views.meta import ObjectReference
from tiphys.base.clock import ManualClock, Randomness
from tiphys.client.events import QUEUE_LIMIT, EventRecorder
from tiphys.client.interface import Client


class NoClient:
    """Nothing is written before `run`."""


def test_events_beyond_the_queue_are_dropped_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    client: Client = NoClient()  # type: ignore[assignment]
    recorder = EventRecorder(client, "test", "", ManualClock(), Randomness(1))
    with caplog.at_level(logging.INFO):
        for number in range(QUEUE_LIMIT + 100):
            recorder.record(ObjectReference(kind="Pod", name=f"web-{number}"), "Normal", "Created", "as wanted")
    assert recorder.dropped == 100
    [line] = [r for r in caplog.records if "the queue of events is full" in r.getMessage()]
    assert f"web-{QUEUE_LIMIT} " in line.getMessage()
