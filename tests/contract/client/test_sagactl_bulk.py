"""sagactl start --file: many sagas, against a peer that counts."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import signal
import sys
import termios
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.chaos.waiting import until
from support.sagactl import Sagactl
from support.scripted_peer import Peer, Refusal, serving

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb

Answer = Callable[[pb.StartSagaRequest], Refusal | None]


@dataclass
class Counting(Peer):
    """Starts every saga, unless `refuse` has something against it; answers `rank` of them at a time, no fewer."""

    refuse: Answer = lambda request: None
    rank: int = 1
    there: frozenset[str] = frozenset()
    """Sagas that were there already."""
    most_unanswered: int = 0
    seen: list[pb.StartSagaRequest] = field(default_factory=list)

    async def StartSagas(self, messages: Any, context: Any) -> AsyncIterator[pb.StartSagasResponse]:
        unanswered: list[pb.StartSagaRequest] = []
        async for message in messages:
            self.seen += message.sagas
            unanswered += message.sagas
            self.most_unanswered = max(self.most_unanswered, len(unanswered))
            if len(unanswered) >= self.rank:
                yield pb.StartSagasResponse(results=[self._result(request) for request in unanswered])
                unanswered.clear()

    def _result(self, request: pb.StartSagaRequest) -> pb.StartSagasResult:
        refusal = self.refuse(request)
        if refusal is not None:
            return pb.StartSagasResult(saga_id=request.saga_id, error=refusal.message_status())
        state = saga_pb2.SAGA_STATE_SUCCEEDED if request.wait else saga_pb2.SAGA_STATE_RUNNING
        saga = saga_pb2.Saga(saga_id=request.saga_id, state=state)
        return pb.StartSagasResult(saga_id=request.saga_id, saga=saga, created=request.saga_id not in self.there)


@pytest.fixture
async def peer() -> AsyncIterator[Counting]:
    async with serving(Counting()) as peer:
        assert isinstance(peer, Counting)
        yield peer


@pytest.fixture
def sagactl(peer: Counting) -> Sagactl:
    return Sagactl(peer.address)


def written(path: Path, *lines: Any) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def orders(path: Path, count: int) -> str:
    lines = ({"saga_id": f"order-{n}", "input": {"n": n}, "labels": {"line": str(n)}} for n in range(count))
    return written(path, *lines)


async def test_each_line_starts_one_saga_with_its_input_and_labels(
    peer: Counting, sagactl: Sagactl, tmp_path: Path
) -> None:
    file = orders(tmp_path / "orders.jsonl", 3)
    arguments = ("start", "order", "--file", file, "--version", "1.0.0", "--label", "batch=7", "--timeout", "5m")
    result = await sagactl(*arguments, "--concurrency", "1", "-o", "json")
    assert result.code == 0, result.err
    assert result.json == {"sagas": 3, "existed": 0, "states": {"RUNNING": 3}, "refused": []}
    assert [request.saga_id for request in peer.seen] == ["order-0", "order-1", "order-2"]
    request = peer.seen[2]
    assert request.input.json.struct_value.fields["n"].number_value == 2
    assert dict(request.labels) == {"batch": "7", "line": "2"}
    assert (request.definition_id, request.version, request.timeout.seconds) == ("order", "1.0.0", 300)


async def test_the_same_command_again_asks_for_the_very_same_sagas(
    peer: Counting, sagactl: Sagactl, tmp_path: Path
) -> None:
    file = orders(tmp_path / "orders.jsonl", 5)
    for _ in range(2):
        assert (await sagactl("start", "order", "--file", file, "--concurrency", "1")).code == 0
    assert peer.seen[:5] == peer.seen[5:]


async def test_what_was_there_already_is_counted(peer: Counting, sagactl: Sagactl, tmp_path: Path) -> None:
    peer.there = frozenset({"order-0", "order-3"})
    file = orders(tmp_path / "orders.jsonl", 5)
    counted = await sagactl("start", "order", "--file", file, "-o", "json")
    assert counted.json == {"sagas": 5, "existed": 2, "states": {"RUNNING": 5}, "refused": []}
    shown = (await sagactl("start", "order", "--file", file)).out
    assert re.search(r"there already\W+2\b", shown), shown


async def test_no_more_starts_are_unanswered_than_was_said(tmp_path: Path) -> None:
    async with serving(Counting(rank=64)) as peer:
        result = await Sagactl(peer.address)(
            "start", "order", "--file", orders(tmp_path / "orders.jsonl", 192), "--concurrency", "64"
        )
    assert isinstance(peer, Counting)
    assert (result.code, len(peer.seen), peer.most_unanswered) == (0, 192, 64)


async def test_a_refused_line_is_named_and_the_others_are_started(
    peer: Counting, sagactl: Sagactl, tmp_path: Path
) -> None:
    taken = Refusal("ALREADY_EXISTS", "SAGA_EXISTS", message="saga 'order-1' has other content")
    peer.refuse = lambda request: taken if request.saga_id == "order-1" else None
    result = await sagactl("start", "order", "--file", orders(tmp_path / "orders.jsonl", 4), "-o", "json")
    assert result.code == 1
    assert result.json["states"] == {"RUNNING": 3}
    assert [(line["line"], line["sagaId"], line["reason"]) for line in result.json["refused"]] == [
        (2, "order-1", "SAGA_EXISTS")
    ]
    assert "line 2, saga order-1: ALREADY_EXISTS SAGA_EXISTS: saga 'order-1' has other content" in result.err


async def test_a_server_that_goes_away_ends_it_with_3_and_says_how_to_go_on(
    peer: Counting, sagactl: Sagactl, tmp_path: Path
) -> None:
    away = Refusal("UNAVAILABLE", "DRAINING", retry_after_s=600.0)
    peer.refuse = lambda request: away if request.saga_id == "order-2" else None
    file = orders(tmp_path / "orders.jsonl", 1000)
    result = await sagactl("start", "order", "--file", file, "--concurrency", "1")
    assert result.code == 3
    assert "stopped after 2 of 1000 sagas; the same command again goes on" in result.err
    assert "DRAINING: scripted" in result.err
    assert len(peer.seen) == 3


async def test_a_file_that_is_refused_line_for_line_is_given_up(
    peer: Counting, sagactl: Sagactl, tmp_path: Path
) -> None:
    peer.refuse = lambda request: Refusal("NOT_FOUND", "DEFINITION_NOT_FOUND", message="there is no definition 'odrer'")
    file = orders(tmp_path / "orders.jsonl", 1500)
    result = await sagactl("start", "odrer", "--file", file, "--concurrency", "64")
    assert result.code == 1
    assert 1000 <= len(peer.seen) <= 1000 + 64
    assert "stopped after 0 of 1500 sagas" in result.err
    assert result.err.count("there is no definition 'odrer'") == 20


async def test_waiting_for_a_file_waits_for_every_saga(peer: Counting, sagactl: Sagactl, tmp_path: Path) -> None:
    result = await sagactl("start", "order", "--wait", "--file", orders(tmp_path / "orders.jsonl", 3), "-o", "json")
    assert (result.code, result.json["states"]) == (0, {"SUCCEEDED": 3})


async def test_nothing_is_started_of_a_file_that_is_wrong_anywhere(
    peer: Counting, sagactl: Sagactl, tmp_path: Path
) -> None:
    path = tmp_path / "orders.jsonl"
    lines = [
        '{"saga_id": "a"}',
        '{"saga_id": ',
        '{"input": 1}',
        "",
        '{"saga_id": "b", "inptu": 1}',
        '{"saga_id": "c", "labels": {"n": 1}}',
        '{"saga_id": "d", "input": 9007199254740993}',
        "[]",
    ]
    path.write_text("\n".join(lines))
    result = await sagactl("start", "order", "--file", str(path))
    assert (result.code, peer.seen) == (2, [])
    assert [line.removeprefix(f"{path}:")[:34] for line in result.err.splitlines()] == [
        "2: is no JSON: Expecting value: li",
        "3: saga_id must be a string: it is",
        "5: unknown key 'inptu': there are ",
        "6: labels must be an object with s",
        "7: input is 9007199254740993, beyo",
        '8: must be an object, such as {"sa',
    ]


async def test_a_file_without_lines_is_refused(sagactl: Sagactl, tmp_path: Path) -> None:
    result = await sagactl("start", "order", "--file", written(tmp_path / "orders.jsonl"))
    assert (result.code, "has no lines" in result.err) == (2, True)


async def test_a_terminal_shows_a_progress_bar_and_a_pipe_does_not(sagactl: Sagactl, tmp_path: Path) -> None:
    file = orders(tmp_path / "orders.jsonl", 10)
    shown = await sagactl.in_terminal("start", "order", "--file", file)
    assert (shown.code, "10/10" in shown.out) == (0, True)
    piped = await sagactl("start", "order", "--file", file)
    assert piped.err == ""
    assert ["sagas", "10"] in piped.lines


async def test_without_a_definition_each_line_is_a_whole_request(
    peer: Counting, sagactl: Sagactl, tmp_path: Path
) -> None:
    lines = [
        {"sagaId": "a", "definitionId": "order", "input": {"json": {"n": 1}}, "timeout": "60s"},
        {"saga_id": "b", "definition_id": "refund", "version": "2.0.0", "metadata": {"trace": "7"}},
    ]
    result = await sagactl("start", "--file", written(tmp_path / "orders.jsonl", *lines), "-o", "json")
    assert (result.code, result.json["sagas"]) == (0, 2), result.err
    first, second = peer.seen
    assert (first.definition_id, first.timeout.seconds) == ("order", 60)
    assert first.input.json.struct_value.fields["n"].number_value == 1
    assert (second.definition_id, second.version, dict(second.metadata)) == ("refund", "2.0.0", {"trace": "7"})


async def test_faults_of_whole_requests_are_told_with_their_lines_before_anything_is_started(
    peer: Counting, sagactl: Sagactl, tmp_path: Path
) -> None:
    lines = [
        {"sagaId": "a", "definitionId": "order"},
        {"definitionId": "order"},
        {"sagaId": "b"},
        {"sagaId": "c", "definitionId": "order", "inptu": 1},
        {"sagaId": "d", "definitionId": "order", "namespace": "other"},
    ]
    path = tmp_path / "orders.jsonl"
    result = await sagactl("start", "--file", written(path, *lines))
    assert (result.code, peer.seen) == (2, [])
    faults = [line.removeprefix(f"{path}:")[:20] for line in result.err.splitlines() if line.startswith(str(path))]
    assert faults == ["2: saga_id must be a", "3: definition_id mus", "4: is no StartSagaRe", "5: namespace is of t"]


async def test_options_about_all_sagas_need_a_definition(sagactl: Sagactl, tmp_path: Path) -> None:
    assert (await sagactl("start", "--file", orders(tmp_path / "orders.jsonl", 1), "--label", "a=b")).code == 2
    assert (await sagactl("start")).code == 2


async def test_lines_come_from_standard_input_a_pipe_or_a_file(
    peer: Counting, sagactl: Sagactl, tmp_path: Path
) -> None:
    lines = "".join(f'{{"saga_id": "order-{n}"}}\n' for n in range(3))
    by_pipe = await sagactl("start", "order", "--file", "-", "-o", "json", stdin=lines)
    assert by_pipe.code == 0, by_pipe.err
    file = os.open(orders(tmp_path / "orders.jsonl", 3), os.O_RDONLY)
    process = await sagactl.spawn("start", "order", "--file", "-", "-o", "json", stdin=file)
    os.close(file)
    out, err = await process.communicate()
    assert process.returncode == 0, err
    assert by_pipe.json == json.loads(out) == {"sagas": 3, "existed": 0, "states": {"RUNNING": 3}, "refused": []}
    assert [request.saga_id for request in peer.seen] == 2 * ["order-0", "order-1", "order-2"]


async def test_a_fault_in_standard_input_is_told_by_its_line_and_nothing_is_started(
    peer: Counting, sagactl: Sagactl
) -> None:
    result = await sagactl("start", "order", "--file", "-", stdin='{"saga_id": "a"}\nnonsense\n')
    assert result.code == 2
    assert "-:2: is no JSON" in result.err
    assert peer.seen == []


async def test_ctrl_c_while_standard_input_is_awaited_ends_the_command(peer: Counting, sagactl: Sagactl) -> None:
    theirs, ours = os.pipe()
    try:
        process = await sagactl.spawn("start", "order", "--file", "-", stdin=theirs)
        os.write(ours, b'{"saga_id": "a"}\n')

        async def is_read() -> bool:
            return int.from_bytes(fcntl.ioctl(theirs, termios.FIONREAD, bytes(4)), sys.byteorder) == 0

        await until(is_read, 30, "sagactl reads its input")
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    finally:
        os.close(theirs)
        os.close(ours)
    assert process.returncode == 130
    assert b"interrupted before anything was started" in err
    assert peer.seen == []


@dataclass
class Stalling(Peer):
    """Answers the first message, and no other."""

    stalled: asyncio.Event = field(default_factory=asyncio.Event)

    async def StartSagas(self, messages: Any, context: Any) -> AsyncIterator[pb.StartSagasResponse]:
        first = True
        async for message in messages:
            if not first:
                self.stalled.set()
                await asyncio.Event().wait()
            first = False
            sagas = [saga_pb2.Saga(saga_id=one.saga_id) for one in message.sagas]
            yield pb.StartSagasResponse(results=[pb.StartSagasResult(saga_id=one.saga_id, saga=one) for one in sagas])


async def test_an_interrupted_start_of_a_file_says_how_to_go_on(tmp_path: Path) -> None:
    async with serving(Stalling()) as peer:
        assert isinstance(peer, Stalling)
        file = orders(tmp_path / "orders.jsonl", 2)
        process = await Sagactl(peer.address).spawn("start", "order", "--file", file, "--concurrency", "1")
        async with asyncio.timeout(30):
            await peer.stalled.wait()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 130
    assert err.decode() == "interrupted after 1 of 2 sagas; the same command again goes on\n"
