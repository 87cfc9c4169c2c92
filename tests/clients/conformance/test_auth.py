"""Upstream's conformance tests of authentication and authorization, call by call: certificates, accounts, reviews."""

from __future__ import annotations

import base64
import dataclasses
import json
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from direct_api import STRATEGIC, Access, Api, Json, soon
from live_cluster import LiveCluster

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
AUTHENTICATION = "/apis/authentication.k8s.io/v1"
AUTHORIZATION = "/apis/authorization.k8s.io/v1"
E2E = {"status": "True", "reason": "E2E", "message": "Set from an e2e test"}
APPROVED = {"type": "Approved", **E2E}
KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def stranger(access: Access, cluster: LiveCluster) -> Access:
    """The server for somebody without a certificate."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    authority = base64.b64decode(config["certificate-authority-data"]).decode()
    return dataclasses.replace(access, context=ssl.create_default_context(cadata=authority))


@pytest.fixture
def bearer(stranger: Access) -> Iterator[Any]:
    """Make clients with a bearer token."""
    made: list[Api] = []

    def make(token: str) -> Api:
        made.append(Api(stranger, {"Authorization": f"Bearer {token}"}))
        return made[-1]

    yield make
    for api in made:
        api.close()


def subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def encoded(thing: Any) -> str:
    return base64.b64encode(thing.public_bytes(serialization.Encoding.PEM)).decode()


def signing_request(name: str, signer: str, *usages: str) -> Json:
    made = x509.CertificateSigningRequestBuilder().subject_name(subject(name)).sign(KEY, hashes.SHA256())
    spec = {"request": encoded(made), "signerName": signer, "expirationSeconds": 3600}
    return {
        "metadata": {"generateName": f"{name}-"},
        "spec": {**spec, "usages": ["digital signature", "key encipherment", *usages]},
    }


def test_signing_requests_and_their_parts(api: Api, unique: str) -> None:
    signer = f"example.com/e2e-{unique}"
    template = signing_request("e2e-example-csr", signer, "server auth")
    made = [api.create(REQUESTS, template) for _ in range(3)][-1]
    one = f"{REQUESTS}/{made['metadata']['name']}"
    assert made["spec"]["groups"] == ["system:masters", "system:authenticated"]
    assert "authentication.kubernetes.io/credential-id" in made["spec"]["extra"]
    selected = {"fieldSelector": f"spec.signerName={signer}"}
    listed = api.get(REQUESTS, **selected)
    assert len(listed["items"]) == 3
    watched = {
        "fieldSelector": f"metadata.name={made['metadata']['name']}",
        "resourceVersion": listed["metadata"]["resourceVersion"],
    }
    with api.watch(REQUESTS, **watched) as events:
        patched = api.patch(one, {"metadata": {"annotations": {"patched": "true"}}})
        patched["metadata"]["annotations"]["updated"] = "true"
        assert api.replace(one, patched)["metadata"]["annotations"]["updated"] == "true"
        kind, seen = events.next()
        assert (kind, seen["metadata"]["annotations"]) == ("MODIFIED", {"patched": "true"})
    _approval(api, one, made)
    _status(api, one, made)
    api.delete(one)
    assert not api.is_there(one)
    assert len(api.get(REQUESTS, **selected)["items"]) == 2
    api.delete(REQUESTS, **selected)
    assert api.get(REQUESTS, **selected)["items"] == []


def _approval(api: Api, one: str, made: Json) -> None:
    got = api.get(f"{one}/approval")
    assert (got["kind"], got["metadata"]["uid"]) == ("CertificateSigningRequest", made["metadata"]["uid"])
    condition = {"type": "ApprovalPatch", "status": "True", "reason": "e2e"}
    change = {"metadata": {"annotations": {"patchedapproval": "true"}}, "status": {"conditions": [condition]}}
    patched = api.patch(f"{one}/approval", change)
    assert [c["type"] for c in patched["status"]["conditions"]] == ["ApprovalPatch"]
    assert patched["metadata"]["annotations"]["patchedapproval"] == "true"
    patched["status"]["conditions"].append(APPROVED)
    updated = api.replace(f"{one}/approval", patched)
    assert [c["type"] for c in updated["status"]["conditions"]] == ["ApprovalPatch", "Approved"]
    assert all(c["lastUpdateTime"] and c["lastTransitionTime"] for c in updated["status"]["conditions"])


def _status(api: Api, one: str, made: Json) -> None:
    assert api.get(f"{one}/status")["metadata"]["uid"] == made["metadata"]["uid"]
    begin = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject("e2e"), subject("e2e"), KEY.public_key(), 7, begin, begin + timedelta(1))
    certificate = encoded(builder.sign(KEY, hashes.SHA256()))
    change = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"certificate": certificate}}
    patched = api.patch(f"{one}/status", change)
    assert patched["status"]["certificate"] == certificate
    assert patched["metadata"]["annotations"]["patchedstatus"] == "true"
    patched["status"]["conditions"].append({"type": "StatusUpdate", **E2E})
    updated = api.replace(f"{one}/status", patched)
    assert [c["type"] for c in updated["status"]["conditions"]] == ["ApprovalPatch", "Approved", "StatusUpdate"]


def test_a_client_of_a_signed_request(api: Api, stranger: Access, unique: str, tmp_path: Path) -> None:
    name = f"tester-{unique}"
    rbac, group = "/apis/rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io"
    rule = {"verbs": ["create"], "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"]}
    api.create(f"{rbac}/clusterroles", {"metadata": {"name": name}, "rules": [rule]})
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": name}
    subjects = [{"apiGroup": group, "kind": "User", "name": name}]
    api.create(f"{rbac}/clusterrolebindings", {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects})
    template = signing_request(name, "kubernetes.io/kube-apiserver-client", "client auth")
    asked = api.create(REQUESTS, template)
    one = f"{REQUESTS}/{asked['metadata']['name']}"
    api.replace(f"{one}/approval", {**asked, "status": {"conditions": [APPROVED]}})
    signed = api.wait(one, lambda request: request["status"].get("certificate"))
    pem = base64.b64decode(signed["status"]["certificate"])
    (certificate,) = x509.load_pem_x509_certificates(pem)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(hours=1, minutes=5)
    key = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "pair.pem").write_bytes(pem + key)
    stranger.context.load_cert_chain(tmp_path / "pair.pem")
    newcomer = Api(stranger)
    own = newcomer.create(REQUESTS, template)
    assert own["spec"]["username"] == name
    newcomer.close()
    for path in (one, f"{REQUESTS}/{own['metadata']['name']}", f"{rbac}/clusterroles/{name}"):
        api.delete(path)
    api.delete(f"{rbac}/clusterrolebindings/{name}")


def test_the_life_of_a_service_account(api: Api, namespace: str, unique: str) -> None:
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    label = f"test-serviceaccount-static={unique}"
    name = f"testserviceaccount-{unique}"
    with api.watch(accounts, labelSelector=label) as events:
        body = {"metadata": {"name": name, "labels": {"test-serviceaccount-static": unique}}}
        assert "secrets" not in api.create(accounts, body)
        assert events.next()[0] == "ADDED"
        api.patch(f"{accounts}/{name}", {"automountServiceAccountToken": False}, STRATEGIC)
        kind, changed = events.next()
        assert (kind, changed["automountServiceAccountToken"]) == ("MODIFIED", False)
        changed["automountServiceAccountToken"] = True
        assert api.replace(f"{accounts}/{name}", changed)["automountServiceAccountToken"] is True
        assert len(api.get("/api/v1/serviceaccounts", labelSelector=label)["items"]) == 1
        api.delete(accounts, labelSelector=label)
        assert [events.next()[0] for _ in range(2)] == ["MODIFIED", "DELETED"]


def test_the_root_certificate_is_in_every_namespace_whatever_happens_to_it(api: Api, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt"
    first = api.wait(path, lambda _: True)
    assert "-----BEGIN CERTIFICATE-----" in first["data"]["ca.crt"]
    api.delete(path)
    again = api.wait(path, lambda found: found["metadata"]["uid"] != first["metadata"]["uid"])
    api.replace(path, {**again, "data": {"ca.crt": ""}})
    api.wait(path, lambda found: found["data"] == first["data"])


def test_a_token_and_its_review(api: Api, namespace: str, bearer: Any) -> None:
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    account = api.create(accounts, {"metadata": {"name": "e2e"}})
    token = api.create(f"{accounts}/e2e/token", {})["status"]["token"]
    username = f"system:serviceaccount:{namespace}:e2e"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    review = api.create(f"{AUTHENTICATION}/tokenreviews", {"spec": {"token": token}})["status"]
    assert (review["authenticated"], review.get("error", "")) == (True, "")
    user = review["user"]
    assert (user["username"], user["uid"]) == (username, account["metadata"]["uid"])
    assert user["groups"] == groups
    assert review["audiences"] == ["https://kubernetes.default.svc.cluster.local"]
    whoami = bearer(token).create(f"{AUTHENTICATION}/selfsubjectreviews", {})
    assert whoami["status"]["userInfo"] == user
    api.delete(f"{accounts}/e2e")
    gone = api.create(f"{AUTHENTICATION}/tokenreviews", {"spec": {"token": token}})["status"]
    assert gone == {"user": {}, "error": '[invalid bearer token, serviceaccounts "e2e" not found]'}


def test_the_issuer_is_discovered_and_its_keys_check_tokens(api: Api, namespace: str, bearer: Any) -> None:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    spec = {"audiences": ["oidc-discovery-test"], "expirationSeconds": 600}
    token = api.create(path, {"spec": spec})["status"]["token"]
    anyone = bearer(api.create(path, {})["status"]["token"])
    answer = anyone.ask("GET", "/.well-known/openid-configuration")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["jwks_uri"].endswith("/openid/v1/jwks")
    keys = anyone.ask("GET", "/openid/v1/jwks")
    assert keys.headers["content-type"] == "application/jwk-set+json"
    key = jwt.PyJWK(keys.json["keys"][0])
    algorithms = answer.json["id_token_signing_alg_values_supported"]
    issuer = answer.json["issuer"]
    claims = jwt.decode(token, key, algorithms=algorithms, audience="oidc-discovery-test", issuer=issuer)
    assert claims["sub"] == f"system:serviceaccount:{namespace}:default"


def test_a_subject_review_tells_what_the_subject_is_then_told(api: Api, namespace: str) -> None:
    username = f"system:serviceaccount:{namespace}:default"
    groups = ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    attributes = {"verb": "list", "resource": "configmaps", "namespace": namespace, "version": "v1"}
    spec = {"resourceAttributes": attributes, "user": username, "groups": groups}
    configmaps = f"/api/v1/namespaces/{namespace}/configmaps"
    as_subject = {"Impersonate-User": username}

    def said() -> tuple[bool, bool, int]:
        wide = api.create(f"{AUTHORIZATION}/subjectaccessreviews", {"spec": spec})
        path = f"{AUTHORIZATION}/namespaces/{namespace}/localsubjectaccessreviews"
        local = api.create(path, {"metadata": {"namespace": namespace}, "spec": spec})
        status = api.ask("GET", configmaps, headers=as_subject).status
        return wide["status"]["allowed"], local["status"]["allowed"], status

    assert said() == (False, False, 403)
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    subjects = [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}]
    api.create(bindings, {"metadata": {"name": "view"}, "roleRef": reference, "subjects": subjects})
    assert said() == (True, True, 200)


def test_a_self_review_tells_whom_one_acts_as(api: Api) -> None:
    headers = {
        "Impersonate-User": "jane-doe",
        "Impersonate-Uid": "uniq-id",
        "Impersonate-Group": "developers",
        "Impersonate-Extra-my-extra": "sample",
    }
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = api.ask("POST", f"{AUTHENTICATION}/selfsubjectreviews", body, headers=headers)
    assert answer.status == 201
    assert answer.json["metadata"]["creationTimestamp"]
    assert answer.json["status"]["userInfo"] == {
        "username": "jane-doe",
        "uid": "uniq-id",
        "groups": ["developers", "system:authenticated"],
        "extra": {"my-extra": ["sample"]},
    }


def test_a_node_reads_what_its_pods_need_and_nothing_else(api: Api, namespace: str) -> None:
    node, other = (item["metadata"]["name"] for item in api.get("/api/v1/nodes")["items"][:2])
    as_node = api.acting_as(f"system:node:{node}", "system:nodes")
    inside = f"/api/v1/namespaces/{namespace}"
    api.create(f"{inside}/secrets", {"metadata": {"name": "there"}})
    for name in ("there", "nowhere"):
        why = as_node.refused("GET", f"{inside}/secrets/{name}", code=403)
        assert why["message"].endswith(f"no relationship found between node '{node}' and this object")
    volume = {"name": "v", "secret": {"secretName": "there"}}
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "busybox"}], "volumes": [volume]}
    api.create(f"{inside}/pods", {"metadata": {"name": "p"}, "spec": spec})
    soon(lambda: as_node.ask("GET", f"{inside}/secrets/there").status == 200)
    as_node.refused("POST", "/api/v1/nodes", {"metadata": {"name": "foo"}}, code=403)
    as_node.refused("DELETE", f"/api/v1/nodes/{other}", code=403)
    as_node.close()


def test_a_token_tells_its_pods_node(api: Api, namespace: str, bearer: Any) -> None:
    inside = f"/api/v1/namespaces/{namespace}"
    api.create(
        f"{inside}/pods", {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}
    )
    pod = api.wait(f"{inside}/pods/p", lambda found: found["spec"].get("nodeName"))
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}
    path = f"{inside}/serviceaccounts/default/token"
    token = api.create(path, {"spec": {"boundObjectRef": bound}})["status"]["token"]
    told = bearer(token).create(f"{AUTHENTICATION}/selfsubjectreviews", {})["status"]["userInfo"]["extra"]
    assert told["authentication.kubernetes.io/node-name"] == [pod["spec"]["nodeName"]]
    assert told["authentication.kubernetes.io/pod-name"] == ["p"]
    node = {"apiVersion": "v1", "kind": "Node", "name": pod["spec"]["nodeName"]}
    of_node = api.create(path, {"spec": {"boundObjectRef": node}})["status"]["token"]
    claims = json.loads(base64.urlsafe_b64decode(of_node.split(".")[1] + "=="))
    assert claims["kubernetes.io"]["node"]["name"] == node["name"]
    api.delete(f"{inside}/pods/p", {"gracePeriodSeconds": 0})
    gone = api.create(f"{AUTHENTICATION}/tokenreviews", {"spec": {"token": token}})["status"]
    assert gone["error"] == "[invalid bearer token, service account token has been invalidated]"
