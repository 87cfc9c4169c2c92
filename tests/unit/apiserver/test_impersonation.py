"""Who a request acts as: groups that belong to a name, values of extra keys, and the order of the checks."""

from __future__ import annotations

import pytest

from tiphys.apiserver.impersonation import NODE_NAME, constrained, impersonate
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


LIST_PODS = RequestInfo(True, "list", "", "", "v1", "ns", "pods")


def limited(requester: User, *allowed: str, request: RequestInfo = LIST_PODS, **headers: str) -> User | None:
    """Ask to act as somebody where only some things (verb, group/resource, namespace/name) are allowed."""

    def allows(info: RequestInfo) -> bool:
        return f"{info.verb} {info.group}/{info.resource} {info.namespace}/{info.name}" in allowed

    return constrained(
        {f"impersonate-{k.replace('_', '-')}": v for k, v in headers.items()}, requester, request, allows
    )


def test_a_user_for_some_verbs_only() -> None:
    identity = ("impersonate:user-info authentication.k8s.io/users /jane",)
    action = "impersonate-on:user-info:list /pods ns/"
    assert limited(User("bob"), *identity, action, user="jane") == User("jane", ("system:authenticated",))
    assert limited(User("bob"), *identity, user="jane") is None
    assert limited(User("bob"), action, user="jane") is None
    assert limited(User("bob"), *identity, action, user="jane", group="g") is None
    group = "impersonate:user-info authentication.k8s.io/groups /g"
    acted = limited(User("bob"), *identity, group, action, user="jane", group="g")
    assert acted == User("jane", ("g", "system:authenticated"))


def test_a_service_account_by_its_own_verbs() -> None:
    allowed = (
        "impersonate:serviceaccount authentication.k8s.io/serviceaccounts prod/app",
        "impersonate-on:serviceaccount:list /pods ns/",
    )
    name = "system:serviceaccount:prod:app"
    acted = limited(User("bob"), *allowed, user=name)
    assert acted is not None
    assert acted.groups == ("system:serviceaccounts", "system:serviceaccounts:prod", "system:authenticated")
    assert limited(User("bob"), *allowed, user=name, group="system:masters") is None
    assert limited(User("bob"), *(a.replace("serviceaccount", "user-info") for a in allowed), user=name) is None


def test_an_agent_acts_as_its_own_node() -> None:
    allowed = (
        "impersonate:associated-node authentication.k8s.io/nodes /n1",
        "impersonate-on:associated-node:list /pods ns/",
    )
    agent = User("system:serviceaccount:kube-system:agent", (), "", {NODE_NAME: ("n1",)})
    acted = User("system:node:n1", ("system:nodes", "system:authenticated"))
    assert limited(agent, *allowed, user="system:node:n1") == acted
    assert limited(User("bob", (), "", {NODE_NAME: ("n1",)}), *allowed, user="system:node:n1") is None
    elsewhere = User(agent.name, (), "", {NODE_NAME: ("n2",)})
    assert limited(elsewhere, *allowed, user="system:node:n1") is None
    anywhere = tuple(text.replace("associated", "arbitrary") for text in allowed)
    assert limited(elsewhere, *anywhere, user="system:node:n1") == acted
