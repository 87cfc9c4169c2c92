"""Who a request acts as: groups that belong to a name, values of extra keys, and the order of the checks."""

from __future__ import annotations

import pytest

from tiphys.apiserver.impersonation import impersonate
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import User


def acting(**headers: str) -> tuple[User, list[str]]:
    asked: list[str] = []

    def check(info: RequestInfo) -> None:
        asked.append(f"{info.group}/{info.resource}/{info.subresource} {info.namespace} {info.name}")

    return impersonate({f"impersonate-{k.replace('_', '-')}": v for k, v in headers.items()}, check), asked


@pytest.mark.parametrize(
    ("headers", "groups"),
    [
        ({"user": "bob"}, ("system:authenticated",)),
        ({"user": "bob", "group": "a\nb"}, ("a", "b", "system:authenticated")),
        ({"user": "bob", "group": "system:unauthenticated"}, ("system:unauthenticated",)),
        ({"user": "system:anonymous"}, ("system:unauthenticated",)),
        ({"user": "system:anonymous", "group": "a"}, ("a", "system:unauthenticated")),
        (
            {"user": "system:serviceaccount:ns:sa"},
            ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"),
        ),
        ({"user": "system:serviceaccount:ns:sa", "group": "a"}, ("a", "system:authenticated")),
        ({"user": "system:serviceaccount:ns"}, ("system:authenticated",)),
    ],
)
def test_groups(headers: dict[str, str], groups: tuple[str, ...]) -> None:
    assert acting(**headers)[0].groups == groups


def test_every_part_is_asked_for_by_itself() -> None:
    user, asked = acting(user="system:serviceaccount:ns:sa", group="g", uid="u", **{"extra_a%2fb": "1\n2"})
    assert user == User("system:serviceaccount:ns:sa", ("g", "system:authenticated"), "u", {"a/b": ("1", "2")})
    assert asked == [
        "/serviceaccounts/ ns sa",
        "/groups/  g",
        "authentication.k8s.io/userextras/a/b  1",
        "authentication.k8s.io/userextras/a/b  2",
        "authentication.k8s.io/uids/  u",
    ]
