"""Environment, downward API, DNS, cgroups: literal pods in, settings out."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from kubelet_support import bound, pod_object

from tiphys.api.qos import spec_qos_class, spec_requests
from tiphys.api.views.config import ConfigMap, Secret
from tiphys.api.views.service import Service
from tiphys.kubelet.downward import Surroundings, field_value
from tiphys.kubelet.environment import EnvironmentFailed, Sources, environment
from tiphys.kubelet.images import go_duration
from tiphys.kubelet.resources import cgroup_parent, container_resources
from tiphys.kubelet.sandbox import Resolver, parse_resolv_conf, pod_hostname, pod_resolver
from tiphys.kubelet.security import SecurityRefused, merge_security
from tiphys.runtime.interface import Image

CONFIG = msgspec.convert({"metadata": {"name": "c"}, "data": {"A": "1", "b=ad": "2"}}, ConfigMap)
SECRET = msgspec.convert({"metadata": {"name": "s"}, "data": {"K": base64.b64encode(b"v").decode()}}, Secret)


def made(container: dict[str, Any], sources: Sources | None = None, **spec: Any) -> Any:
    pod = bound(pod_object("web", [{"name": "web", "image": "i", **container}], **spec))
    return environment(pod, pod.spec.containers[0], sources or Sources())


def test_later_variables_see_earlier_ones() -> None:
    env = [
        {"name": "A", "value": "x"},
        {"name": "B", "value": "$(A)-$$(A)-$(MISSING)"},
        {"name": "A", "value": "y$(B)"},
    ]
    assert dict(made({"env": env}).variables) == {"A": "yx-$(A)-$(MISSING)", "B": "x-$(A)-$(MISSING)"}


def test_env_from_skips_invalid_names_and_says_so() -> None:
    result = made(
        {"envFrom": [{"prefix": "P_", "configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}]},
        Sources({"c": CONFIG}, {"s": SECRET}),
    )
    assert dict(result.variables) == {"P_A": "1", "K": "v"}
    assert result.warnings == (
        "Keys [P_b=ad] from the EnvFrom ConfigMap default/c were skipped since they are considered invalid "
        "environment variable names.",
    )


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "no"}}]}, 'configmap "no" not found'),
        ({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]}, 'secret "no" not found'),
        (
            {"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]},
            "couldn't find key k in ConfigMap default/c",
        ),
    ],
)
def test_what_is_missing_is_named(container: dict[str, Any], message: str) -> None:
    with pytest.raises(EnvironmentFailed) as caught:
        made(container, Sources({"c": CONFIG}))
    assert str(caught.value) == message


def test_optional_references_may_be_missing() -> None:
    env = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}}}]
    assert made({"env": env}).variables == {}


def test_services_become_variables() -> None:
    def service(name: str, namespace: str, ip: str, /, **port: Any) -> Service:
        spec = {"clusterIP": ip, "ports": [port]}
        return msgspec.convert({"metadata": {"name": name, "namespace": namespace}, "spec": spec}, Service)

    services = [
        service("my-db", "default", "10.96.0.5", port=5432, name="pg", protocol="TCP"),
        service("kubernetes", "default", "10.96.0.1", port=443, name="https"),
        service("headless", "default", "None", port=80),
    ]
    variables = dict(made({}, Sources(services=services)).variables)
    assert variables["MY_DB_SERVICE_HOST"] == "10.96.0.5"
    assert variables["MY_DB_SERVICE_PORT_PG"] == "5432"
    assert variables["MY_DB_PORT_5432_TCP_ADDR"] == "10.96.0.5"
    assert variables["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert not any(name.startswith("HEADLESS") for name in variables)
    only = dict(made({}, Sources(services=services), enableServiceLinks=False).variables)
    assert all(name.startswith("KUBERNETES") for name in only)


def test_resource_fields_are_divided_and_fall_back_to_the_node() -> None:
    env = [
        {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}},
        {"name": "N", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
    ]
    resources = {"limits": {"cpu": "1500m"}, "requests": {"memory": "63Mi"}}
    around = Surroundings(allocatable={"memory": "1Gi"})
    result = made({"env": env, "resources": resources}, Sources(around=around))
    assert dict(result.variables) == {"C": "1500", "M": "63", "N": str(1 << 30)}


def test_downward_fields() -> None:
    pod = bound(pod_object("web", metadata={"labels": {"b": 'q"', "a": "1"}, "annotations": {"k": "v"}}))
    around = Surroundings("node-1", ("10.0.0.1", "fd00::1"), ("192.168.0.1",))
    assert field_value(pod, "metadata.labels", around) == 'a="1"\nb="q\\""'
    assert field_value(pod, "metadata.annotations['k']", around) == "v"
    assert field_value(pod, "status.podIPs", around) == "10.0.0.1,fd00::1"


def test_dns_policies() -> None:
    host = parse_resolv_conf("search corp.example\nnameserver 9.9.9.9\noptions ndots:2\n")
    assert host == Resolver(("9.9.9.9",), ("corp.example",), ("ndots:2",))
    pod = bound(pod_object("web", dnsConfig={"options": [{"name": "ndots", "value": "1"}], "searches": ["x.y"]}))
    assert pod_resolver(pod, ("10.96.0.10",), "cluster.local", host) == Resolver(
        ("10.96.0.10",),
        ("default.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example", "x.y"),
        ("ndots:1",),
    )
    assert pod_resolver(bound(pod_object("w", hostNetwork=True)), ("10.96.0.10",), "cluster.local", host) == host
    none = bound(pod_object("w", dnsPolicy="None", dnsConfig={"nameservers": ["1.1.1.1"]}))
    assert pod_resolver(none, ("10.96.0.10",), "cluster.local", host) == Resolver(("1.1.1.1",))


def test_hostnames() -> None:
    assert pod_hostname(bound(pod_object("a" * 70)), "cluster.local")[0] == "a" * 63
    pod = bound(pod_object("w", hostname="h", subdomain="s", setHostnameAsFQDN=True))
    assert pod_hostname(pod, "cluster.local")[0] == "h.s.default.svc.cluster.local"


def test_qos_and_cgroups() -> None:
    equal = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}
    some = {"requests": {"cpu": "250m", "memory": "1Gi"}}
    pods = {
        "Guaranteed": bound(pod_object("w", [{"name": "w", "image": "i", "resources": equal}])),
        "Burstable": bound(pod_object("w", [{"name": "w", "image": "i", "resources": some}])),
        "BestEffort": bound(pod_object("w")),
    }
    for name, pod in pods.items():
        assert spec_qos_class(pod.spec) == name
    assert cgroup_parent("/t", pods["Guaranteed"]) == "/t/kubepods/podu1"
    assert cgroup_parent("/", pods["Burstable"]) == "/kubepods/burstable/podu1"
    settings = container_resources(pods["Burstable"], pods["Burstable"].spec.containers[0], 4 << 30)
    assert (settings.cpu_shares, settings.cpu_quota_us, settings.oom_score_adj) == (256, 0, 750)
    settings = container_resources(pods["Guaranteed"], pods["Guaranteed"].spec.containers[0], 4 << 30)
    assert (settings.cpu_quota_us, settings.memory_limit_bytes, settings.oom_score_adj) == (100_000, 1 << 30, -997)


def test_sidecars_count_with_main_containers_and_init_steps_by_their_peak() -> None:
    def need(name: str, cpu: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "image": "i", "resources": {"requests": {"cpu": cpu}}, **more}

    pod = bound(
        pod_object("w", [need("m", "1")], initContainers=[need("s", "2", restartPolicy="Always"), need("i", "3")])
    )
    assert spec_requests(pod.spec)["cpu"].milli == 5000


def test_run_as_non_root_is_held() -> None:
    pod = bound(pod_object("w", securityContext={"runAsNonRoot": True}))
    container = pod.spec.containers[0]
    root = Image("sha256:1", (), (), 1)
    with pytest.raises(SecurityRefused) as caught:
        merge_security(pod, container, root)
    assert str(caught.value) == (
        'container has runAsNonRoot and image will run as root (pod: "w_default(u1)", container: web)'
    )
    named = Image("sha256:1", (), (), 1, user="nginx")
    with pytest.raises(SecurityRefused, match=r"non-numeric user \(nginx\)"):
        merge_security(pod, container, named)
    merge_security(pod, container, Image("sha256:1", (), (), 1, user="101:101"))


def test_durations_look_like_gos() -> None:
    assert [go_duration(s) for s in (0, 0.0123, 1.2, 61.5)] == ["0s", "12ms", "1.2s", "1m1.5s"]
