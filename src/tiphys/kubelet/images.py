"""Have a container's image on the node: present or pulled, by policy, with back-off.

Invariant: one pull at a time for one image and one secret set, and whoever waited for one while it was done by another
takes that one's outcome, so that a hundred pods that ask at once cost two pulls. A failed pull is not tried again before
its back-off (10 s doubling to 5 min) is over. Events and reasons are what clients match on.

Spec: Kubernetes docs, "Images" (pull policy, pull secrets, ImagePullBackOff).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from tiphys.api.views.config import Secret
from tiphys.base.clock import Clock
from tiphys.base.errors import TiphysError
from tiphys.client.events import EventKind, EventRecorder
from tiphys.kubelet.plan import FIRST_BACKOFF_S, FORGET_BACKOFF_AFTER_S, LONGEST_BACKOFF_S, Backoff
from tiphys.kubelet.pod import BoundPod, Specced, pod_reference
from tiphys.runtime.interface import Image, ImageAuth, Runtime, RuntimeFailed
from tiphys.runtime.references import parse_reference

SHOW_ERROR_S = 1.0
"""How long a pod shows ErrImagePull before it shows ImagePullBackOff."""


class ImageFailed(TiphysError):
    """The image is not there. `reason` and the message go into the waiting state; `retry_at_s` is when to try next."""

    def __init__(self, reason: str, message: str, retry_at_s: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_at_s = retry_at_s


@dataclass(slots=True)
class _Failure:
    backoff: Backoff
    error: str


@dataclass(slots=True)
class _Pulls:
    """The pulls of one image with one set of credentials."""

    lock: asyncio.Lock
    begun: int = 0
    """How many have begun; who asks now is served by number `begun + 1`, or any later one."""
    outcome: Image | RuntimeFailed | None = None
    """Of the last one."""
    askers: int = 0
    """Who pulls or waits; with nobody left the record goes."""


class Images:
    """Pulls for all pods of a node."""

    def __init__(self, runtime: Runtime, recorder: EventRecorder, clock: Clock) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._clock = clock
        self._pulls: dict[tuple[str, tuple[ImageAuth, ...]], _Pulls] = {}
        self._failures: dict[tuple[str, str], _Failure] = {}
        self.used_at_s: dict[str, float] = {}
        """Image id -> when a container was last made from it, for garbage collection."""

    async def ensure(self, pod: BoundPod, container: Specced, secrets: Sequence[Secret]) -> Image:
        """Return the image. Raises ImageFailed; records the events."""
        reference = container.image
        now_s = self._clock.now_s()
        try:
            parsed = parse_reference(reference)
            image = await self._runtime.image_status(reference)
        except RuntimeFailed as error:
            if error.reason != "InvalidImageName":
                raise ImageFailed("ImageInspectError", str(error), now_s + FIRST_BACKOFF_S) from error
            text = (
                f'Failed to apply default image tag "{reference}": couldn\'t parse image name "{reference}": '
                "invalid reference format"
            )
            self._event(pod, container, "Warning", "InspectFailed", text)
            raise ImageFailed("InvalidImageName", text, now_s + LONGEST_BACKOFF_S) from error
        policy = container.image_pull_policy or ("Always" if parsed.tag in ("latest",) else "IfNotPresent")
        if image is not None and policy != "Always":
            text = f'Container image "{reference}" already present on machine and can be accessed by the pod'
            self._event(pod, container, "Normal", "Pulled", text)
            return self._used(image)
        if policy == "Never":
            text = f'Container image "{reference}" is not present with pull policy of Never'
            self._event(pod, container, "Warning", "ErrImageNeverPull", text)
            raise ImageFailed("ErrImageNeverPull", text, now_s + FIRST_BACKOFF_S)
        return await self._pull(pod, container, _credentials(str(parsed), secrets))

    async def _pull(self, pod: BoundPod, container: Specced, auths: Sequence[ImageAuth]) -> Image:
        reference = container.image
        key = (pod.metadata.uid, reference)
        now_s = self._clock.now_s()
        failure = self._failures.get(key)
        if failure is not None and now_s < failure.backoff.since_s + failure.backoff.wait_s:
            text = f'Back-off pulling image "{reference}"'
            self._event(pod, container, "Normal", "BackOff", text)
            retry_at_s = failure.backoff.since_s + failure.backoff.wait_s
            raise ImageFailed("ImagePullBackOff", f"{text}: ErrImagePull: {failure.error}", retry_at_s)
        self._event(pod, container, "Normal", "Pulling", f'Pulling image "{reference}"')
        started_s = self._clock.monotonic_s()
        image, pulling_s = await self._pull_once(reference, tuple(auths))
        ended_s = self._clock.monotonic_s()
        if isinstance(image, RuntimeFailed):
            raise self._failed(pod, container, image) from image
        self._failures.pop(key, None)
        self._event(
            pod, container, "Normal", "Pulled",
            f'Successfully pulled image "{reference}" in {go_duration(ended_s - pulling_s)} '
            f"({go_duration(ended_s - started_s)} including waiting). Image size: {image.size_bytes} bytes.",
        )  # fmt: skip
        return self._used(image)

    async def _pull_once(self, reference: str, auths: tuple[ImageAuth, ...]) -> tuple[Image | RuntimeFailed, float]:
        """Pull, or take the outcome of a pull that began since this one was asked for; tell when the waiting ended."""
        pulls = self._pulls.setdefault((reference, auths), _Pulls(asyncio.Lock()))
        asked = pulls.begun
        pulls.askers += 1
        try:
            async with pulls.lock:
                pulling_s = self._clock.monotonic_s()
                if pulls.begun == asked or pulls.outcome is None:
                    pulls.begun, pulls.outcome = pulls.begun + 1, None
                    try:
                        pulls.outcome = await self._pull_with(reference, auths)
                    except RuntimeFailed as error:
                        pulls.outcome = error
                return pulls.outcome, pulling_s
        finally:
            pulls.askers -= 1
            if not pulls.askers:
                self._pulls.pop((reference, auths), None)

    async def _pull_with(self, reference: str, auths: Sequence[ImageAuth | None]) -> Image:
        last: RuntimeFailed | None = None
        for auth in auths or [None]:
            try:
                await self._runtime.pull_image(reference, auth)
                break
            except RuntimeFailed as error:
                last = error
        else:
            assert last is not None
            raise last
        image = await self._runtime.image_status(reference)
        if image is None:
            raise RuntimeFailed("ErrImagePull", f'image "{reference}" is gone right after its pull; it is pulled again')
        return image

    def _failed(self, pod: BoundPod, container: Specced, error: RuntimeFailed) -> ImageFailed:
        reference = container.image
        key = (pod.metadata.uid, reference)
        now_s = self._clock.now_s()
        old = self._failures.get(key)
        wait_s = FIRST_BACKOFF_S
        if old is not None and now_s - old.backoff.since_s < FORGET_BACKOFF_AFTER_S:
            wait_s = min(old.backoff.wait_s * 2, LONGEST_BACKOFF_S)
        self._failures[key] = _Failure(Backoff(wait_s, now_s), str(error))
        self._event(pod, container, "Warning", "Failed", f'Failed to pull image "{reference}": {error}')
        return ImageFailed("ErrImagePull", str(error), now_s + SHOW_ERROR_S)

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a pod that is gone."""
        for key in [key for key in self._failures if key[0] == uid]:
            del self._failures[key]

    def _used(self, image: Image) -> Image:
        self.used_at_s[image.id] = self._clock.now_s()
        return image

    def _event(self, pod: BoundPod, container: Specced, kind: EventKind, reason: str, message: str) -> None:
        self._recorder.record(pod_reference(pod, container.name), kind, reason, message)


def go_duration(seconds: float) -> str:
    """Return a duration as Go prints one that was cut to milliseconds: 12ms, 1.2s, 1m3.004s, 0s."""
    millis = int(seconds * 1000)
    if millis <= 0:
        return "0s"
    if millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{text}" if minutes else text


def _credentials(reference: str, secrets: Sequence[Secret]) -> list[ImageAuth]:
    """Return the credentials of pull secrets that fit the image, the most specific first."""
    found: list[tuple[int, ImageAuth]] = []
    for secret in secrets:
        for place, entry in _auth_entries(secret).items():
            wanted = place.removeprefix("https://").removeprefix("http://").removesuffix("/v1/").removesuffix("/v2/")
            wanted = wanted.rstrip("/").replace("index.docker.io", "docker.io")
            if reference == wanted or reference.startswith((wanted + "/", wanted + ":", wanted + "@")):
                auth = _auth(entry)
                if auth is not None:
                    found.append((len(wanted), auth))
    return [auth for _, auth in sorted(found, key=lambda pair: -pair[0])]


def _auth_entries(secret: Secret) -> dict[str, dict[str, str]]:
    try:
        if ".dockerconfigjson" in secret.data:
            document = msgspec.json.decode(base64.b64decode(secret.data[".dockerconfigjson"]))
            entries = document.get("auths") or {}
        elif ".dockercfg" in secret.data:
            entries = msgspec.json.decode(base64.b64decode(secret.data[".dockercfg"]))
        else:
            return {}
    except (ValueError, AttributeError):
        return {}
    return {str(k): v for k, v in entries.items() if isinstance(v, dict)} if isinstance(entries, dict) else {}


def _auth(entry: dict[str, str]) -> ImageAuth | None:
    if entry.get("username"):
        return ImageAuth(entry["username"], entry.get("password", ""))
    try:
        user, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return ImageAuth(user, password) if user else None
