"""An operator whose users' objects pass its own admission webhooks: kopf's server, certificates and registration.

Run by `kopf run`; the tests give its group as ORCHARD_GROUP and a folder with certificates as ORCHARD_TLS.
"""

import os
from typing import Any

import kopf

GROUP, TLS = os.environ["ORCHARD_GROUP"], os.environ["ORCHARD_TLS"]


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.admission.managed = GROUP
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1",
        host="127.0.0.1",
        cafile=f"{TLS}/ca.crt",
        certfile=f"{TLS}/tls.crt",
        pkeyfile=f"{TLS}/tls.key",
    )


@kopf.on.mutate(GROUP, "v1", "orchards", operations=["CREATE"])
def choose_soil(spec: kopf.Spec, patch: kopf.Patch, **_: Any) -> None:
    if "soil" not in spec:
        patch.spec["soil"] = "loam"


@kopf.on.validate(GROUP, "v1", "orchards")
def check(spec: kopf.Spec, warnings: list[str], operation: str, dryrun: bool, **_: Any) -> None:
    if operation == "DELETE":
        raise kopf.AdmissionError("orchards stay", code=403)
    if spec.get("trees", 0) > 100:
        raise kopf.AdmissionError("that is a forest", code=422)
    if spec.get("trees", 0) > 10:
        warnings.append(f"{spec['trees']} trees need water{' (but this is a dry run)' if dryrun else ''}")
