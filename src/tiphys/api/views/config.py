"""Typed views of ConfigMaps, Secrets, ServiceAccounts and Namespaces. Every field is optional here: validation is the API server's. See views/meta.py."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import field

from tiphys.api.views.meta import Condition, ObjectMeta, ObjectReference, View
from tiphys.api.views.pod import LocalObjectReference


class ConfigMap(View, frozen=True):
    binary_data: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    immutable: bool | None = None
    metadata: ObjectMeta = ObjectMeta()


class Secret(View, frozen=True):
    data: Mapping[str, str] = field(default_factory=dict)
    immutable: bool | None = None
    metadata: ObjectMeta = ObjectMeta()
    string_data: Mapping[str, str] = field(default_factory=dict)
    type: str = ""


class ServiceAccount(View, frozen=True):
    automount_service_account_token: bool | None = None
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    metadata: ObjectMeta = ObjectMeta()
    secrets: tuple[ObjectReference, ...] = ()


class NamespaceSpec(View, frozen=True):
    finalizers: tuple[str, ...] = ()


class NamespaceStatus(View, frozen=True):
    conditions: tuple[Condition, ...] = ()
    phase: str = ""


class Namespace(View, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()
