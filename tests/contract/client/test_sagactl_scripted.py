"""sagactl against a scripted peer: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import os
import signal
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.sagactl import Sagactl
from support.scripted_peer import Peer, Refusal, Silence, event, serving, snapshot

from sagad.v1 import common_pb2, saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad.v1.admin_service_pb2 import PurgeSagasResponse

RUNNING, PARKED = saga_pb2.SAGA_STATE_RUNNING, saga_pb2.SAGA_STATE_PARKED
SUCCEEDED, COMPENSATED = saga_pb2.SAGA_STATE_SUCCEEDED, saga_pb2.SAGA_STATE_COMPENSATED


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with serving(Peer()) as peer:
        yield peer


@pytest.fixture
def sagactl(peer: Peer) -> Sagactl:
    return Sagactl(peer.address)


def got(state: saga_pb2.SagaState.ValueType = RUNNING, **fields: Any) -> pb.GetSagaResponse:
    return pb.GetSagaResponse(saga=saga_pb2.Saga(saga_id="s", state=state, **fields))


async def test_a_refusal_is_told_on_standard_error_with_every_fault_and_the_next_move(
    peer: Peer, sagactl: Sagactl
) -> None:
    faults = (("labels", "33 labels, at most 32"), ("timeout", "0.5s, at least 1s"))
    message = "2 faults in the request: labels: 33 labels, at most 32; timeout: 0.5s, at least 1s"
    peer.script = deque([Refusal("INVALID_ARGUMENT", "INVALID_REQUEST", message=message, violations=faults)])
    result = await sagactl("start", "order")
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines() == [
        "INVALID_REQUEST: 2 faults in the request",
        "  labels: 33 labels, at most 32",
        "  timeout: 0.5s, at least 1s",
    ]


async def test_a_refusal_names_what_to_do_next(peer: Peer, sagactl: Sagactl) -> None:
    peer.script = deque([Refusal("NOT_FOUND", "SAGA_NOT_FOUND", message="no saga 'x'")])
    result = await sagactl("get", "x")
    assert result.code == 1
    assert result.err.splitlines() == [
        "SAGA_NOT_FOUND: no saga 'x'",
        "Next: see what there is: sagactl list; is --namespace right?",
    ]


async def test_a_server_that_is_away_ends_with_3() -> None:
    result = await Sagactl("127.0.0.1:1")("get", "x")
    assert result.code == 3
    assert result.err.startswith("UNAVAILABLE: ")
    assert "(server 127.0.0.1:1)" in result.err


async def test_a_call_that_takes_too_long_ends_with_3(peer: Peer, sagactl: Sagactl) -> None:
    peer.script = deque([Silence()])
    result = await sagactl("get", "x", "--timeout", "200ms")
    assert result.code == 3
    assert result.err.startswith("DEADLINE_EXCEEDED: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get"], "SAGA_ID"),
        (["gte", "x"], 'Did you mean "get"?'),
        (["start", "order", "--input", "{"], "--input is no JSON"),
        (["start", "order", "--input", "@/nowhere"], "cannot read /nowhere: No such file"),
        (["start", "order", "--input", "9007199254740993"], "--input is 9007199254740993, beyond 2^53"),
        (["start", "order", "--label", "x"], "--label 'x' must be key=value"),
        (["start", "order", "--timeout", "5"], "'5' is no duration"),
        (["start", "order", "--file", "x", "--id", "y"], "leave --id and --input out"),
        (["start", "order", "--file", "/nowhere"], "--file: cannot read /nowhere"),
        (["list", "--state", "sad"], "running"),
        (["list", "--created-after", "yesterday"], "is no time"),
        (["watch", "s", "--after", "99999999999999999999"], "99999999999999999999"),
        (["get", "\udcff"], "is not UTF-8"),
        (["list", "--limit", "-1"], "Must be >= 0"),
        (["retry", "s"], "--reason"),
        (["retry", "s", "--reason", "r", "--input", "1"], "name it by --step"),
        (["retry", "--reason", "r"], "name the saga, or give --all"),
        (["retry", "s", "--reason", "r", "--all"], "either the saga s or --all"),
        (["retry", "--reason", "r", "--all", "--step", "x", "--yes"], "--step is for one saga"),
        (["abandon", "s", "--reason", "r", "--dry-run"], "belong to --all"),
        (["compensate", "s", "--state", "parked"], "belong to --all"),
        (["compensate", "--all"], "give --yes, or look first with --dry-run"),
        (["complete", "s", "t", "--token", "x"], "either --success or --failure"),
        (["definition", "apply", "/nowhere"], "/nowhere: cannot be read"),
        (["purge"], "give --yes"),
        (["get", "s", "--ca-file", "/nowhere"], "--ca-file: cannot read /nowhere"),
    ],
)
async def test_a_wrong_argument_ends_with_2_and_asks_nobody(
    peer: Peer, sagactl: Sagactl, arguments: list[str], message: str
) -> None:
    result = await sagactl(*arguments)
    assert (result.code, result.out, peer.requests) == (2, "", [])
    assert message in result.err
    assert "Traceback" not in result.err


async def test_the_faults_of_all_definition_files_are_told_at_once(tmp_path: Path, sagactl: Sagactl) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("definition_id: x\nverison: y\n")
    result = await sagactl("definition", "apply", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert result.code == 2
    assert [line.partition(" is ")[0] for line in result.err.splitlines()] == [
        f"{tmp_path}/a.yaml:2: verison",
        f"{tmp_path}/b.yaml:2: verison",
    ]


async def test_a_watch_in_a_pipe_is_one_line_an_event(peer: Peer, sagactl: Sagactl) -> None:
    failure = common_pb2.Failure(category=common_pb2.FAILURE_CATEGORY_BUSINESS, reason="NO_MONEY", message="3 < 5")
    change = saga_pb2.StepChange(step_id="charge", state=saga_pb2.STEP_STATE_REFUSED, attempt=2, failure=failure)
    refused = event(2, saga_pb2.SAGA_STATE_COMPENSATING)
    refused.event.changes.append(change)
    refused.event.cause = saga_pb2.EVENT_CAUSE_ANSWERED
    peer.script = deque([[snapshot(1), refused, Refusal("UNAVAILABLE")], [event(3, COMPENSATED)]])
    result = await sagactl("watch", "s")
    assert result.code == 4
    assert [line[0] for line in result.lines] == ["1", "2", "3"]
    assert result.lines[1][2:5] == [
        "COMPENSATING",
        "ANSWERED",
        "charge REFUSED attempt 2 (BUSINESS NO_MONEY: 3 < 5)",
    ]


@pytest.mark.parametrize(("state", "code"), [(SUCCEEDED, 0), (COMPENSATED, 4), (PARKED, 4)])
async def test_a_watch_ends_with_4_unless_the_saga_has_succeeded(
    peer: Peer, sagactl: Sagactl, state: saga_pb2.SagaState.ValueType, code: int
) -> None:
    peer.script = deque([[snapshot(1), event(2, state), Silence()]])
    assert (await sagactl("watch", "s")).code == code


async def test_a_watch_that_stays_goes_on_past_parking(peer: Peer, sagactl: Sagactl) -> None:
    peer.script = deque([[snapshot(1, PARKED), event(2), event(3, SUCCEEDED)]])
    result = await sagactl("watch", "s", "--stay")
    assert (result.code, len(result.lines)) == (0, 3)


async def test_a_watch_as_json_is_one_object_a_line(peer: Peer, sagactl: Sagactl) -> None:
    peer.script = deque([[snapshot(1), event(2, SUCCEEDED)]])
    result = await sagactl("watch", "s", "-o", "json")
    messages = [json.loads(line) for line in result.out.splitlines()]
    assert [message["revision"] for message in messages] == ["1", "2"]
    assert messages[1]["event"]["state"] == "SAGA_STATE_SUCCEEDED"


async def test_a_watch_in_a_terminal_is_a_live_table(peer: Peer, sagactl: Sagactl) -> None:
    first = snapshot(1)
    first.snapshot.steps.add(step_id="reserve", state=saga_pb2.STEP_STATE_RUNNING, attempt=1)
    peer.script = deque([[first, event(2, SUCCEEDED)]])
    result = await sagactl.in_terminal("watch", "s")
    assert result.code == 0
    assert "\x1b[" in result.out
    assert "reserve" in result.out
    assert "SUCCEEDED" in result.out


@pytest.mark.parametrize("setting", [{}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}])
async def test_there_is_no_colour_in_a_pipe(peer: Peer, sagactl: Sagactl, setting: dict[str, str]) -> None:
    peer.script = deque([got(SUCCEEDED), Refusal("NOT_FOUND", "SAGA_NOT_FOUND")])
    shown, refused = await sagactl("get", "s", **setting), await sagactl("get", "s", **setting)
    assert "\x1b" not in shown.out + shown.err + refused.out + refused.err
    assert ["state", "SUCCEEDED"] in shown.lines


async def test_no_color_is_honoured_in_a_terminal(peer: Peer, sagactl: Sagactl) -> None:
    peer.script = deque([got(SUCCEEDED), got(SUCCEEDED)])
    assert "\x1b[32m" in (await sagactl.in_terminal("get", "s")).out
    assert "\x1b[32m" not in (await sagactl.in_terminal("get", "s", NO_COLOR="1")).out


async def test_what_a_participant_writes_cannot_steer_the_terminal(peer: Peer, sagactl: Sagactl) -> None:
    failure = common_pb2.Failure(category=common_pb2.FAILURE_CATEGORY_BUSINESS, reason="X", message="\x1b[2J[red]\n\tx")
    peer.script = deque([got(SUCCEEDED, failure=failure)])
    result = await sagactl("get", "s")
    assert ["failure", "BUSINESS X: \\x1b[2J[red]\\n\\tx"] in result.lines


async def test_a_list_as_json_is_one_array_over_all_pages(peer: Peer, sagactl: Sagactl) -> None:
    def page(token: str, *ids: str) -> pb.ListSagasResponse:
        return pb.ListSagasResponse(sagas=[saga_pb2.Saga(saga_id=i) for i in ids], next_page_token=token)

    peer.script = deque([page("t", "a", "b"), page("", "c"), page("")])
    assert [saga["sagaId"] for saga in (await sagactl("list", "--limit", "0", "-o", "json")).json] == ["a", "b", "c"]
    assert (await sagactl("list", "-o", "json")).json == []


async def test_every_field_of_the_filter_is_an_option(peer: Peer, sagactl: Sagactl) -> None:
    peer.script = deque([pb.ListSagasResponse()])
    arguments = ["--state", "parked", "--state", "RUNNING", "--definition", "order", "--version", "1.0.0"]
    arguments += ["--label", "a=b", "--label", "c=d=e", "--parking-reason", "step-refused", "--category", "timeout"]
    arguments += ["--created-after", "2026-01-31", "--created-before", "2026-02-01T00:00:00+01:00"]
    arguments += ["--ended-after", "2026-01-31T12:00Z", "--ended-before", "1h", "--limit", "7"]
    assert (await sagactl("list", *arguments)).code == 0
    request = peer.requests[0]
    chosen = request.filter
    assert {field.name for field, _ in chosen.ListFields()} == set(saga_pb2.SagaFilter.DESCRIPTOR.fields_by_name)
    assert list(chosen.states) == [PARKED, RUNNING]
    assert dict(chosen.labels) == {"a": "b", "c": "d=e"}
    assert chosen.create_time_min.ToJsonString() == "2026-01-31T00:00:00Z"
    assert chosen.create_time_max.ToJsonString() == "2026-01-31T23:00:00Z"
    assert chosen.end_time_min.ToJsonString() == "2026-01-31T12:00:00Z"
    assert request.page_size == 7


async def test_an_operators_call_takes_the_revision_it_reads_unless_one_is_given(peer: Peer, sagactl: Sagactl) -> None:
    peer.script = deque([got(PARKED, revision=9), pb.RetrySagaResponse(), pb.RetrySagaResponse()])
    assert (await sagactl("retry", "s", "--reason", "mended")).code == 0
    assert (await sagactl("retry", "s", "--reason", "mended", "--revision", "4")).code == 0
    assert [(type(r).__name__, getattr(r, "revision", None)) for r in peer.requests] == [
        ("GetSagaRequest", None),
        ("RetrySagaRequest", 9),
        ("RetrySagaRequest", 4),
    ]


async def test_a_purge_goes_on_until_nothing_more_matches(peer: Peer, sagactl: Sagactl) -> None:
    peer.script = deque([PurgeSagasResponse(purged=10_000, more=True), PurgeSagasResponse(purged=5)])
    result = await sagactl("purge", "--ended-before", "30d", "--limit", "0", "--yes", "-o", "json")
    assert result.json == {"purged": 10_005, "more": False}


async def test_a_start_prints_the_saga_that_is_durable(peer: Peer, sagactl: Sagactl) -> None:
    started = pb.StartSagaResponse(saga=saga_pb2.Saga(saga_id="s", state=RUNNING))
    peer.script = deque([started, started])
    assert (await sagactl("start", "order", "--input", "-", stdin='{"a": 1}', SAGACTL_NAMESPACE="n")).lines[0] == [
        "saga",
        "s",
    ]
    shown = await sagactl("start", "order", "--timeout", "5m", "--metadata", "k=v", "-o", "json")
    assert shown.json == {"sagaId": "s", "state": "SAGA_STATE_RUNNING"}
    first, second = peer.requests
    assert (first.namespace, second.namespace) == ("n", "default")
    assert first.input.json.struct_value.fields["a"].number_value == 1
    assert second.timeout.seconds == 300


async def test_a_closed_pipe_is_quiet(peer: Peer, sagactl: Sagactl) -> None:
    sagas = [saga_pb2.Saga(saga_id=f"saga-{number}") for number in range(5_000)]
    peer.script = deque([pb.ListSagasResponse(sagas=sagas)])
    read, write = os.pipe()
    process = await sagactl.spawn("list", "--limit", "0", stdout=write)
    os.close(write)
    os.close(read)
    _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")


async def test_an_interrupt_ends_with_130_and_no_trace(peer: Peer, sagactl: Sagactl) -> None:
    peer.script = deque([[snapshot(1), Silence()]])
    process = await sagactl.spawn("watch", "s")
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")


async def test_help_documents_the_exit_codes_and_shows_examples(sagactl: Sagactl) -> None:
    for arguments in (["--help"], ["start", "--help"], ["definition", "apply", "--help"]):
        result = await sagactl(*arguments)
        assert result.code == 0
        assert "  4    the saga that was awaited or watched did not succeed" in result.out
    assert "sagactl definition apply order.yaml" in result.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_is_installed_for_each_shell(sagactl: Sagactl, tmp_path: Path, shell: str) -> None:
    script = tmp_path / "completion"
    result = await sagactl("--install-completion", "--shell", shell, "--output", str(script), HOME=str(tmp_path))
    assert result.code == 0, result.err
    assert "compensate" in script.read_text()


async def test_waiting_for_a_saga_ends_with_4_when_it_is_compensated(peer: Peer, sagactl: Sagactl) -> None:
    started = pb.StartSagaResponse(saga=saga_pb2.Saga(saga_id="s", state=RUNNING))
    peer.script = deque([started, got(revision=1), [event(2, COMPENSATED)], got(COMPENSATED, revision=2)])
    result = await sagactl("start", "order", "--wait")
    assert result.code == 4
    assert ["state", "COMPENSATED"] in result.lines


async def test_a_wait_that_lapses_ends_with_3(peer: Peer, sagactl: Sagactl) -> None:
    started = pb.StartSagaResponse(saga=saga_pb2.Saga(saga_id="s", state=RUNNING))
    peer.script = deque([started, got(revision=1), [Silence()]])
    result = await sagactl("start", "order", "--wait", "--wait-timeout", "300ms")
    assert result.code == 3
    assert "it goes on" in result.err
