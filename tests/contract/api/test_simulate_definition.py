"""SimulateDefinition: the failure paths of a definition, stored or not, and what is dangerous in it."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from support.definitions import definition, pivot, retriable, step
from support.scripted_participant import ScriptedParticipant, json_payload
from support.server import UNREACHABLE, Server, chain, refused

from sagad.v1 import definition_service_pb2 as pb
from sagad.v1 import saga_pb2
from sagad.v1.common_pb2 import Payload

NAMES = ("reserve", "charge", "ship")
PIVOT = definition(
    step("reserve", maxRetries=0),
    pivot("charge", maxRetries=1),
    retriable("ship", input="input.address"),
    timeout="60s",
)


@pytest.fixture(autouse=True)
def _implemented(participant: ScriptedParticipant) -> None:
    participant.implement(actions=[f"do_{n}" for n in NAMES], compensations=[f"undo_{n}" for n in NAMES])


async def simulate(server: Server, **fields: Any) -> pb.SimulateDefinitionResponse:
    request = pb.SimulateDefinitionRequest(**fields)
    return await server.definitions.SimulateDefinition(request)  # type: ignore[no-any-return]


def shown(path: pb.SimulatedPath) -> dict[str, Any]:
    return json_format.MessageToDict(path)


def faults(response: pb.SimulateDefinitionResponse) -> list[list[tuple[str, str]]]:
    kinds = pb.FaultKind
    return [
        [(kinds.Name(fault.kind).removeprefix("FAULT_KIND_"), fault.step_id) for fault in path.faults]
        for path in response.paths
    ]


async def test_the_paths_of_a_definition_that_is_not_stored_are_walked(server: Server) -> None:
    response = await simulate(server, definition=PIVOT)
    assert response.definition == PIVOT
    assert response.left_out == 0
    assert faults(response)[:3] == [[], [("REFUSED", "reserve")], [("TIMED_OUT", "reserve")]]
    by_fault = {tuple(fault): path for fault, path in zip(faults(response), response.paths, strict=True)}
    assert shown(by_fault[()]) == {
        "calls": [{"stepId": name, "attempts": 1} for name in NAMES],
        "state": "SAGA_STATE_SUCCEEDED",
        "duration": "0s",
    }
    assert shown(by_fault[("TIMED_OUT", "reserve"), ("REFUSED", "reserve")]) == {
        "faults": [
            {"kind": "FAULT_KIND_TIMED_OUT", "stepId": "reserve"},
            {"kind": "FAULT_KIND_REFUSED", "stepId": "reserve", "compensation": True},
        ],
        "calls": [
            {"stepId": "reserve", "attempts": 1, "fault": "FAULT_KIND_TIMED_OUT"},
            {
                "stepId": "reserve",
                "compensation": True,
                "attempts": 1,
                "fault": "FAULT_KIND_REFUSED",
                "outcomeUnknown": True,
            },
        ],
        "state": "SAGA_STATE_PARKED",
        "parkings": [
            {
                "reason": "PARKING_REASON_COMPENSATION_REFUSED",
                "stepId": "reserve",
                "resumesAs": "SAGA_STATE_COMPENSATING",
                "allowedCalls": ["RetrySaga", "SkipStep", "CompleteStep", "AbandonSaga"],
            }
        ],
        "failure": {
            "category": "FAILURE_CATEGORY_TIMEOUT",
            "reason": "DEADLINE_EXCEEDED",
            "message": "the participant does not answer in time",
            "stepId": "reserve",
        },
        "duration": "0s",
    }
    assert shown(by_fault[(("COMPENSATE_CALLED", ""),)])["faults"][0]["heldOffBy"] == "PAST_PIVOT"
    stored = pb.ListDefinitionsRequest()
    assert not (await server.definitions.ListDefinitions(stored)).definitions
    assert server.participant.calls == []


async def test_a_stored_definition_is_walked_by_its_name(server: Server) -> None:
    for version in ("1.0.0", "2.0.0"):
        await server.create(chain("reserve", version=version))
    assert (await simulate(server, definition_id="order")).definition.version == "2.0.0"
    response = await simulate(server, definition_id="order", version="1.0.0")
    assert response.definition.version == "1.0.0"
    inline = await simulate(server, definition=chain("reserve"))
    assert (response.paths, response.warnings) == (inline.paths, inline.warnings)


async def test_an_unknown_definition_is_not_found(server: Server) -> None:
    refusal = await refused(simulate(server, definition_id="nothing"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DEFINITION_NOT_FOUND")


async def test_expressions_are_evaluated_with_the_examples_and_assumed_without(server: Server) -> None:
    message = definition(step("reserve"), step("charge", when="input.paid && steps.reserve.output.ok"), timeout="60s")
    (assumption,) = (await simulate(server, definition=message)).assumptions
    assert (assumption.step_id, assumption.field) == ("charge", "when")
    assert assumption.missing == ["input", "steps.reserve.output"]
    example = {"input": json_payload({"paid": True}), "outputs": {"reserve": json_payload({"ok": False})}}
    response = await simulate(server, definition=message, **example)
    assert not response.assumptions
    assert [call.step_id for call in response.paths[0].calls] == ["reserve"]
    example = {"input": json_payload({}), "outputs": {"reserve": json_payload({"ok": True})}}
    failed = (await simulate(server, definition=message, **example)).paths[0]
    assert (failed.state, failed.failure.reason) == (saga_pb2.SAGA_STATE_COMPENSATED, "EXPRESSION_FAILED")


async def test_the_answer_is_bounded_and_says_what_is_left_out(server: Server) -> None:
    response = await simulate(server, definition=PIVOT, max_paths=3)
    assert len(response.paths) == 3
    assert response.left_out > 10
    assert not response.paths[0].faults
    server.participant.implement(actions=["act"], compensations=["undo"])
    ids = [f"s{number}".ljust(100, "x") for number in range(100)]
    message = definition(
        *(step(name, name="Long", description="A long step", action="act", compensation="undo") for name in ids)
    )
    largest = await simulate(server, definition=message)
    assert largest.ByteSize() < 3 * 1024 * 1024
    assert largest.left_out > 1000


async def test_dangers_are_told_with_code_and_place(server: Server) -> None:
    message = definition(step("reserve", retry={"retryFor": "30s"}), step("charge", participant=UNREACHABLE))
    warnings = (await simulate(server, definition=message)).warnings
    assert [(one.code, one.field) for one in warnings] == [
        ("UNBOUNDED_WAIT", "definition.timeout"),
        ("SHORT_RETRY_FOR", "definition.steps[0].retry.retry_for"),
        ("PARTICIPANT_UNCHECKED", ""),
    ]
    assert all(one.message for one in warnings)
    created = await server.definitions.CreateDefinition(pb.CreateDefinitionRequest(definition=message))
    assert list(created.warnings) == [f"{one.code} {one.field}: {one.message}" for one in warnings[:2]] + [
        warnings[2].message
    ]


async def test_faults_are_those_of_create_definition(server: Server) -> None:
    message = definition(step("reserve", action="make_coffee"), step("reserve"), version="one")
    refusal = await refused(simulate(server, definition=message, namespace="NO"))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    created = pb.CreateDefinitionRequest(definition=message, namespace="NO")
    assert refusal == await refused(server.definitions.CreateDefinition(created))


async def test_every_fault_of_the_request_itself_is_named(server: Server) -> None:
    big = json_payload("x" * 300_000)
    fields = {"definition_id": "order", "input": big, "outputs": {"x": big}, "max_paths": 1001}
    refusal = await refused(simulate(server, definition=chain("reserve"), **fields))
    assert set(refusal.violations) == {"definition", "input", "outputs['x']", "max_paths"}
    assert set((await refused(simulate(server))).violations) == {"definition"}
    assert set((await refused(simulate(server, definition_id="?", version="one"))).violations) == {
        "definition_id",
        "version",
    }
    ids = [f"s{number}" for number in range(5)]
    outputs = {name: Payload(data=b"x" * 262_000) for name in ids}
    five = definition(*(step(name, action="do_ship", compensation="undo_ship") for name in ids))
    refusal = await refused(simulate(server, definition=five, outputs=outputs))
    assert set(refusal.violations) == {"outputs"}


async def test_sagas_go_on_while_a_large_definition_is_walked(server: Server) -> None:
    await server.create(chain("reserve"))
    server.participant.implement(actions=["do_reserve", "act"], compensations=["undo_reserve", "undo"])
    large = definition(*(step(f"s{i}", action="act", compensation="undo") for i in range(100)))
    walked = asyncio.ensure_future(simulate(server, definition=large))
    sagas = 0
    while not walked.done():
        assert (await server.start(wait=True)).state == saga_pb2.SAGA_STATE_SUCCEEDED
        sagas += 1
    assert sagas >= 5
    assert len((await walked).paths) == 1000
