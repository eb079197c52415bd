"""Calls about the server itself."""
# ruff: noqa: A002 (`filter` is the contract's own word)

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from sagad.v1 import admin_service_pb2 as pb
from sagad.v1.admin_service_pb2_grpc import AdminServiceStub
from sagad.v1.saga_pb2 import SagaFilter
from sagad_client.connection import Connection, Repeat
from sagad_client.pages import Page, Pages

if TYPE_CHECKING:
    from sagad.v1.admin_service_pb2_grpc import AdminServiceAsyncStub


class Admin:
    """Calls about the server itself, as `client.admin`. Every call raises SagadError."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace

    @cached_property
    def _stub(self) -> AdminServiceAsyncStub:
        return AdminServiceStub(self._connection.channel)

    async def server_info(self) -> pb.GetServerInfoResponse:
        """What this server is: version, node, database."""
        return await self._connection.call(self._stub.GetServerInfo, pb.GetServerInfoRequest())

    async def service_stats(self) -> pb.GetServiceStatsResponse:
        """What this node has done since its start, and what it holds now."""
        return await self._connection.call(self._stub.GetServiceStats, pb.GetServiceStatsRequest())

    async def health_details(self) -> pb.GetHealthDetailsResponse:
        """The health of each component, checked now."""
        return await self._connection.call(self._stub.GetHealthDetails, pb.GetHealthDetailsRequest())

    async def participants(self) -> Sequence[pb.Participant]:
        """The participants of the server's configuration, and whether they answer."""
        response = await self._connection.call(self._stub.ListParticipants, pb.ListParticipantsRequest())
        return response.participants

    async def nodes(self) -> Sequence[pb.Node]:
        """The nodes that serve the database, and the last ones of their names that do no more."""
        return (await self._connection.call(self._stub.ListNodes, pb.ListNodesRequest())).nodes

    async def drain(self, node_name: str) -> None:
        """Stop a node as SIGTERM does. Raises NotFound. Called once: asked again, it may meet the successor."""
        request = pb.DrainNodeRequest(node_name=node_name)
        await self._connection.call(self._stub.DrainNode, request, repeat=Repeat.NEVER)

    async def purge(
        self, filter: SagaFilter | None = None, *, limit: int = 0, dry_run: bool = False
    ) -> pb.PurgeSagasResponse:
        """Remove the history of ended sagas that the filter selects; their ends stay known for 90 days.

        A call whose answer is lost is not made again, since it would purge as many once more.

        Args:
            filter: of the sagas; only ended ones are purged, whatever it says.
            limit: of sagas in this call, 0-10,000; 0 means 1,000.
            dry_run: count only.
        """
        request = pb.PurgeSagasRequest(namespace=self._namespace, filter=filter, limit=limit, dry_run=dry_run)
        repeat = Repeat.SAFE if dry_run else Repeat.NEVER
        return await self._connection.call(self._stub.PurgeSagas, request, repeat=repeat)

    async def mirror_status(self, topic: str = "") -> pb.GetMirrorStatusResponse:
        """How far each lane of the journal is in Kafka, and who relays it; an empty topic means all."""
        return await self._connection.call(self._stub.GetMirrorStatus, pb.GetMirrorStatusRequest(topic=topic))

    async def resume_mirror(
        self, topic: str, start: pb.MirrorStart.ValueType, *, lanes: Sequence[int] = (), reason: str
    ) -> Sequence[int]:
        """Let lanes that stand still go on, from a place. Raises NotFound. Called once: a place may move meanwhile.

        Args:
            topic: of the mirror.
            start: behind what Kafka has, from the beginning of the journal, or from its end.
            lanes: 0-7; none means those that stand still.
            reason: 1-500 characters, for the audit log.

        Returns:
            The lanes that go on.
        """
        request = pb.ResumeMirrorRequest(topic=topic, start=start, lanes=lanes, reason=reason)
        return (await self._connection.call(self._stub.ResumeMirror, request, repeat=Repeat.NEVER)).lanes

    async def remove_mirror(self, topic: str, *, reason: str) -> None:
        """Forget that a topic has a mirror, so that no purge waits for it. Raises NotFound, FailedPrecondition."""
        request = pb.RemoveMirrorRequest(topic=topic, reason=reason)
        await self._connection.call(self._stub.RemoveMirror, request, repeat=Repeat.NEVER)

    def audit_events(
        self,
        *,
        kinds: Sequence[pb.AuditKind.ValueType] = (),
        actor: str = "",
        time_min: Timestamp | None = None,
        time_max: Timestamp | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> Pages[pb.AuditEvent]:
        """Who has changed definitions, purged, drained nodes, steered the mirror and repaired many sagas, newest first.

        Args:
            kinds: any of these; none means all.
            actor: exactly this; empty means all.
            time_min: inclusive.
            time_max: exclusive.
            page_size: 0-1,000 a page; 0 means 50.
            page_token: of the page before.
        """

        async def fetch(token: str) -> Page[pb.AuditEvent]:
            request = pb.ListAuditEventsRequest(
                namespace=self._namespace,
                kinds=kinds,
                actor=actor,
                time_min=time_min,
                time_max=time_max,
                page_size=page_size,
                page_token=token,
            )
            response = await self._connection.call(self._stub.ListAuditEvents, request)
            return Page(response.events, response.next_page_token)

        return Pages(fetch, page_token)
