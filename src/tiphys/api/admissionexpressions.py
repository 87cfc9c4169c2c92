"""CEL in admission: what the expressions of policies and webhooks may name, and how they are compiled.

Validation of the kinds (strategies/admissionpolicy.py) and the plugins of the API server (apiserver/policies/, match
conditions of webhooks) compile with the same environments, so what was accepted runs. `object`, `oldObject` and
`params` are of any type at run time; the type check of policies (apiserver/policies/typecheck.py) passes in types.

Invariant: compiling never raises; an expression that has no meaning is a `Compiled` with an error.

Spec: Kubernetes documentation, "Validating Admission Policy" (variables of expressions, metadata access), "Mutating
Admission Policy", "Dynamic Admission Control" (match conditions).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

from tiphys.cel import types
from tiphys.cel.environment import Environment, Program
from tiphys.cel.errors import CompileError
from tiphys.cel.types import BOOL, DYN, INT, STRING, TIMESTAMP, ObjectType, Type, list_of, map_of

CALL_LIMIT = 1_000_000
"""Cost of one evaluation of one expression."""
POLICY_LIMIT = 10_000_000
"""Cost of all validations of a policy with one parameter, or of one mutation."""
MATCH_CONDITIONS_LIMIT = 2_500_000
"""Cost of all match conditions of a policy or webhook."""
MESSAGE_BYTES = 5 * 1024
"""Bytes of a message that an expression makes; a longer one counts as none."""
ANNOTATION_BYTES = 10 * 1024
"""Bytes of an audit annotation's value; the rest is cut."""

SHARED_PROGRAMS = 512
"""Compiled expressions that are kept for whoever compiles the same."""

Variables = tuple[tuple[str, Type], ...]
_STRINGS = list_of(STRING)
_STRING_MAP = map_of(STRING, STRING)


def _object(name: str, /, **fields: Type) -> ObjectType:
    return ObjectType(f"kubernetes.{name}", fields)


_KIND = _object("GroupVersionKind", group=STRING, version=STRING, kind=STRING)
_RESOURCE = _object("GroupVersionResource", group=STRING, version=STRING, resource=STRING)
_USER = _object("UserInfo", username=STRING, uid=STRING, groups=_STRINGS, extra=map_of(STRING, _STRINGS))
REQUEST = _object(
    "AdmissionRequest",
    kind=_KIND,
    resource=_RESOURCE,
    subResource=STRING,
    requestKind=_KIND,
    requestResource=_RESOURCE,
    requestSubResource=STRING,
    name=STRING,
    namespace=STRING,
    operation=STRING,
    userInfo=_USER,
    dryRun=BOOL,
    options=DYN,
)
"""`request`: the AdmissionRequest of webhooks without uid and objects."""
_NAMESPACE_CONDITION = _object(
    "NamespaceCondition", status=STRING, type=STRING, lastTransitionTime=TIMESTAMP, message=STRING, reason=STRING
)
_NAMESPACE_METADATA = _object(
    "NamespaceMetadata",
    name=STRING,
    generateName=STRING,
    namespace=STRING,
    labels=_STRING_MAP,
    annotations=_STRING_MAP,
    UID=STRING,
    creationTimestamp=TIMESTAMP,
    deletionGracePeriodSeconds=INT,
    deletionTimestamp=TIMESTAMP,
    generation=INT,
    resourceVersion=STRING,
    finalizers=_STRINGS,
)
NAMESPACE_METADATA_FIELDS = frozenset(_NAMESPACE_METADATA.fields)
NAMESPACE = _object(
    "Namespace",
    metadata=_NAMESPACE_METADATA,
    spec=_object("NamespaceSpec", finalizers=_STRINGS),
    status=_object("NamespaceStatus", conditions=list_of(_NAMESPACE_CONDITION), phase=STRING),
)
"""`namespaceObject`: a Namespace without owners and managed fields."""


class Scope(NamedTuple):
    """Which of the variables that not every expression has are there."""

    params: bool = False
    authorizer: bool = True
    patches: bool = False
    """Object{...} and JSONPatch{...} can be constructed."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression. `program` is None where it has no meaning, and `error` says why."""

    text: str
    program: Program | None
    error: str = ""
    asks: bool = False
    """It names an authorizer, whose answers cost much and take no time."""

    @property
    def result_type(self) -> Type:
        return DYN if self.program is None else self.program.result_type


class Expressions:
    """Compiles the expressions of one policy or webhook. With `declare`, variables of the policy become fields of
    `variables` for all expressions that are compiled later."""

    def __init__(self, version: tuple[int, int], objects: Mapping[str, Type] | None = None) -> None:
        """`objects` gives types to object, oldObject and params, for type checks."""
        self._minor = version[1]
        self._objects = dict(objects or {})
        self._variables: tuple[tuple[str, Type], ...] = ()
        self._environments: dict[Scope, Environment] = {}

    def declare(self, name: str, text: str, scope: Scope) -> Compiled:
        """Compile a variable; one that has no meaning is of any type for those who use it."""
        compiled = self.compile(text, scope)
        self._variables = (*self._variables, (name, compiled.result_type))
        self._environments.clear()
        return compiled

    def compile(self, text: str, scope: Scope, results: tuple[Type, ...] = ()) -> Compiled:
        """Compile an expression that must evaluate to one of `results`, () for anything."""
        program = self._program(text, scope)
        if isinstance(program, str):
            return Compiled(text, None, f"compilation failed: {program}")
        if results and program.result_type not in results:
            return Compiled(text, None, _wrong_type(results, program.result_type))
        return Compiled(text, program, asks=any(name.startswith("authorizer") for name in program.variables))

    def check(self, text: str, scope: Scope) -> str:
        """Return the issues of an expression as the compiler writes them, "" for none."""
        program = self._program(text, scope)
        return program if isinstance(program, str) else ""

    def _program(self, text: str, scope: Scope) -> Program | str:
        if not self._objects:
            return _shared_program(self._minor, scope, self._variables, text)
        environment = self._environments.get(scope)
        if environment is None:
            typed = {name: kind for name, kind in self._objects.items() if name != "params" or scope.params}
            environment = _environment(self._minor, scope, self._variables).extend(typed)
            self._environments[scope] = environment
        return _compile(environment, text)


def _compile(environment: Environment, text: str) -> Program | str:
    """Return the program, or what is wrong with the text."""
    try:
        return environment.compile(text)
    except CompileError as error:
        return str(error)


@lru_cache(maxsize=SHARED_PROGRAMS)
def _shared_program(minor: int, scope: Scope, variables: Variables, text: str) -> Program | str:
    """The same, kept: a policy is compiled when it is validated, and again when it is first evaluated."""
    return _compile(_environment(minor, scope, variables), text)


@lru_cache(maxsize=64)
def _environment(minor: int, scope: Scope, variables: Variables) -> Environment:
    environment = base_environment(minor, scope)
    return (
        environment.extend({"variables": ObjectType("kubernetes.variables", dict(variables))})
        if variables
        else environment
    )


@cache
def base_environment(minor: int, scope: Scope) -> Environment:
    """Return what every expression of admission may name in Kubernetes 1.<minor>."""
    from tiphys.api.cellibrary import libraries

    variables = {"object": DYN, "oldObject": DYN, "request": REQUEST, "namespaceObject": NAMESPACE}
    if scope.params:
        variables["params"] = DYN
    if scope.authorizer:
        from tiphys.api.cellibrary.authorizer import AUTHORIZER, RESOURCE_CHECK

        variables |= {"authorizer": AUTHORIZER, "authorizer.requestResource": RESOURCE_CHECK}
    return Environment(variables, libraries(minor), _PATCH_STRUCTS if scope.patches else None)


def _wrong_type(results: tuple[Type, ...], got: Type) -> str:
    if len(results) == 1:
        return f"must evaluate to {_shown(results[0])} but got {_shown(got)}"
    return f"must evaluate to one of [{' '.join(map(_shown, results))}] but got {_shown(got)}"


def _shown(result: Type) -> str:
    return "null_type" if result.kind == "null" else str(result)


CONDITION = (types.BOOL,)
MESSAGE = (types.STRING,)
ANNOTATION = (types.STRING, types.NULL)


class _AnyField(Mapping[str, Type]):
    """The fields of an `Object{...}`: all that there can be, of any type. The schema of the kind has its say later."""

    def __getitem__(self, name: str) -> Type:
        return DYN

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class _PatchStructs(Mapping[str, ObjectType]):
    """What mutations construct: `Object`, `Object.spec`, `Object.spec.template`, ... and `JSONPatch`."""

    def __getitem__(self, name: str) -> ObjectType:
        if name == JSON_PATCH.name:
            return JSON_PATCH
        if name == OBJECT.name or name.startswith(f"{OBJECT.name}."):
            return ObjectType(name, _AnyField())
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter((OBJECT.name, JSON_PATCH.name))

    def __len__(self) -> int:
        return 2


OBJECT = ObjectType("Object", _AnyField())
JSON_PATCH = ObjectType("JSONPatch", {"op": STRING, "path": STRING, "from": STRING, "value": DYN})
_PATCH_STRUCTS = _PatchStructs()
_PATCH_RESULTS: Mapping[str, tuple[Type, ...]] = {
    "ApplyConfiguration": (OBJECT,),
    "JSONPatch": (list_of(JSON_PATCH),),
}


def patch_results(patch_type: str) -> tuple[Type, ...]:
    """Return what the expression of a mutation must evaluate to."""
    return _PATCH_RESULTS.get(patch_type, ())
