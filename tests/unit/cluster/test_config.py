"""What a cluster is, and how its choices collide with nothing."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tiphys.cluster.config import (
    ClusterConfig,
    DamagedConfig,
    Files,
    NoSuchCluster,
    cluster_names,
    read_config,
    write_config,
)
from tiphys.cluster.up import CannotStart, Wishes, check_name, choose_config


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIPHYS_HOME", str(tmp_path))
    return tmp_path


def made(name: str, **wishes: object) -> ClusterConfig:
    config = choose_config(Wishes(name, simulated=True, **wishes))  # type: ignore[arg-type]
    Files.of(name).make()
    write_config(config)
    return config


def test_choices_are_read_as_they_were_written() -> None:
    config = made("one", kubernetes_version=(1, 31), nodes=3)
    assert read_config("one") == config
    assert choose_config(Wishes("one")) == config
    assert cluster_names() == ["one"]


def test_clusters_share_neither_ports_nor_networks() -> None:
    one, two = made("one"), made("two")
    for name in ("api_port", "kubelet_port", "pod_cidr", "service_cidr", "bridge"):
        assert getattr(one, name) != getattr(two, name)


def test_addresses_follow_from_the_networks() -> None:
    config = dataclasses.replace(made("one"), pod_cidr="10.244.0.0/16", service_cidr="10.96.0.0/16")
    assert (config.gateway, config.api_service_address, config.dns_address) == ("10.244.0.1", "10.96.0.1", "10.96.0.10")


@pytest.mark.parametrize("name", ["", "Upper", "ten-letters", "a_b", "-a", "a/b", "..", "ü"])
def test_names_that_cannot_be_part_of_an_interface_are_refused(name: str) -> None:
    with pytest.raises(CannotStart, match="letters, digits and dashes"):
        check_name(name)


@pytest.mark.parametrize(
    "wishes",
    [Wishes("one", (1, 30)), Wishes("one", nodes=2), Wishes("one", simulated=False), Wishes("one", api_port=1)],
)
def test_a_cluster_keeps_what_it_was_made_with(wishes: Wishes) -> None:
    made("one")
    with pytest.raises(CannotStart, match=r"tiphys down --name one"):
        choose_config(wishes)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "one", "kubernetes_version": [1, 37], "future": 1}'])
def test_a_damaged_file_is_told_with_the_way_out(text: str) -> None:
    made("one")
    Files.of("one").config.write_text(text)
    with pytest.raises(DamagedConfig, match="tiphys down --name one"):
        read_config("one")


def test_a_missing_cluster_names_the_others() -> None:
    made("one")
    with pytest.raises(NoSuchCluster, match=r"there are: one.*tiphys up --name two"):
        read_config("two")


def test_versions_out_of_range_are_refused() -> None:
    with pytest.raises(CannotStart, match=r"1\.25 to 1\.37"):
        choose_config(Wishes("one", (1, 38)))


def test_the_pod_network_has_room_for_every_node() -> None:
    for name, nodes in (("small", 256), ("large", 5000)):
        assert IPv4Network(made(name, nodes=nodes).pod_cidr).num_addresses >= nodes * 256
