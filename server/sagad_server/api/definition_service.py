"""DefinitionService: keeps the recipes."""

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Protocol

from sagad.v1 import definition_pb2
from sagad.v1 import definition_service_pb2 as pb
from sagad.v1.definition_service_pb2_grpc import DefinitionServiceServicer
from sagad_server.api.auditing import by_caller
from sagad_server.api.conversions import definition_body, definition_message, stats_message
from sagad_server.api.describing import Answers, Describer, check_implemented, describe_all, unchecked
from sagad_server.api.interceptor import Context
from sagad_server.api.paging import Page, Pages
from sagad_server.api.simulation import check_outputs, check_request, simulate, warning_messages
from sagad_server.api.steering import DEFAULT_NAMESPACE
from sagad_server.domain.definition import version_key
from sagad_server.domain.errors import AlreadyExists, NotFound
from sagad_server.domain.lint import definition_warnings
from sagad_server.domain.validation import RequestChecker, ValidationLimits, definition_violations
from sagad_server.engine.definitions import Definitions
from sagad_server.storage.audit import AuditEntry, AuditKind
from sagad_server.storage.definitions import StoredDefinition
from sagad_server.storage.lists import MOST_ENDED, MOST_SCANNED_ENDED
from sagad_server.storage.selection import SagaFilter
from sagad_server.storage.store import Store

_Position = tuple[str, str]
"""(definition_id, version)"""


class _VersionRequest(Protocol):
    @property
    def namespace(self) -> str: ...
    @property
    def definition_id(self) -> str: ...
    @property
    def version(self) -> str: ...


class DefinitionService(DefinitionServiceServicer):
    """All calls about definitions. `participants` are the names that the configuration knows."""

    def __init__(
        self,
        store: Store,
        definitions: Definitions,
        describer: Describer,
        participants: Collection[str],
        limits: ValidationLimits,
    ) -> None:
        self._store = store
        self._definitions = definitions
        self._describer = describer
        self._participants = frozenset(participants)
        self._limits = limits
        self._simulating = asyncio.Lock()
        """One at a time, so that sagas have the rest of the processor."""

    async def CreateDefinition(
        self, request: pb.CreateDefinitionRequest, context: Context
    ) -> pb.CreateDefinitionResponse:
        check = RequestChecker(self._limits)
        check.namespace("namespace", request.namespace)
        if not request.HasField("definition"):
            check.fail("definition", "is required")
            check.raise_if_any()
        answers = await self._check_definition(check, request.definition)
        check.raise_if_any()
        wanted = _to_store(request)
        if request.validate_only:
            stored = await self._store.get_definition(wanted.namespace, wanted.definition_id, wanted.version)
        else:
            name = (wanted.namespace, wanted.definition_id, wanted.version)
            audit = _audit(AuditKind.DEFINITION_CREATED, *name)
            limits = self._limits
            stored = await self._store.create_definition(wanted, limits.max_definitions, limits.max_steps, audit=audit)
            self._definitions.changed(stored)
        if stored is not None and not _same_content(stored, wanted):
            raise AlreadyExists(
                f"definition {wanted.definition_id!r} {wanted.version} exists with other content, which never changes: "
                "give the new content another version",
                reason="DEFINITION_EXISTS",
            )
        message = definition_message(stored or wanted)
        if stored is None:
            message.ClearField("create_time")
        warnings = [str(warning) for warning in definition_warnings(request.definition)]
        return pb.CreateDefinitionResponse(definition=message, warnings=warnings + unchecked(answers))

    async def _check_definition(self, check: RequestChecker, definition: definition_pb2.Definition) -> Answers:
        """Notes every fault, also those that the participants know, and returns what they said."""
        check.violations += definition_violations(definition, self._limits, participants=self._participants)
        named = {step.participant for step in definition.steps}
        answers = await describe_all(self._describer, named & self._participants)
        check_implemented(check, definition, answers)
        return answers

    async def GetDefinition(self, request: pb.GetDefinitionRequest, context: Context) -> pb.GetDefinitionResponse:
        return pb.GetDefinitionResponse(definition=await self._get(request))

    async def _get(self, request: _VersionRequest) -> definition_pb2.Definition:
        namespace, definition_id, version = self._name(request, version_required=False)
        if not version:
            version = await self._definitions.choose(namespace, definition_id, "")
        stored = await self._store.get_definition(namespace, definition_id, version)
        return _found(stored, definition_id, version)

    async def ListDefinitions(self, request: pb.ListDefinitionsRequest, context: Context) -> pb.ListDefinitionsResponse:
        check = RequestChecker(self._limits)
        check.namespace("namespace", request.namespace)
        if request.definition_id:
            check.definition_id("definition_id", request.definition_id)
        check.page(request.page_size, request.page_token)
        check.raise_if_any()
        namespace = request.namespace or DEFAULT_NAMESPACE
        pages = Pages("ListDefinitions", namespace, request.definition_id, str(request.active_only))
        after = pages.position(request.page_token, _read_position)
        response = pb.ListDefinitionsResponse()
        page = Page(request.page_size)
        for stored in _ordered(await self._store.list_definitions(namespace, request.definition_id)):
            if (request.active_only and not stored.active) or not _is_behind(stored, after):
                continue
            message = definition_message(stored)
            if not page.take(message):
                last = response.definitions[-1]
                response.next_page_token = pages.token(f"{last.definition_id} {last.version}")
                break
            response.definitions.append(message)
        return response

    async def ActivateDefinition(
        self, request: pb.ActivateDefinitionRequest, context: Context
    ) -> pb.ActivateDefinitionResponse:
        return pb.ActivateDefinitionResponse(definition=await self._set_active(request, active=True))

    async def DeactivateDefinition(
        self, request: pb.DeactivateDefinitionRequest, context: Context
    ) -> pb.DeactivateDefinitionResponse:
        return pb.DeactivateDefinitionResponse(definition=await self._set_active(request, active=False))

    async def _set_active(self, request: _VersionRequest, *, active: bool) -> definition_pb2.Definition:
        namespace, definition_id, version = self._name(request)
        kind = AuditKind.DEFINITION_ACTIVATED if active else AuditKind.DEFINITION_DEACTIVATED
        audit = _audit(kind, namespace, definition_id, version)
        stored = await self._store.set_definition_active(namespace, definition_id, version, active=active, audit=audit)
        if stored is not None:
            self._definitions.changed(stored)
        return _found(stored, definition_id, version)

    async def DeleteDefinition(
        self, request: pb.DeleteDefinitionRequest, context: Context
    ) -> pb.DeleteDefinitionResponse:
        namespace, definition_id, version = self._name(request)
        try:
            audit = _audit(AuditKind.DEFINITION_DELETED, namespace, definition_id, version)
            deleted = await self._store.delete_definition(namespace, definition_id, version, audit=audit)
        finally:  # whatever came of it, it is asked for anew
            self._definitions.deleted(namespace, definition_id, version)
        if not deleted:
            raise _not_found(definition_id, version)
        return pb.DeleteDefinitionResponse()

    async def GetDefinitionStats(
        self, request: pb.GetDefinitionStatsRequest, context: Context
    ) -> pb.GetDefinitionStatsResponse:
        namespace, definition_id, version = self._name(request, version_required=False)
        versions = await self._store.list_definitions(namespace, definition_id)
        if not any(version in ("", one.version) for one in versions):
            raise _not_found(definition_id, version)
        selection = SagaFilter(definition_id=definition_id, version=version)
        stats = await self._store.stats(namespace, selection, MOST_ENDED, MOST_SCANNED_ENDED)
        return pb.GetDefinitionStatsResponse(stats=stats_message(stats))

    async def SimulateDefinition(
        self, request: pb.SimulateDefinitionRequest, context: Context
    ) -> pb.SimulateDefinitionResponse:
        check = RequestChecker(self._limits)
        check_request(check, request)
        answers: Answers = {}
        if request.HasField("definition"):
            definition = request.definition
            answers = await self._check_definition(check, definition)
        else:
            check.raise_if_any()
            definition = await self._get(request)
        check_outputs(check, request, definition)
        check.raise_if_any()
        async with self._simulating:
            response = await simulate(request, definition)
        example_input = request.input if request.HasField("input") else None
        warnings = definition_warnings(definition, example_input)
        response.warnings.extend(warning_messages(warnings, unchecked(answers)))
        return response

    def _name(self, request: _VersionRequest, *, version_required: bool = True) -> tuple[str, str, str]:
        """The (namespace, definition_id, version) of a request. Raises InvalidArgument."""
        check = RequestChecker(self._limits)
        check.namespace("namespace", request.namespace)
        check.definition_id("definition_id", request.definition_id)
        if request.version or version_required:
            check.version("version", request.version)
        check.raise_if_any()
        return request.namespace or DEFAULT_NAMESPACE, request.definition_id, request.version


def _to_store(request: pb.CreateDefinitionRequest) -> StoredDefinition:
    definition = request.definition
    return StoredDefinition(
        namespace=request.namespace or DEFAULT_NAMESPACE,
        definition_id=definition.definition_id,
        version=definition.version,
        active=definition.active if definition.HasField("active") else True,
        step_count=len(definition.steps),
        create_time=datetime.now(UTC),
        body=definition_body(definition),
    )


def _same_content(stored: StoredDefinition, wanted: StoredDefinition) -> bool:
    """Stored bytes may be those of an older protobuf, so they are made anew."""
    return definition_body(definition_pb2.Definition.FromString(stored.body)) == wanted.body


def _ordered(versions: list[StoredDefinition]) -> list[StoredDefinition]:
    """By definition_id, then newest version first."""
    versions = sorted(versions, key=lambda one: version_key(one.version), reverse=True)
    return sorted(versions, key=lambda one: one.definition_id)


def _is_behind(stored: StoredDefinition, after: _Position | None) -> bool:
    if after is None or stored.definition_id != after[0]:
        return after is None or stored.definition_id > after[0]
    return version_key(stored.version) < version_key(after[1])


def _read_position(text: str) -> _Position:
    definition_id, _, version = text.partition(" ")
    version_key(version)  # raises ValueError
    return definition_id, version


def _found(stored: StoredDefinition | None, definition_id: str, version: str) -> definition_pb2.Definition:
    if stored is None:
        raise _not_found(definition_id, version)
    return definition_message(stored)


def _not_found(definition_id: str, version: str) -> NotFound:
    name = f"{definition_id!r} {version}" if version else repr(definition_id)
    return NotFound(f"there is no definition {name}", reason="DEFINITION_NOT_FOUND")


def _audit(kind: AuditKind, namespace: str, definition_id: str, version: str) -> AuditEntry:
    return by_caller(kind, f"{definition_id} {version}", namespace=namespace)
