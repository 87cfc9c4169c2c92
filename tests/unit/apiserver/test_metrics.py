"""Metrics: names that dashboards read, numbers that are right, and a document that tells them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from assembled_server import Server, running_server

from tiphys.base.metrics import Metrics, exponential
from tiphys.wire.message import Stream

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
SAMPLE = re.compile(r'^[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_]\w*="(\\.|[^"\\])*",?)*\})? [0-9.e+-]+$')
MAPS = "/api/v1/namespaces/default/configmaps"


class Taken:
    """A sink that takes everything."""

    def send(self, data: bytes) -> None:
        return None

    def pending_bytes(self) -> int:
        return 0

    async def drain(self) -> None:
        return None

    def close(self) -> None:
        return None


async def scraped(server: Server) -> str:
    status, text = await server.call("GET", "/metrics")
    assert status == 200
    return str(text)


def value(text: str, series: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith(f"{series} ")]
    assert len(lines) == 1, (series, lines)
    return float(lines[0].rpartition(" ")[2])


async def test_requests_are_counted_by_shape_and_code() -> None:
    async with running_server() as server:
        await server.made(MAPS, {"metadata": {"name": "m"}})
        for _ in range(3):
            await server.named(f"{MAPS}/m")
        await server.call("GET", f"{MAPS}/none")
        await server.call("GET", "/apis/invented.example/v1/things/x")
        await server.call("GET", MAPS, user="eve")
        watch = await server.answer("GET", f"{MAPS}?watch=1")
        assert isinstance(watch, Stream)
        stop = watch.start(Taken())
        text = await scraped(server)
    shape = 'group="",version="v1",resource="configmaps",subresource="",scope="resource",component="apiserver"'
    assert value(text, f'apiserver_request_total{{verb="GET",dry_run="",{shape},code="200"}}') == 3
    assert value(text, f'apiserver_request_total{{verb="GET",dry_run="",{shape},code="404"}}') == 1
    assert value(text, f'apiserver_request_total{{verb="POST",dry_run="",{shape},code="201"}}') == 1
    assert value(text, f'apiserver_request_duration_seconds_count{{verb="GET",dry_run="",{shape}}}') == 4
    assert value(text, f'apiserver_response_sizes_count{{verb="GET",{shape}}}') == 4
    assert value(text, 'apiserver_storage_objects{resource="configmaps"}') == 1
    assert value(text, 'apiserver_authorization_decisions_total{type="Union",name="union",decision="denied"}') == 1
    assert value(text, 'etcd_request_duration_seconds_count{operation="create",type="configmaps"}') == 1
    steps = "apiserver_admission_step_admission_duration_seconds_count"
    assert value(text, f'{steps}{{type="validate",operation="CREATE",rejected="false"}}') > 0
    assert "invented" not in text
    of_maps = '{group="",version="v1",resource="configmaps"}'
    assert value(text, f"apiserver_watch_events_total{of_maps}") == 1
    assert value(text, f"apiserver_watch_events_sizes_count{of_maps}") == 1
    open_watches = 'verb="WATCH",group="",version="v1",resource="configmaps",subresource="",scope="namespace"'
    assert value(text, f'apiserver_longrunning_requests{{{open_watches},component="apiserver"}}') == 1
    stop()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert not [line for line in samples if not SAMPLE.match(line)]
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))


async def test_deprecated_versions_that_are_asked_for_are_told() -> None:
    async with running_server() as server:
        assert "apiserver_requested_deprecated_apis" not in await scraped(server)
        await server.call("GET", "/api/v1/namespaces/default/endpoints")
        text = await scraped(server)
        series = 'group="",version="v1",resource="endpoints",subresource="",removed_release=""'
        assert value(text, f"apiserver_requested_deprecated_apis{{{series}}}") == 1


async def test_every_metric_is_documented() -> None:
    async with running_server() as server:
        names = {metric.name for metric in server.assembled.metrics.all()}
    told = DOCUMENT.read_text()
    assert not [name for name in sorted(names) if f"`{name}`" not in told]


def test_text_of_a_histogram() -> None:
    metrics = Metrics()
    histogram = metrics.histogram("h_seconds", "How\nlong.", ("who",), (0.5, 1))
    for seconds in (0.5, 0.7, 9):
        histogram.observe(seconds, ('a"b\\',))
    assert metrics.format().decode() == (
        "# HELP h_seconds How\\nlong.\n# TYPE h_seconds histogram\n"
        'h_seconds_bucket{who="a\\"b\\\\",le="0.5"} 1\n'
        'h_seconds_bucket{who="a\\"b\\\\",le="1"} 2\n'
        'h_seconds_bucket{who="a\\"b\\\\",le="+Inf"} 3\n'
        'h_seconds_sum{who="a\\"b\\\\"} 10.2\n'
        'h_seconds_count{who="a\\"b\\\\"} 3\n'
    )
    with pytest.raises(AssertionError, match="two metrics"):
        metrics.counter("h_seconds", "again")
    assert exponential(1, 10, 3) == (1, 10, 100)
