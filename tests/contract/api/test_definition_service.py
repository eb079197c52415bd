"""DefinitionService: versions are checked, kept for ever as they are, switched on and off, and deleted when unused."""

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from support.definitions import definition, step
from support.scripted_participant import ScriptedParticipant
from support.server import UNREACHABLE, Server, chain, refused, running_server

from sagad.v1 import definition_service_pb2 as pb
from sagad.v1 import saga_pb2
from sagad.v1.admin_service_pb2 import PurgeSagasRequest
from sagad.v1.definition_pb2 import Definition
from sagad_server.storage.store import Store


@pytest.fixture(autouse=True)
def _implemented(participant: ScriptedParticipant) -> None:
    names = ("reserve", "charge", "ship")
    participant.implement(actions=[f"do_{n}" for n in names], compensations=[f"undo_{n}" for n in names])


async def create(server: Server, message: Definition, **fields: Any) -> pb.CreateDefinitionResponse:
    request = pb.CreateDefinitionRequest(definition=message, **fields)
    return await server.definitions.CreateDefinition(request)  # type: ignore[no-any-return]


async def get(server: Server, version: str = "", definition_id: str = "order") -> Definition:
    request = pb.GetDefinitionRequest(definition_id=definition_id, version=version)
    return (await server.definitions.GetDefinition(request)).definition  # type: ignore[no-any-return]


async def names(server: Server, **fields: Any) -> list[tuple[str, str]]:
    found = (await server.definitions.ListDefinitions(pb.ListDefinitionsRequest(**fields))).definitions
    return [(one.definition_id, one.version) for one in found]


def content(message: Definition) -> Definition:
    """Without what is not part of the immutable version."""
    copy = Definition()
    copy.CopyFrom(message)
    copy.ClearField("active")
    copy.ClearField("create_time")
    return copy


async def test_a_created_definition_is_returned_as_it_was_given(server: Server) -> None:
    given = chain("reserve", "charge", timeout="60s")
    response = await create(server, given)
    assert content(response.definition) == given
    assert response.definition.active
    assert response.definition.HasField("create_time")
    assert not response.warnings
    assert await get(server, "1.0.0") == response.definition


async def test_the_same_content_again_returns_what_is_stored(server: Server) -> None:
    first = (await create(server, chain("reserve"))).definition
    again = chain("reserve", active=False)
    again.create_time.CopyFrom(Timestamp(seconds=1))
    assert (await create(server, again)).definition == first


async def test_other_content_under_the_same_version_is_refused(server: Server) -> None:
    await create(server, chain("reserve"))
    for validate_only in (False, True):
        refusal = await refused(create(server, chain("charge"), validate_only=validate_only))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DEFINITION_EXISTS")
    assert (await get(server)).steps[0].step_id == "reserve"


async def test_validate_only_stores_nothing(server: Server) -> None:
    response = await create(server, chain("reserve"), validate_only=True)
    assert content(response.definition) == chain("reserve")
    assert response.definition.active
    assert not response.definition.HasField("create_time")
    assert await names(server) == []


async def test_every_fault_is_named_at_once_with_those_that_the_participant_knows(server: Server) -> None:
    message = definition(
        step("reserve", action="make_coffee"),
        step("reserve", participant="nobody"),
        step("charge", compensation="drink_coffee", timeout="0.5s"),
        version="one",
    )
    refusal = await refused(create(server, message, namespace="NO"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert set(refusal.violations) == {
        "namespace",
        "definition.version",
        "definition.steps[0].action",
        "definition.steps[1].step_id",
        "definition.steps[1].participant",
        "definition.steps[2].compensation",
        "definition.steps[2].timeout",
    }
    assert refusal.violations["definition.steps[0].action"] == (
        "is 'make_coffee'; known actions of participant 'inventory': do_charge, do_reserve, do_ship"
    )


async def test_more_faults_than_a_client_can_take_are_counted(server: Server) -> None:
    bad = (step(f"s{i}", name="x", description="y", action="", compensation="", timeout="0s") for i in range(100))
    refusal = await refused(create(server, definition(*bad)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(refusal.violations) > 20
    assert refusal.message.startswith("500 faults in the request: ")
    assert refusal.violations[""] == f"{501 - len(refusal.violations)} more faults: correct these first"


async def test_a_request_without_a_definition_is_invalid(server: Server) -> None:
    refusal = await refused(server.definitions.CreateDefinition(pb.CreateDefinitionRequest()))
    assert refusal.violations == {"definition": "is required"}


async def test_a_participant_that_cannot_be_reached_is_a_warning(server: Server) -> None:
    message = definition(step("reserve"), step("charge", participant=UNREACHABLE), timeout="60s")
    response = await create(server, message)
    (warning,) = response.warnings
    assert warning.startswith(f"participant '{UNREACHABLE}' did not say what it implements")
    assert "UNAVAILABLE" in warning


async def test_what_is_dangerous_is_a_warning_and_stored_all_the_same(server: Server) -> None:
    for validate_only in (True, False):
        response = await create(server, chain("reserve", "charge"), validate_only=validate_only)
        (warning,) = response.warnings
        assert warning.startswith("UNBOUNDED_WAIT definition.timeout: is not set")
    assert await names(server) == [("order", "1.0.0")]


async def test_a_bound_on_definitions_is_named(store: Store, participant: ScriptedParticipant) -> None:
    async with running_server(store, participant, validation={"max_definitions": 1}) as server:
        await create(server, chain("reserve"))
        await create(server, chain("reserve"))
        refusal = await refused(create(server, chain("reserve", version="2.0.0")))
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1" in refusal.message


async def test_without_a_version_the_one_that_a_start_would_take_is_shown(server: Server) -> None:
    for version in ("1.0.0", "1.10.0", "1.9.0", "2.0.0-rc.1"):
        await create(server, chain("reserve", version=version))
    assert (await get(server)).version == "1.10.0"
    assert (await server.start()).version == "1.10.0"
    await deactivate(server, "1.10.0")
    assert (await get(server)).version == "1.9.0"
    assert (await server.start()).version == "1.9.0"
    assert (await get(server, "2.0.0-rc.1")).version == "2.0.0-rc.1"


async def deactivate(server: Server, version: str) -> Definition:
    request = pb.DeactivateDefinitionRequest(definition_id="order", version=version)
    return (await server.definitions.DeactivateDefinition(request)).definition  # type: ignore[no-any-return]


async def test_a_deactivated_definition_starts_nothing_until_it_is_activated(server: Server) -> None:
    await create(server, chain("reserve"))
    await server.start(wait=True)
    assert not (await deactivate(server, "1.0.0")).active
    for call in (server.start(), server.start(version="1.0.0"), get(server)):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DEFINITION_INACTIVE")
    assert not (await get(server, "1.0.0")).active
    request = pb.ActivateDefinitionRequest(definition_id="order", version="1.0.0")
    assert (await server.definitions.ActivateDefinition(request)).definition.active
    assert (await server.start(wait=True)).state == saga_pb2.SAGA_STATE_SUCCEEDED


async def test_a_definition_can_be_created_inactive(server: Server) -> None:
    assert not (await create(server, chain("reserve", active=False))).definition.active
    refusal = await refused(server.start())
    assert refusal.reason == "DEFINITION_INACTIVE"


async def test_definitions_are_listed_by_id_then_newest_version_first(server: Server) -> None:
    for definition_id, version in (
        ("b", "1.0.0"),
        ("a", "1.9.0"),
        ("a", "1.10.0"),
        ("a", "2.0.0-rc.1"),
        ("a", "0.1.0"),
    ):
        await create(server, chain("reserve", definitionId=f"order-{definition_id}", version=version))
    expected = [
        ("order-a", "2.0.0-rc.1"),
        ("order-a", "1.10.0"),
        ("order-a", "1.9.0"),
        ("order-a", "0.1.0"),
        ("order-b", "1.0.0"),
    ]
    assert await names(server) == expected
    assert await names(server, definition_id="order-b") == expected[4:]
    assert await names(server, namespace="elsewhere") == []
    for page_size in (1, 2, 3, 5):
        found, token = [], ""
        while True:
            request = pb.ListDefinitionsRequest(page_size=page_size, page_token=token)
            response = await server.definitions.ListDefinitions(request)
            found += [(one.definition_id, one.version) for one in response.definitions]
            token = response.next_page_token
            if not token:
                break
        assert found == expected


async def test_only_active_definitions_are_listed_on_request(server: Server) -> None:
    await create(server, chain("reserve"))
    await create(server, chain("reserve", version="2.0.0", active=False))
    assert await names(server, active_only=True) == [("order", "1.0.0")]


async def test_a_list_refuses_a_foreign_token_and_a_wrong_size(server: Server) -> None:
    refusal = await refused(names(server, page_token="AAAA", page_size=1001, namespace="NO", definition_id="?"))
    assert set(refusal.violations) == {"page_size", "namespace", "definition_id"}
    assert set((await refused(names(server, page_token="AAAA"))).violations) == {"page_token"}


async def delete(server: Server, version: str) -> None:
    request = pb.DeleteDefinitionRequest(definition_id="order", version=version)
    await server.definitions.DeleteDefinition(request)


async def test_a_deleted_definition_is_gone(server: Server) -> None:
    await create(server, chain("reserve"))
    await delete(server, "1.0.0")
    for call in (get(server), get(server, "1.0.0"), server.start(), delete(server, "1.0.0")):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DEFINITION_NOT_FOUND")
    await create(server, chain("reserve"))
    assert [one.step_id for one in (await server.start(wait=True)).steps] == ["reserve"]


async def test_a_version_never_changes_not_even_by_way_of_its_deletion(server: Server) -> None:
    await create(server, chain("reserve"))
    await delete(server, "1.0.0")
    refusal = await refused(create(server, chain("charge")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DEFINITION_EXISTS")
    assert "another version" in refusal.message
    await create(server, chain("charge", version="1.0.1"))


async def test_a_definition_stays_while_a_saga_names_it(server: Server) -> None:
    await create(server, chain("reserve"))
    await server.start(wait=True)
    refusal = await refused(delete(server, "1.0.0"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DEFINITION_IN_USE")
    await server.admin.PurgeSagas(PurgeSagasRequest())
    await delete(server, "1.0.0")


async def test_stats_are_those_of_the_definition_or_of_one_version(server: Server) -> None:
    for version in ("1.0.0", "2.0.0"):
        await create(server, chain("reserve", version=version))
        await server.start(version=version, wait=True)
    await create(server, chain("charge", definitionId="other"))
    await server.start("other", wait=True)
    for version, total in (("", 2), ("2.0.0", 1)):
        request = pb.GetDefinitionStatsRequest(definition_id="order", version=version)
        assert (await server.definitions.GetDefinitionStats(request)).stats.total == total


async def test_an_unknown_definition_is_not_found(server: Server) -> None:
    await create(server, chain("reserve"))
    named = {"definition_id": "order", "version": "3.0.0"}
    for call in (
        server.definitions.GetDefinition(pb.GetDefinitionRequest(**named)),
        server.definitions.GetDefinition(pb.GetDefinitionRequest(definition_id="nothing")),
        server.definitions.ActivateDefinition(pb.ActivateDefinitionRequest(**named)),
        server.definitions.DeactivateDefinition(pb.DeactivateDefinitionRequest(**named)),
        server.definitions.DeleteDefinition(pb.DeleteDefinitionRequest(**named)),
        server.definitions.GetDefinitionStats(pb.GetDefinitionStatsRequest(**named)),
        server.definitions.GetDefinitionStats(pb.GetDefinitionStatsRequest(definition_id="nothing")),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DEFINITION_NOT_FOUND")


async def test_every_fault_of_a_name_is_said(server: Server) -> None:
    wrong = {"namespace": "NO", "definition_id": "?"}
    for call, version in (
        (server.definitions.GetDefinition(pb.GetDefinitionRequest(**wrong)), set()),
        (server.definitions.GetDefinition(pb.GetDefinitionRequest(**wrong, version="one")), {"version"}),
        (server.definitions.ActivateDefinition(pb.ActivateDefinitionRequest(**wrong)), {"version"}),
        (server.definitions.DeactivateDefinition(pb.DeactivateDefinitionRequest(**wrong)), {"version"}),
        (server.definitions.DeleteDefinition(pb.DeleteDefinitionRequest(**wrong)), {"version"}),
        (server.definitions.GetDefinitionStats(pb.GetDefinitionStatsRequest(**wrong)), set()),
    ):
        assert set((await refused(call)).violations) == {"namespace", "definition_id"} | version
