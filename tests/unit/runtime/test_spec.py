from __future__ import annotations

import pytest

from tiphys.runtime.cgroups import plan_limits, shares_to_weight
from tiphys.runtime.images import RunConfig
from tiphys.runtime.interface import ContainerConfig, Mount, Resources, RuntimeFailed, SandboxConfig, SecurityContext
from tiphys.runtime.ocibinary import translate_error
from tiphys.runtime.spec import ALL_CAPABILITIES, Machine, Place, plan_capabilities, plan_command, plan_spec
from tiphys.runtime.users import User

IMAGE = RunConfig(("entry",), ("cmd",), ("PATH=/x", "A=1"), "", "", "", ())
MACHINE = Machine((1 << len(ALL_CAPABILITIES)) - 1, -1000, False, "/none")
PLACE = Place("/rootfs", "/pod/c", {"mount": "", "pid": "", "network": "/ns/net"}, "/shm", "/resolv", "/hostname")


@pytest.mark.parametrize(
    ("command", "args", "result"),
    [
        ((), (), ["entry", "cmd"]),
        (("x",), (), ["x"]),
        ((), ("y",), ["entry", "y"]),
        (("x",), ("y",), ["x", "y"]),
    ],
)
def test_command_and_args_override_as_kubernetes_says(
    command: tuple[str, ...], args: tuple[str, ...], result: list[str]
) -> None:
    assert plan_command(ContainerConfig("c", "i", command=command, args=args), IMAGE) == result


def test_no_command_at_all_is_refused() -> None:
    with pytest.raises(RuntimeFailed, match="no command specified"):
        plan_command(ContainerConfig("c", "i"), RunConfig((), (), (), "", "", "", ()))


def test_capabilities() -> None:
    everything = plan_capabilities(SecurityContext(add_capabilities=("ALL",), drop_capabilities=("NET_RAW",)), MACHINE)
    assert set(everything) == set(ALL_CAPABILITIES) - {"CAP_NET_RAW"}
    few = plan_capabilities(SecurityContext(add_capabilities=("SYS_TIME",), drop_capabilities=("ALL",)), MACHINE)
    assert few == ["CAP_SYS_TIME"]
    assert plan_capabilities(SecurityContext(privileged=True), Machine(1, 0, False, "")) == ["CAP_CHOWN"]


def test_a_container_mount_replaces_ours() -> None:
    config = ContainerConfig(
        "c",
        "i",
        mounts=(Mount("/a/b", "/h2", propagation="Bidirectional"), Mount("/a", "/h1"), Mount("/dev/shm", "/h3")),
    )
    spec = plan_spec(
        config, SandboxConfig("p", "n", "u", hostname="p"), IMAGE, User(0, 0, (0,), "/root"), PLACE, MACHINE
    )
    destinations = [mount["destination"] for mount in spec["mounts"]]
    assert destinations.count("/dev/shm") == 1
    assert destinations.index("/a") < destinations.index("/a/b")
    assert spec["linux"]["rootfsPropagation"] == "rshared"
    assert spec["process"]["env"] == ["PATH=/x", "A=1", "HOSTNAME=p", "HOME=/root"]


def test_oom_score_is_not_below_what_this_process_may_give() -> None:
    machine = Machine(MACHINE.capabilities, 0, False, "")
    config = ContainerConfig("c", "i", resources=Resources(oom_score_adj=-997))
    spec = plan_spec(config, SandboxConfig("p", "n", "u"), IMAGE, User(0, 0, (), "/"), PLACE, machine)
    assert spec["process"]["oomScoreAdj"] == 0


def test_limits_on_both_cgroup_versions() -> None:
    limits = Resources(cpu_shares=1024, cpu_quota_us=50_000, memory_limit_bytes=1 << 20, pids_limit=9)
    assert list(plan_limits(limits, unified=True)) == [
        ("cpu", "cpu.weight", "39"),
        ("cpu", "cpu.max", "50000 100000"),
        ("memory", "memory.max", "1048576"),
        ("pids", "pids.max", "9"),
    ]
    assert ("cpu", "cpu.shares", "1024") in plan_limits(limits, unified=False)
    assert list(plan_limits(Resources(), unified=True)) == []
    assert (shares_to_weight(2), shares_to_weight(262_144), shares_to_weight(0)) == (1, 10_000, 1)


@pytest.mark.parametrize(
    ("said", "command", "told"),
    [
        (
            "executable file `nope` not found in $PATH: No such file or directory",
            "nope",
            'exec: "nope": executable file not found in $PATH',
        ),
        ("open executable: Permission denied", "/x", 'exec: "/x": permission denied'),
        ("exec: Exec format error", "/x", "exec /x: exec format error"),
        ("something else", "/x", "something else"),
    ],
)
def test_oci_errors_are_told_as_users_know_them(said: str, command: str, told: str) -> None:
    assert translate_error(said, command) == told
