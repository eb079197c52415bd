"""Calls about definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sagad.v1 import definition_service_pb2 as pb
from sagad.v1.definition_pb2 import Definition
from sagad.v1.definition_service_pb2_grpc import DefinitionServiceStub
from sagad.v1.saga_pb2 import SagaStats
from sagad_client.connection import Connection, Repeat
from sagad_client.pages import Page, Pages
from sagad_client.payloads import PayloadLike, to_payload

if TYPE_CHECKING:
    from sagad.v1.definition_service_pb2_grpc import DefinitionServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Created:
    """What `Definitions.create` returns."""

    definition: Definition
    """The definition as stored."""
    warnings: Sequence[str]
    """For people: what is dangerous in it, and participants that could not be asked for their actions."""


class Definitions:
    """Calls about definitions, as `client.definitions`. Every call raises SagadError."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace

    @cached_property
    def _stub(self) -> DefinitionServiceAsyncStub:
        return DefinitionServiceStub(self._connection.channel)

    async def create(self, definition: Definition, *, validate_only: bool = False) -> Created:
        """Store a version for ever, or only check it. The same content again returns what is stored.

        Raises:
            InvalidArgument: `violations` lists every fault by field path. AlreadyExists: that version has other
            content. ResourceExhausted: too many definitions or steps.
        """
        request = pb.CreateDefinitionRequest(
            namespace=self._namespace, definition=definition, validate_only=validate_only
        )
        response = await self._connection.call(self._stub.CreateDefinition, request)
        return Created(response.definition, tuple(response.warnings))

    async def get(self, definition_id: str, version: str = "") -> Definition:
        """One version; an empty one means that which a start would take. Raises NotFound."""
        request = pb.GetDefinitionRequest(namespace=self._namespace, definition_id=definition_id, version=version)
        return (await self._connection.call(self._stub.GetDefinition, request)).definition

    def list(
        self, definition_id: str = "", *, active_only: bool = False, page_size: int = 0, page_token: str = ""
    ) -> Pages[Definition]:
        """Versions by definition_id, then newest first. page_size is 0-1,000 a page; 0 means 50."""

        async def fetch(token: str) -> Page[Definition]:
            request = pb.ListDefinitionsRequest(
                namespace=self._namespace,
                definition_id=definition_id,
                active_only=active_only,
                page_size=page_size,
                page_token=token,
            )
            response = await self._connection.call(self._stub.ListDefinitions, request)
            return Page(response.definitions, response.next_page_token)

        return Pages(fetch, page_token)

    async def activate(self, definition_id: str, version: str) -> Definition:
        """Let new sagas start. Raises NotFound."""
        request = pb.ActivateDefinitionRequest(namespace=self._namespace, definition_id=definition_id, version=version)
        return (await self._connection.call(self._stub.ActivateDefinition, request)).definition

    async def deactivate(self, definition_id: str, version: str) -> Definition:
        """Let no new saga start; those that run go on. Raises NotFound."""
        request = pb.DeactivateDefinitionRequest(
            namespace=self._namespace, definition_id=definition_id, version=version
        )
        return (await self._connection.call(self._stub.DeactivateDefinition, request)).definition

    async def delete(self, definition_id: str, version: str) -> None:
        """Remove a version. Raises NotFound; FailedPrecondition where a saga still names it."""
        request = pb.DeleteDefinitionRequest(namespace=self._namespace, definition_id=definition_id, version=version)
        await self._connection.call(self._stub.DeleteDefinition, request, repeat=Repeat.GUARDED)

    async def stats(self, definition_id: str, version: str = "") -> SagaStats:
        """How many sagas the definition has, by state; over all versions where none is given. Raises NotFound."""
        request = pb.GetDefinitionStatsRequest(namespace=self._namespace, definition_id=definition_id, version=version)
        return (await self._connection.call(self._stub.GetDefinitionStats, request)).stats

    async def simulate(
        self,
        definition: Definition | str,
        version: str = "",
        *,
        input: PayloadLike = None,  # noqa: A002
        outputs: Mapping[str, PayloadLike] | None = None,
        max_paths: int = 0,
    ) -> pb.SimulateDefinitionResponse:
        """Walk through the failure paths of a definition, and see what is dangerous in it. Nobody is called.

        Args:
            definition: itself, or the id of a stored one.
            version: of the stored one; empty means that which a start would take.
            input: an example of a saga's input, for the expressions.
            outputs: examples of steps' outputs by step_id, for the expressions.
            max_paths: 0-1,000; 0 means 1,000.

        Raises:
            InvalidArgument: `violations` lists every fault by field path. NotFound: no such definition.
        """
        request = pb.SimulateDefinitionRequest(
            namespace=self._namespace, version=version, input=to_payload(input), max_paths=max_paths
        )
        if isinstance(definition, str):
            request.definition_id = definition
        else:
            request.definition.CopyFrom(definition)
        for step_id, value in (outputs or {}).items():
            output = to_payload(value, f"outputs[{step_id!r}]")
            if output is not None:
                request.outputs[step_id].CopyFrom(output)
        return await self._connection.call(self._stub.SimulateDefinition, request)
