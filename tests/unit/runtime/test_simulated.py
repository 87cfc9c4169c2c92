from __future__ import annotations

from tiphys.base.clock import LoopClock, Randomness
from tiphys.network.simulated import SimulatedPodNetwork
from tiphys.runtime.interface import ContainerConfig, ContainerState, SandboxConfig
from tiphys.runtime.simulated import Profile, SimulatedRuntime


def make_runtime() -> SimulatedRuntime:
    profile = Profile(0.001, 0.001, 0.001, 0.001, 0.001)
    return SimulatedRuntime(profile, LoopClock(), Randomness(1), SimulatedPodNetwork())


async def test_exit_annotation_rules_one_container() -> None:
    runtime = make_runtime()
    await runtime.start()
    events = runtime.events()
    sandbox = await runtime.run_pod_sandbox(
        SandboxConfig("web", "default", "u", annotations={"tiphys.dev/simulate-exit.a": "3 after 10ms"})
    )
    first = await runtime.create_container(sandbox, ContainerConfig("a", "nginx"))
    second = await runtime.create_container(sandbox, ContainerConfig("b", "nginx"))
    await runtime.start_container(first)
    await runtime.start_container(second)
    async for event in events:
        if event.container_id == first and event.type == "STOPPED":
            break
    status = await runtime.container_status(first)
    assert (status.state, status.exit_code, status.reason) == (ContainerState.EXITED, 3, "Error")
    assert (await runtime.container_status(second)).state is ContainerState.RUNNING
    await runtime.stop()


async def test_scripts_print_and_exit() -> None:
    runtime = make_runtime()
    events = runtime.events()
    sandbox = await runtime.run_pod_sandbox(SandboxConfig("web", "default", "u", hostname="web"))
    config = ContainerConfig(
        "a", "nginx", command=("sh", "-c", "echo hi $NAME; sleep 5ms; exit 2"), envs=(("NAME", "x"),)
    )
    container = await runtime.create_container(sandbox, config)
    await runtime.start_container(container)
    async for event in events:
        if event.type == "STOPPED":
            break
    assert (await runtime.container_status(container)).exit_code == 2
    assert runtime.container_log(container).endswith(b" stdout F hi x\n")
    await runtime.stop()


async def test_slow_reader_gets_every_sandbox_once() -> None:
    from tiphys.runtime.eventfanout import EventFanout
    from tiphys.runtime.interface import ContainerEvent

    fanout = EventFanout(lambda: ["a", "b"], limit=3)
    reader = fanout.subscribe()
    for name in ("gone", "a", "a", "a"):
        fanout.publish(ContainerEvent(name, "c", "STARTED"))
    fanout.close()
    assert [event.sandbox_id async for event in reader] == ["gone", "a", "b", "a"]
