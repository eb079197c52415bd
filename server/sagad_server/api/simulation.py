"""SimulateDefinition: what it is asked for, and the paths of an exploration as messages."""

import asyncio
from collections.abc import Iterable

from sagad.v1 import definition_service_pb2 as pb
from sagad.v1.definition_pb2 import Definition as DefinitionMessage
from sagad_server.api.paging import MAX_PAGE_BYTES
from sagad_server.domain.checks import Bounds, shown
from sagad_server.domain.definition import Definition, compile_definition
from sagad_server.domain.example import Example
from sagad_server.domain.exploration import MAX_PATHS, Exploration
from sagad_server.domain.faults import Fault
from sagad_server.domain.lint import DefinitionWarning
from sagad_server.domain.path import Path, PathCall, reading_order
from sagad_server.domain.states import Direction
from sagad_server.domain.validation import RequestChecker
from sagad_server.engine.records import encode_failure

MAX_OUTPUTS_BYTES = 1024 * 1024
_PATHS = Bounds(0, MAX_PATHS)


def check_request(check: RequestChecker, request: pb.SimulateDefinitionRequest) -> None:
    """Notes every fault that needs no look at the definition."""
    check.namespace("namespace", request.namespace)
    check.payload("input", request.input)
    check.number("max_paths", request.max_paths, _PATHS)
    if request.HasField("definition") and (request.definition_id or request.version):
        check.fail("definition", "is given beside the name of a stored one: leave out that name, or the definition")
    elif not request.HasField("definition") and not request.definition_id:
        check.fail("definition", "is required, or else the definition_id of a stored one")


def check_outputs(check: RequestChecker, request: pb.SimulateDefinitionRequest, definition: DefinitionMessage) -> None:
    """Notes the faults of the examples of outputs."""
    size = sum(payload.ByteSize() for payload in request.outputs.values())
    if size > MAX_OUTPUTS_BYTES:
        check.fail("outputs", f"have {size:,} bytes; at most {MAX_OUTPUTS_BYTES:,} are allowed")
    step_ids = [step.step_id for step in definition.steps]
    for step_id, payload in sorted(request.outputs.items()):
        field = f"outputs[{shown(step_id)}]"
        if check.one_of(field, step_id, step_ids, "steps"):
            check.payload(field, payload)


async def simulate(request: pb.SimulateDefinitionRequest, message: DefinitionMessage) -> pb.SimulateDefinitionResponse:
    """Walks a definition without violations, with pauses in which all else goes on."""
    definition = compile_definition(message)
    example = Example(request.input if request.HasField("input") else None, dict(request.outputs))
    exploration = Exploration(definition, example, max_paths=request.max_paths or MAX_PATHS)
    response = pb.SimulateDefinitionResponse(definition=message)
    kept: list[tuple[Path, pb.SimulatedPath]] = []
    room = MAX_PAGE_BYTES
    for path in exploration.paths():
        await asyncio.sleep(0)
        if path is None:
            continue
        path_message = _path_message(definition, path)
        room -= path_message.ByteSize()
        if room >= 0 or not kept:
            kept.append((path, path_message))
        else:
            response.left_out += 1
    kept.sort(key=lambda one: reading_order(one[0]))
    response.paths.extend(path_message for _, path_message in kept)
    response.left_out += exploration.left_out
    for assumption in exploration.assumptions:
        step_id = definition.steps[assumption.step].step_id
        response.assumptions.add(step_id=step_id, field=assumption.field, missing=assumption.missing)
    return response


def warning_messages(warnings: Iterable[DefinitionWarning], unchecked: Iterable[str]) -> list[pb.DefinitionWarning]:
    """The dangers of a definition, and what is said of participants that did not answer."""
    messages = [pb.DefinitionWarning(code=one.code, field=one.field, message=one.message) for one in warnings]
    return messages + [pb.DefinitionWarning(code="PARTICIPANT_UNCHECKED", message=text) for text in unchecked]


def _path_message(definition: Definition, path: Path) -> pb.SimulatedPath:
    message = pb.SimulatedPath(
        faults=[_fault_message(definition, fault) for fault in path.faults],
        calls=[_call_message(definition, call) for call in path.calls],
        state=path.state,
        failure=encode_failure(path.failure),
    )
    for parking in path.parkings:
        assert parking.step is not None, "what parks a saga as a whole is no fault of its definition"
        message.parkings.add(
            reason=parking.reason,
            step_id=definition.steps[parking.step].step_id,
            resumes_as=parking.resumes_as,
            allowed_calls=parking.allowed_calls,
        )
    message.duration.FromMilliseconds(path.duration_ms)
    return message


def _fault_message(definition: Definition, fault: Fault) -> pb.SimulatedFault:
    return pb.SimulatedFault(
        kind=fault.kind,
        step_id="" if fault.step is None else definition.steps[fault.step].step_id,
        compensation=fault.direction is Direction.COMPENSATION,
        revision=fault.revision,
        under_way=[definition.steps[index].step_id for index in fault.under_way],
        held_off_by=fault.held_off_by,
    )


def _call_message(definition: Definition, call: PathCall) -> pb.SimulatedCall:
    return pb.SimulatedCall(
        step_id=definition.steps[call.step].step_id,
        compensation=call.direction is Direction.COMPENSATION,
        attempts=call.attempts,
        fault=call.fault,
        outcome_unknown=call.unknown,
    )
