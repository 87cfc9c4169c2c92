"""Names of pods whose create had no answer: repeated until the pod is counted, and never after that."""

from __future__ import annotations

import msgspec

from tiphys.base.clock import Randomness
from tiphys.controllers.creation import PodNames
from tiphys.controllers.views import Pod


def pod(name: str) -> Pod:
    return msgspec.convert({"metadata": {"name": name, "uid": name}}, Pod)


def test_an_uncertain_name_is_drawn_again_until_its_pod_was_counted() -> None:
    names = PodNames(Randomness(1))
    names.keep("owner", "web-a")
    names.keep("owner/3", "web-b")
    names.keep("other", "web-a")
    names.settle("owner", [pod("web-c")])
    assert names.draw("owner", "web-") == ("web-a", True)
    names.keep("owner", "web-a")
    names.settle("owner", [pod("web-a"), pod("web-b")])
    assert not names.draw("owner", "web-")[1]
    assert not names.draw("owner/3", "web-")[1]
    assert names.draw("other", "web-") == ("web-a", True)


def test_the_names_of_an_owner_that_is_gone_are_forgotten() -> None:
    names = PodNames(Randomness(1))
    names.keep("owner", "web-a")
    names.keep("owner/3", "web-b")
    names.forget("owner")
    assert not names.draw("owner", "web-")[1]
    assert not names.draw("owner/3", "web-")[1]
