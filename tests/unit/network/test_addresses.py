"""The pool of pod addresses, and what of it survives a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.network.bridge import link_name
from tiphys.network.ipam import AddressesUsedUp, AddressPool
from tiphys.runtime.podnetwork import PortMapping


def reopened(path: Path, standing: dict[str, str]) -> AddressPool:
    pool = AddressPool("10.9.0.0/28", path)
    pool.load(standing)
    return pool


def test_links_are_believed_where_the_file_differs(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    pool = AddressPool("10.9.0.0/28", path)
    ports = (PortMapping(80, 8080),)
    for name in ("a", "b", "c"):
        pool.take(name, ports)
    pool.give_back("b")
    pool.write(pool.snapshot())
    after = reopened(path, {"a": "10.9.0.2", "new": "10.9.0.7"})
    assert {k: v.address for k, v in after.leases.items()} == {"a": "10.9.0.2", "new": "10.9.0.7"}
    assert after.leases["a"].ports == ports
    assert after.take("d").address == "10.9.0.8", "never used ones come first"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_file_costs_nothing_but_the_order(tmp_path: Path, content: str) -> None:
    path = tmp_path / "network.json"
    path.write_text(content)
    pool = reopened(path, {"a": "10.9.0.5"})
    assert [pool.take(str(i)).address for i in range(12)][-3:] == ["10.9.0.2", "10.9.0.3", "10.9.0.4"]
    with pytest.raises(AddressesUsedUp, match="larger pod range"):
        pool.take("late")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=60))
def test_no_address_is_ever_given_twice(steps: list[tuple[bool, int]]) -> None:
    pool = AddressPool("10.9.0.0/28")
    for take, number in steps:
        name = str(number)
        if not take:
            pool.give_back(name)
        elif name not in pool.leases:
            try:
                pool.take(name)
            except AddressesUsedUp:
                assert len(pool.leases) == 13
        held = [lease.address for lease in pool.leases.values()]
        assert len(set(held)) == len(held)
        saved = json.loads(pool.snapshot())
        assert not set(saved["free"]) & set(held)


def test_link_names_fit_the_kernel_and_differ() -> None:
    assert link_name("0123abcd4567") == "ti0123abcd"
    names = {link_name(name) for name in ("sandbox-1", "sandbox-2", "x", "0123ABCD99")}
    assert len(names) == 4 and all(len(name) == 10 for name in names)
