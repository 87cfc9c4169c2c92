"""kubectl against a kind of another API server behind this one, which asks this one who may do what.

The API server is a process of its own; the extension server runs here, configures itself as real ones do (from the
ConfigMap in kube-system) and asks SubjectAccessReviews with a service account's token.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from apiserver_process import ApiServerProcess
from kubectl_cli import ESSENTIAL, Kubectl, find_client

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "apiserver"))

from extension_server import GROUP, VERSION, ExtensionServer, ready, service_manifests

from tiphys.apiserver.user import User
from tiphys.wire.http_client import HttpPool
from tiphys.wire.tls import client_context

pytestmark = pytest.mark.clients
READER = "extension-apiserver-authentication-reader"
ACCOUNT = {"kind": "ServiceAccount", "name": "sample", "namespace": "default"}


@dataclass
class Setting:
    """The servers, and where kubectl finds its configuration."""

    process: ApiServerProcess
    extension: ExtensionServer
    home: Path

    async def kubectl(self, *arguments: str, minor: str = "1.37", stdin: str = "") -> str:
        kubectl = self._kubectl(minor)
        return await asyncio.to_thread(kubectl, *arguments, stdin=stdin)

    def _kubectl(self, minor: str) -> Kubectl:
        environment = {**os.environ, "KUBECONFIG": str(self.home / "kubeconfig"), "HOME": str(self.home)}
        return Kubectl(find_client(f"kubectl-{minor}"), environment)

    async def apply(self, *objects: Any) -> None:
        await self.kubectl(
            "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    async def available(self, status: str) -> None:
        condition = f"--for=condition=Available={status}"
        await self.kubectl("wait", condition, f"apiservice/{VERSION}.{GROUP}", "--timeout=30s")


def kubeconfig(process: ApiServerProcess) -> str:
    pki = process.root / "pki"
    server = {"server": f"https://127.0.0.1:{process.port}", "certificate-authority": str(pki / "ca.crt")}
    user = {"client-certificate": str(pki / "admin.crt"), "client-key": str(pki / "admin.key")}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "t", "cluster": server}],
            "users": [{"name": "t", "user": user}],
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
            "current-context": "t",
        }
    )


def access() -> list[Any]:
    """What an extension server's service account needs, as its documentation says."""
    group = "rbac.authorization.k8s.io"
    delegator = {"apiGroup": group, "kind": "ClusterRole", "name": "system:auth-delegator"}
    reader = {"apiGroup": group, "kind": "Role", "name": READER}
    api_version = f"{group}/v1"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sample", "namespace": "default"}},
        {
            "apiVersion": api_version,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "sample:delegator"},
            "roleRef": delegator,
            "subjects": [ACCOUNT],
        },
        {
            "apiVersion": api_version,
            "kind": "RoleBinding",
            "metadata": {"name": "sample-reader", "namespace": "kube-system"},
            "roleRef": reader,
            "subjects": [ACCOUNT],
        },
    ]


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    find_client("kubectl-1.37")
    process = ApiServerProcess(tmp_path)
    async with AsyncExitStack() as cleanup:
        cleanup.callback(process.close)
        await asyncio.to_thread(process.start)
        (tmp_path / "kubeconfig").write_text(kubeconfig(process))
        extension = ExtensionServer(tmp_path, "", "tiphys-t-front-proxy")
        made = Setting(process, extension, tmp_path)
        await made.apply(*access())
        token = (await made.kubectl("create", "token", "sample")).strip()
        pool = HttpPool("127.0.0.1", process.port, client_context(process.root / "pki" / "ca.crt"))
        cleanup.push_async_callback(pool.close)
        config = await pool.request(
            "GET",
            "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
            {"Authorization": f"Bearer {token}"},
        )
        assert config.status == 200, config.body
        data = json.loads(config.body)["data"]
        assert json.loads(data["requestheader-allowed-names"]) == ["front-proxy-client"]
        extension.front_proxy_ca = data["requestheader-client-ca-file"]
        await extension.start()
        cleanup.push_async_callback(extension.stop)
        yield made
        assert not process.complaints()


@pytest.mark.parametrize("minor", ESSENTIAL)
async def test_a_remote_kind_is_used_like_any_other(setting: Setting, minor: str) -> None:
    async def kubectl(*arguments: str, stdin: str = "") -> str:
        return await setting.kubectl(*arguments, minor=minor, stdin=stdin)

    await setting.apply(*service_manifests(setting.extension))
    await setting.available("True")
    shown = (await kubectl("get", "apiservices", f"{VERSION}.{GROUP}", "v1.apps", "--no-headers")).splitlines()
    assert [line.split()[:3] for line in shown] == [
        [f"{VERSION}.{GROUP}", "default/sample", "True"],
        ["v1.apps", "Local", "True"],
    ]
    resources = (await kubectl("api-resources", f"--api-group={GROUP}", "--no-headers")).split()
    assert resources == ["flunders", "fl", f"{GROUP}/{VERSION}", "true", "Flunder"]
    flunder = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Flunder",
        "metadata": {"name": "one"},
        "spec": {"size": "S"},
    }
    assert await kubectl("create", "-f", "-", stdin=json.dumps(flunder)) == f"flunder.{GROUP}/one created\n"
    assert (await kubectl("get", "fl")).splitlines()[1].split() == ["one", "kubernetes-admin"]
    assert json.loads(await kubectl("get", "flunder", "one", "-o", "json"))["spec"] == {"size": "S"}
    assert "What is wanted." in await kubectl("explain", "flunder.spec")
    assert json.loads(await kubectl("get", "--raw", f"/apis/{GROUP}/{VERSION}"))["resources"][0]["name"] == "flunders"
    assert await kubectl("delete", "flunder", "one", "--wait=false") == f'flunder.{GROUP} "one" deleted' + (
        "\n" if minor in ("1.31",) else " from default namespace\n"
    )


async def test_a_remote_server_asks_back_who_may_do_what(setting: Setting) -> None:
    await setting.apply(*service_manifests(setting.extension))
    await setting.available("True")
    token = (await setting.kubectl("create", "token", "sample")).strip()
    context: ssl.SSLContext = client_context(setting.process.root / "pki" / "ca.crt")
    pool = HttpPool("127.0.0.1", setting.process.port, context)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    attributes = {"group": GROUP, "resource": "flunders", "verb": "list", "namespace": "default"}

    async def may(user: User) -> bool:
        spec = {"user": user.name, "groups": list(user.groups), "resourceAttributes": attributes}
        review = json.dumps({**kind, "spec": spec}).encode()
        answer = await pool.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", headers, review)
        assert answer.status == 201, answer.body
        return bool(json.loads(answer.body)["status"]["allowed"])

    review = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}})
    answer = await pool.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", headers, review.encode())
    assert json.loads(answer.body)["status"]["user"]["username"] == "system:serviceaccount:default:sample"
    assert await may(User("kubernetes-admin", ("system:masters",)))
    assert not await may(User("joe"))
    await setting.kubectl("create", "clusterrole", "flunders", "--verb=list", f"--resource=flunders.{GROUP}")
    await setting.kubectl("create", "clusterrolebinding", "flunders", "--clusterrole=flunders", "--user=joe")
    assert await may(User("joe"))
    await pool.close()


async def test_a_remote_server_that_is_gone_is_told(setting: Setting) -> None:
    manifests = service_manifests(setting.extension)
    await setting.apply(*manifests)
    await setting.available("True")
    await setting.extension.stop()
    pem = base64.b64encode(setting.extension.authority.certificate).decode()
    patch = json.dumps({"metadata": {"annotations": {"again": pem[:10]}}})
    await setting.kubectl("patch", "apiservice", f"{VERSION}.{GROUP}", "--type=merge", "-p", patch)
    await setting.available("False")
    shown = await setting.kubectl("get", "apiservice", f"{VERSION}.{GROUP}", "--no-headers")
    assert "False (FailedDiscoveryCheck)" in shown
    kubectl = setting._kubectl("1.37")
    refused = await asyncio.to_thread(kubectl.refused, "get", "--raw", f"/apis/{GROUP}/{VERSION}/flunders")
    assert refused == "Error from server (ServiceUnavailable): the server is currently unable to handle the request\n"
    names = (await setting.kubectl("api-resources", "-o", "name")).split()
    assert "pods" in names and f"flunders.{GROUP}" not in names, "the rest goes on"
    await setting.kubectl("delete", "apiservice", f"{VERSION}.{GROUP}")

    async def forgotten() -> bool:
        return GROUP not in await setting.kubectl("get", "--raw", "/apis")

    assert await ready(forgotten)


async def test_this_server_believes_front_proxies_too(setting: Setting) -> None:
    pki = setting.process.root / "pki"
    review = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()
    path, content = "/apis/authentication.k8s.io/v1/selfsubjectreviews", {"Content-Type": "application/json"}

    async def who(name: str, headers: list[tuple[str, str]]) -> tuple[int, Any]:
        context = client_context(pki / "ca.crt", pki / f"{name}.crt", pki / f"{name}.key")
        pool = HttpPool("127.0.0.1", setting.process.port, context)
        answer = await pool.request("POST", path, [*content.items(), *headers], review)
        await pool.close()
        return answer.status, json.loads(answer.body)["status"]

    jane = [("X-Remote-User", "jane"), ("X-Remote-Group", "dev"), ("X-Remote-Group", "ops")]
    status, told = await who("front-proxy-client", jane)
    assert status == 201
    assert told["userInfo"] == {"username": "jane", "groups": ["dev", "ops", "system:authenticated"]}
    status, told = await who("front-proxy-client", [])
    assert (status, told) == (401, "Failure")
    status, told = await who("scheduler", jane)
    assert (status, told["userInfo"]["username"]) == (201, "system:kube-scheduler")
