"""The limit that stands where fairness is switched off: so many reads and so many writes at once.

Has the same face as the gate, with two levels that refuse what exceeds them. system:masters always get an answer.

Spec: API server flags "--max-requests-inflight", "--max-mutating-requests-inflight"; they hold without fairness.
"""

from __future__ import annotations

from tiphys.apiserver.fairness.gate import Flow, NoSeats
from tiphys.apiserver.fairness.levels import Level
from tiphys.apiserver.fairness.matching import Schema
from tiphys.apiserver.fairness.queues import Waiting
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import MASTERS, User
from tiphys.base.clock import Clock
from tiphys.wire.encoding import FixedHeaders
from tiphys.wire.message import Request

READING = frozenset({"get", "list", "watch"})


class InFlight:
    """See the module's docstring. A limit of 0 means none."""

    epoch = 0

    def __init__(self, clock: Clock, reads: int = 400, writes: int = 200) -> None:
        self._reads = _flow("readOnly", clock, reads)
        self._writes = _flow("mutating", clock, writes)
        self._masters = _flow("masters", clock, 0)

    def flow_of(self, user: User, info: RequestInfo) -> Flow:
        if MASTERS in user.groups:
            return self._masters
        return self._reads if info.verb in READING else self._writes

    def seats_of(self, request: Request, info: RequestInfo, level: Level) -> int:
        return 1

    async def wait(self, request: Request, flow: Flow, user: User, info: RequestInfo, seats: int) -> Waiting:
        raise NoSeats(mutating=info.verb not in READING)


def _flow(name: str, clock: Clock, limit: int) -> Flow:
    level = Level(name, clock)
    level.limit, level.exempt = limit, limit == 0
    return Flow(Schema(name, "", name, 1, "", ()), level, "", FixedHeaders())
