"""The node's own documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiphys.base.errors import ApiError
from tiphys.kubelet.nodedocuments import kubelet_configuration, log_file


def test_logs_are_listed_and_read_but_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "log"
    (root / "apt").mkdir(parents=True)
    (root / "a<b.log").write_text("hello")
    (root / "out").symlink_to("/etc/passwd")
    listing = log_file(str(root), [])
    assert b'<a href="a%3Cb.log">a&lt;b.log</a>' in bytes(listing.body) and b"apt/" in bytes(listing.body)
    assert bytes(log_file(str(root), ["a<b.log"]).body) == b"hello"
    for parts in (["out"], ["..", "log2"], ["missing"]):
        with pytest.raises(ApiError) as refused:
            log_file(str(root), parts)
        assert refused.value.code == 404


def test_configz_has_the_shape_that_tools_read() -> None:
    made = kubelet_configuration(address="::", port=1, cluster_dns=("10.96.0.10",), cluster_domain="c", max_pods=110)
    assert made["kubeletconfig"]["evictionHard"] == {"memory.available": "100Mi"}
    assert made["kubeletconfig"]["clusterDNS"] == ["10.96.0.10"]
