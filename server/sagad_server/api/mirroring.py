"""The mirror as AdminService shows and steers it. It may run in other processes: all is read from its tables."""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from sagad.v1 import admin_service_pb2 as pb
from sagad_server.api.auditing import by_caller, note
from sagad_server.domain.checks import Bounds
from sagad_server.domain.errors import FailedPrecondition, NotFound, SagadError
from sagad_server.domain.validation import RequestChecker, ValidationLimits
from sagad_server.storage.audit import AuditKind
from sagad_server.storage.mirror import LANES, LaneLag, Start
from sagad_server.storage.store import Store

_TOPIC = re.compile(r"[a-zA-Z0-9._-]+")
_TOPIC_LENGTH = 200
_LANE = Bounds(0, LANES - 1)


class Lanes(Protocol):
    """The lanes as the database has them. Every method raises Unavailable."""

    async def lag(self, topic: str = "") -> list[LaneLag]:
        """The lanes of a topic, or of all, by topic and lane."""

    async def oldest_transaction_s(self) -> float:
        """The age of the oldest transaction that writes."""

    async def resume(self, topic: str, lanes: Sequence[int], start: Start) -> list[int]:
        """Lets lanes go on from there."""

    async def remove(self, topic: str) -> int:
        """Forgets that there is a mirror in this topic."""


class Mirroring:
    """What AdminService does about the mirror."""

    def __init__(self, store: Store, lanes: Lanes | None, limits: ValidationLimits, fault: Callable[[], str]) -> None:
        """`lanes` None: this store has no mirror. `fault`: of the mirror in this process, if there is one."""
        self._store = store
        self._lanes = lanes
        self._limits = limits
        self._fault = fault

    async def status(self, request: pb.GetMirrorStatusRequest) -> pb.GetMirrorStatusResponse:
        check = RequestChecker(self._limits)
        _check_topic(check, request.topic, required=False)
        check.raise_if_any()
        response = pb.GetMirrorStatusResponse()
        if self._lanes is not None:
            response.lanes.extend(_lane(lag) for lag in await self._lanes.lag(request.topic))
            response.oldest_transaction.FromMicroseconds(round(await self._lanes.oldest_transaction_s() * 1e6))
        return response

    async def resume(self, request: pb.ResumeMirrorRequest) -> pb.ResumeMirrorResponse:
        check = RequestChecker(self._limits)
        _check_topic(check, request.topic, required=True)
        if len(request.lanes) > LANES:
            check.fail("lanes", f"has {len(request.lanes)} lanes; there are {LANES}")
        for i, lane in enumerate(request.lanes[:LANES]):
            check.number(f"lanes[{i}]", lane, _LANE)
        check.enum("start", request.start, pb.MirrorStart.DESCRIPTOR, required=True)
        check.reason("reason", request.reason, required=True)
        check.raise_if_any()
        lanes, lags = await self._of_topic(request.topic)
        chosen = sorted(set(request.lanes)) or [lag.lane.lane for lag in lags if lag.lane.fault]
        if not chosen:
            return pb.ResumeMirrorResponse()
        resumed = sorted(await lanes.resume(request.topic, chosen, Start(request.start)))
        values = {"lanes": resumed, "start": pb.MirrorStart.Name(request.start)}
        entry = by_caller(AuditKind.MIRROR_RESUMED, request.topic, reason=request.reason, values=values)
        await note(self._store, entry)
        return pb.ResumeMirrorResponse(lanes=resumed)

    async def remove(self, request: pb.RemoveMirrorRequest) -> pb.RemoveMirrorResponse:
        check = RequestChecker(self._limits)
        _check_topic(check, request.topic, required=True)
        check.reason("reason", request.reason, required=True)
        check.raise_if_any()
        lanes, lags = await self._of_topic(request.topic)
        if relays := sorted({lag.relay_name for lag in lags if lag.relay_name}):
            raise FailedPrecondition(
                f"{', '.join(relays)} relays into the topic {request.topic}: stop it, or give it another mirror.topic",
                reason="MIRROR_RUNNING",
            )
        await lanes.remove(request.topic)
        await note(self._store, by_caller(AuditKind.MIRROR_REMOVED, request.topic, reason=request.reason))
        return pb.RemoveMirrorResponse()

    async def _of_topic(self, topic: str) -> tuple[Lanes, list[LaneLag]]:
        lags = [] if self._lanes is None else await self._lanes.lag()
        found = [lag for lag in lags if lag.lane.topic == topic]
        if self._lanes is None or not found:
            known = ", ".join(sorted({lag.lane.topic for lag in lags})) or "none"
            raise NotFound(
                f"there is no mirror in the topic {topic}; topics with one: {known}", reason="MIRROR_NOT_FOUND"
            )
        return self._lanes, found

    async def health(self) -> list[pb.ComponentHealth]:
        """Of the mirror, wherever it runs; empty: there is none. sagad does without it."""
        fault = await self._wrong()
        return [] if fault is None else [pb.ComponentHealth(name="mirror", healthy=not fault, message=fault)]

    async def _wrong(self) -> str | None:
        """What is wrong with it; None: there is none."""
        try:
            lags = [] if self._lanes is None else await self._lanes.lag()
        except SagadError as error:
            return error.message
        fault = self._fault()
        if not lags:
            return fault or None
        still = [f"{lag.lane.topic}/{lag.lane.lane}: {lag.lane.fault}" for lag in lags if lag.lane.fault]
        if still:
            return f"MIRROR_DIVERGED: {len(still)} lanes stand still until ResumeMirror; {still[0]}"
        alone = [f"{lag.lane.topic}/{lag.lane.lane}" for lag in lags if not lag.relay_name]
        return f"nobody relays {', '.join(alone)}" if alone else fault


def _check_topic(check: RequestChecker, topic: str, *, required: bool) -> None:
    if topic or required:
        allowed = "a-z, A-Z, 0-9, '.', '_' and '-' are allowed"
        check.text("topic", topic, Bounds(1, _TOPIC_LENGTH), pattern=_TOPIC, allowed=allowed)


def _lane(lag: LaneLag) -> pb.MirrorLane:
    lane = lag.lane
    message = pb.MirrorLane(
        topic=lane.topic, lane=lane.lane, relay_name=lag.relay_name, lag_events=lag.events, fault=lane.fault
    )
    message.lag.FromMicroseconds(round(lag.seconds * 1e6))
    return message
