"""AdminService: shows and keeps the server itself."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from google.protobuf.duration_pb2 import Duration

from sagad.v1 import admin_service_pb2 as pb
from sagad.v1.admin_service_pb2_grpc import AdminServiceServicer
from sagad.v1.participant_service_pb2 import DescribeResponse
from sagad_server.api.auditing import by_caller, list_audit_events, note
from sagad_server.api.conversions import state_counts
from sagad_server.api.describing import Describer, describe_all
from sagad_server.api.interceptor import FORWARDED, Context, actor
from sagad_server.api.mirroring import Mirroring
from sagad_server.api.peers import Peers
from sagad_server.api.purging import purge_sagas
from sagad_server.domain.errors import NotFound, SagadError
from sagad_server.domain.validation import ValidationLimits
from sagad_server.engine.engine import Engine
from sagad_server.storage.audit import AuditKind
from sagad_server.storage.nodes import NodeRow, NodeState


@dataclass(slots=True, frozen=True)
class ServerInfo:
    """What this process is."""

    version: str
    name: str
    labels: Mapping[str, str]
    node_name: str
    incarnation: int
    start_time: datetime


class ParticipantInfo(Protocol):
    """How a participant is reached, as the configuration says."""

    @property
    def target(self) -> str: ...
    @property
    def tls(self) -> bool: ...
    @property
    def step_timeout_s(self) -> float: ...


class LinkState(Protocol):
    """How the calls of a participant go now."""

    @property
    def breaker(self) -> int: ...
    @property
    def session(self) -> bool: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def queued(self) -> int: ...


class Links(Describer, Protocol):
    """The ways to the participants."""

    def states(self) -> Mapping[str, LinkState]:
        """Of each participant."""


class Counters(Protocol):
    """What was counted since the start of this process."""

    @property
    def started_count(self) -> int: ...
    @property
    def ended_by_state(self) -> Mapping[int, int]: ...
    @property
    def commit_count(self) -> int: ...
    @property
    def transition_count(self) -> int: ...


class AdminService(AdminServiceServicer):
    """All calls about the server itself."""

    def __init__(
        self,
        engine: Engine,
        links: Links,
        participants: Mapping[str, ParticipantInfo],
        counters: Counters,
        info: ServerInfo,
        limits: ValidationLimits,
        peers: Peers,
        drain: Callable[[], None],
        mirroring: Mirroring,
        redis_health: Callable[[], Awaitable[list[pb.ComponentHealth]]],
    ) -> None:
        self._mirroring = mirroring
        self._redis_health = redis_health
        self._peers = peers
        self._drain = drain
        self._engine = engine
        self._store = engine.store
        self._links = links
        self._participants = participants
        self._counters = counters
        self._info = info
        self._limits = limits
        self._started_s = time.monotonic()

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        info, database = self._info, await self._store.info()
        response = pb.GetServerInfoResponse(
            version=info.version,
            name=info.name,
            labels=info.labels,
            node_name=info.node_name,
            incarnation=info.incarnation,
            postgres_version=database.postgres_version,
            schema_version=database.schema_version,
            replication=pb.Replication.ValueType(database.replication),
        )
        response.start_time.FromDatetime(info.start_time)
        return response

    async def GetServiceStats(self, request: pb.GetServiceStatsRequest, context: Context) -> pb.GetServiceStatsResponse:
        engine, counters = self._engine, self._counters
        return pb.GetServiceStatsResponse(
            started_total=counters.started_count,
            ended_total=state_counts(counters.ended_by_state.items()),
            sagas_in_memory=len(engine.sagas),
            calls_in_flight=engine.calls.in_flight,
            write_queue=engine.writer.queued,
            commits_total=counters.commit_count,
            transitions_total=counters.transition_count,
            watches=engine.watches.count,
            uptime=_span(time.monotonic() - self._started_s),
        )

    async def GetHealthDetails(
        self, request: pb.GetHealthDetailsRequest, context: Context
    ) -> pb.GetHealthDetailsResponse:
        checked = await asyncio.gather(
            _checked("postgres", self._ping(), required=True),
            _checked("writer", self._ask_writer(), required=True),
            _checked("admission", self._ask_admission(), required=False),
            *(
                _checked(f"participant/{name}", self._ask_participant(name), required=False)
                for name in sorted(self._participants)
            ),
        )
        components = [*checked, *await self._mirroring.health(), *await self._redis_health()]
        healthy = all(component.healthy for component in components if component.required)
        return pb.GetHealthDetailsResponse(healthy=healthy, components=components)

    async def _ping(self) -> str:
        try:
            await self._store.ping()
        except SagadError as error:
            return error.message
        return ""

    async def _ask_writer(self) -> str:
        return "" if self._engine.writer.healthy else "the last commits did not succeed; they are tried again"

    async def _ask_admission(self) -> str:
        admission = self._engine.admission
        if admission.full:
            return "new sagas are refused: nine tenths of limits.max_sagas_in_memory are taken"
        return (
            "new sagas are refused: they are durable too late for limits.overload_after" if admission.overloaded else ""
        )

    async def _ask_participant(self, name: str) -> str:
        answer = await self._links.describe(name)
        return answer if isinstance(answer, str) else ""

    async def ListParticipants(
        self, request: pb.ListParticipantsRequest, context: Context
    ) -> pb.ListParticipantsResponse:
        answers = await describe_all(self._links, self._participants)
        states = self._links.states()
        return pb.ListParticipantsResponse(
            participants=[
                _participant(name, self._participants[name], answer, states[name]) for name, answer in answers.items()
            ]
        )

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        nodes, owned = await asyncio.gather(self._store.nodes(), self._store.count_owned())
        return pb.ListNodesResponse(nodes=[_node(node, owned.get(node.instance_id, 0)) for node in nodes])

    async def DrainNode(self, request: pb.DrainNodeRequest, context: Context) -> pb.DrainNodeResponse:
        name = request.node_name
        if name in ("", self._info.node_name):
            await note(self._store, by_caller(AuditKind.NODE_DRAINED, self._info.node_name))
            self._drain()
            return pb.DrainNodeResponse()
        nodes = [node for node in await self._store.nodes() if node.state == NodeState.LIVE]
        for node in nodes:
            if node.node_name == name and node.address:
                method = "sagad.v1.AdminService/DrainNode"
                answer = await self._peers.call(node.address, method, b"", ((FORWARDED, actor.get()),), None)
                return pb.DrainNodeResponse.FromString(answer)
        live = ", ".join(sorted(node.node_name for node in nodes))
        raise NotFound(f"no live node is called {name[:100]!r}; there are {live}", reason="NODE_NOT_FOUND")

    async def PurgeSagas(self, request: pb.PurgeSagasRequest, context: Context) -> pb.PurgeSagasResponse:
        return await purge_sagas(self._store, request, self._limits)

    async def GetMirrorStatus(self, request: pb.GetMirrorStatusRequest, context: Context) -> pb.GetMirrorStatusResponse:
        return await self._mirroring.status(request)

    async def ResumeMirror(self, request: pb.ResumeMirrorRequest, context: Context) -> pb.ResumeMirrorResponse:
        return await self._mirroring.resume(request)

    async def RemoveMirror(self, request: pb.RemoveMirrorRequest, context: Context) -> pb.RemoveMirrorResponse:
        return await self._mirroring.remove(request)

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Context) -> pb.ListAuditEventsResponse:
        return await list_audit_events(self._store, request, self._limits)


async def _checked(name: str, check: Awaitable[str], *, required: bool) -> pb.ComponentHealth:
    """The health of a component by a check that returns what is wrong with it, if anything."""
    began = time.perf_counter()
    fault = await check
    return pb.ComponentHealth(
        name=name,
        healthy=not fault,
        required=required,
        message=fault,
        latency=_span(time.perf_counter() - began),
    )


def _participant(name: str, info: ParticipantInfo, answer: DescribeResponse | str, state: LinkState) -> pb.Participant:
    participant = pb.Participant(
        name=name,
        target=info.target,
        tls=info.tls,
        step_timeout=_span(info.step_timeout_s),
        breaker=pb.BreakerState.ValueType(state.breaker),
        session=state.session,
        in_flight=state.in_flight,
        queued=state.queued,
    )
    if isinstance(answer, str):
        participant.message = answer
    else:
        participant.reachable = True
        participant.actions.extend(sorted(answer.actions))
        participant.compensations.extend(sorted(answer.compensations))
    return participant


def _span(seconds: float) -> Duration:
    span = Duration()
    span.FromMicroseconds(round(seconds * 1_000_000))
    return span


def _node(row: NodeRow, sagas: int) -> pb.Node:
    node = pb.Node(
        node_name=row.node_name,
        incarnation=row.incarnation,
        state=pb.NodeState.ValueType(row.state),
        address=row.address,
        sagas=sagas,
    )
    node.start_time.FromDatetime(row.start_time)
    return node
