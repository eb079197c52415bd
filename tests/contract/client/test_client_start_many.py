"""Client.start_many: against a real sagad, and a scripted peer for what a healthy one never does on demand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.cutting_proxy import CuttingProxy
from support.recipes import definition, succeeding
from support.scripted_peer import Peer, Refusal, serving

from sagad.v1 import saga_pb2
from sagad.v1 import saga_service_pb2 as pb
from sagad_client import AlreadyExists, Backoff, Client, InvalidArgument, NotFound, SagadError, Started, Unavailable

QUICK = Backoff(attempts=4, initial_s=0.001, max_s=0.002)


def requests(count: int, **fields: Any) -> Iterator[pb.StartSagaRequest]:
    return (pb.StartSagaRequest(saga_id=f"s-{n}", definition_id="order", **fields) for n in range(count))


@dataclass
class Streaming(Peer):
    """Answers what it reads; `refuse` one saga, or `break_after` so many answers of each stream."""

    refuse: Callable[[pb.StartSagaRequest], Refusal | None] = lambda request: None
    breaks: list[int] = field(default_factory=list)
    """After so many answers each of the next streams breaks."""
    refusal: Refusal = field(default_factory=lambda: Refusal("UNAVAILABLE"))
    silent: int = 0
    """So many of the next streams are read, and not answered."""
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing is answered before it is set."""
    seen: list[str] = field(default_factory=list)
    there: set[str] = field(default_factory=set)
    """Sagas that are started."""
    largest: int = 0
    streams: int = 0
    opened: list[float] = field(default_factory=list)
    """When each stream was."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def StartSagas(self, messages: Any, context: Any) -> AsyncIterator[pb.StartSagasResponse]:
        self.streams += 1
        left = self.breaks.pop(0) if self.breaks else -1
        self.opened.append(asyncio.get_running_loop().time())
        self.silent -= 1
        silent = self.silent >= 0
        try:
            async for message in messages:
                self.seen += [saga.saga_id for saga in message.sagas]
                self.largest = max(self.largest, message.ByteSize())
                self.called.set()
                if silent:
                    continue
                await self.answers.wait()
                for saga in message.sagas:
                    if left == 0:
                        await context.abort_with_status(self.refusal.status())
                    left -= 1
                    yield pb.StartSagasResponse(results=[self.result(saga)])
        finally:
            self.ended.set()

    def result(self, request: pb.StartSagaRequest) -> pb.StartSagasResult:
        refusal = self.refuse(request)
        if refusal is not None:
            return pb.StartSagasResult(namespace="default", saga_id=request.saga_id, error=refusal.message_status())
        created = request.saga_id not in self.there
        self.there.add(request.saga_id)
        saga = saga_pb2.Saga(saga_id=request.saga_id)
        return pb.StartSagasResult(saga_id=request.saga_id, saga=saga, created=created)


@pytest.fixture
async def peer() -> AsyncIterator[Streaming]:
    async with serving(Streaming()) as peer:
        assert isinstance(peer, Streaming)
        peer.answers.set()
        yield peer


@pytest.fixture
async def client(peer: Peer) -> AsyncIterator[Client]:
    async with Client(peer.address, backoff=QUICK, timeout_s=10) as client:
        yield client


async def collected(results: AsyncIterator[Started]) -> dict[str, saga_pb2.Saga | SagadError]:
    """All results by id. None may come twice."""
    found: dict[str, saga_pb2.Saga | SagadError] = {}
    async for saga_id, result, _ in results:
        assert saga_id not in found, f"{saga_id} was yielded twice"
        found[saga_id] = result
    return found


async def test_a_real_server_starts_every_saga_through_a_line_that_is_cut_again_and_again(sagad: Any) -> None:
    async with Client(sagad.address) as straight:
        await straight.definitions.create(definition(succeeding("order")))
        async with CuttingProxy(sagad.address, after_bytes=6000) as proxy:
            patient = Backoff(attempts=100, initial_s=0.01, max_s=0.05)
            async with Client(proxy.address, backoff=patient) as client:
                found = await collected(client.start_many(requests(300, wait=True), concurrency=100))
        assert {result.state for result in found.values() if isinstance(result, saga_pb2.Saga)} == {
            saga_pb2.SAGA_STATE_SUCCEEDED
        }
        assert len(found) == 300
        assert (await straight.stats()).total == 300
        assert proxy.cuts > 0


async def test_a_real_server_tells_of_each_fault_and_starts_the_rest(sagad: Any) -> None:
    async with Client(sagad.address) as client:
        await client.definitions.create(definition(succeeding("order")))
        await client.start("order", {"n": 1}, saga_id="taken")
        given = [
            pb.StartSagaRequest(definition_id="order"),
            pb.StartSagaRequest(definition_id="order", saga_id="taken"),
            pb.StartSagaRequest(definition_id="none", saga_id="unknown"),
            pb.StartSagaRequest(definition_id="order", saga_id="not an id"),
        ]
        found = await collected(client.start_many(given))
    errors = {saga_id: type(result) for saga_id, result in found.items() if isinstance(result, SagadError)}
    assert errors == {"taken": AlreadyExists, "unknown": NotFound, "not an id": InvalidArgument}
    (started,) = found.keys() - errors.keys()
    assert started
    assert not given[0].saga_id, "the caller's request was changed"


async def test_what_a_broken_stream_left_unanswered_is_sent_again_and_nothing_else(
    peer: Streaming, client: Client
) -> None:
    peer.breaks = [30, 0, 50]
    found = await collected(client.start_many(requests(100)))
    assert len(found) == 100
    assert peer.streams == 4
    again = [saga_id for saga_id, count in Counter(peer.seen).items() if count > 1]
    assert set(again) <= {f"s-{n}" for n in range(30, 100)}
    assert again


async def test_a_stream_that_breaks_without_an_answer_is_opened_so_often_and_no_more(
    peer: Streaming, client: Client
) -> None:
    peer.breaks = [2, *[0] * 20]
    results = client.start_many(requests(10))
    assert [(await anext(results)).saga_id for _ in range(2)] == ["s-0", "s-1"]
    with pytest.raises(Unavailable):
        await anext(results)
    assert peer.streams == QUICK.attempts


async def test_what_a_silent_server_has_not_answered_is_sent_again_on_a_new_stream(peer: Streaming) -> None:
    peer.silent = 2
    async with Client(peer.address, backoff=QUICK, silence_s=0.3) as client:
        found = await collected(client.start_many(requests(100)))
    assert (len(found), peer.streams) == (100, 3)
    assert set(Counter(peer.seen).values()) == {3}


async def test_a_server_that_stays_silent_is_asked_so_often_and_no_more(peer: Streaming) -> None:
    peer.silent = 100
    async with Client(peer.address, backoff=QUICK, silence_s=0.1) as client:
        with pytest.raises(Unavailable, match=r"answered none of 10 starts for 0\.1 s"):
            await collected(client.start_many(requests(10)))
    assert peer.streams == QUICK.attempts


@dataclass
class Halting(Streaming):
    """Answers one saga of the first stream, after a while, and no other."""

    after_s: float = 0
    answered_time: float = 0

    async def StartSagas(self, messages: Any, context: Any) -> AsyncIterator[pb.StartSagasResponse]:
        async for response in super().StartSagas(messages, context):
            if self.streams == 1:
                await asyncio.sleep(self.after_s)
                self.answered_time = asyncio.get_running_loop().time()
                yield response
                await asyncio.Event().wait()
            yield response


async def test_a_server_is_silent_only_since_its_last_answer() -> None:
    async with serving(Halting(after_s=0.4)) as peer, Client(peer.address, backoff=QUICK, silence_s=1) as client:
        assert isinstance(peer, Halting)
        peer.answers.set()
        assert len(await collected(client.start_many(requests(3)))) == 3
    assert peer.streams == 2
    assert peer.opened[1] - peer.answered_time >= 1
    assert Counter(peer.seen) == {"s-0": 1, "s-1": 2, "s-2": 2}


async def test_sagas_whose_end_is_awaited_take_as_long_as_they_do(peer: Streaming) -> None:
    peer.answers.clear()
    async with Client(peer.address, backoff=QUICK, silence_s=0.1) as client:
        waiting = asyncio.create_task(collected(client.start_many(requests(3, wait=True))))
        await peer.called.wait()
        with pytest.raises(Unavailable):
            await collected(client.start_many(requests(1)))  # so much time is over
        peer.answers.set()
        assert len(await waiting) == 3
    assert Counter(peer.seen) == {"s-0": 1 + QUICK.attempts, "s-1": 1, "s-2": 1}


async def test_a_refused_stream_is_not_opened_again(peer: Streaming, client: Client) -> None:
    peer.breaks, peer.refusal = [0], Refusal("PERMISSION_DENIED", "NO")
    with pytest.raises(SagadError, match="PERMISSION_DENIED"):
        await collected(client.start_many(requests(10)))
    assert peer.streams == 1


async def test_a_saga_that_may_pass_is_sent_again_after_the_pause_it_was_told(peer: Streaming, client: Client) -> None:
    times: list[float] = []

    def refuse(request: pb.StartSagaRequest) -> Refusal | None:
        if request.saga_id != "s-3":
            return None
        times.append(asyncio.get_running_loop().time())
        return Refusal("RESOURCE_EXHAUSTED", "RATE_LIMITED", 0.2) if len(times) == 1 else None

    peer.refuse = refuse
    found = await collected(client.start_many(requests(10)))
    assert isinstance(found["s-3"], saga_pb2.Saga)
    assert times[1] - times[0] >= 0.2
    assert len(peer.seen) == 11


async def test_a_saga_that_stays_unavailable_is_tried_so_often_and_then_told(peer: Streaming, client: Client) -> None:
    away = Refusal("UNAVAILABLE", "OWNER_UNREACHABLE")
    peer.refuse = lambda request: away if request.saga_id == "s-3" else None
    found = await collected(client.start_many(requests(5)))
    assert isinstance(found["s-3"], Unavailable)
    assert peer.seen.count("s-3") == QUICK.attempts
    assert sum(isinstance(result, saga_pb2.Saga) for result in found.values()) == 4


async def test_a_result_says_whether_the_saga_was_created_or_that_it_is_not_known(
    peer: Streaming, client: Client
) -> None:
    refused: set[str] = set()

    def refuse(request: pb.StartSagaRequest) -> Refusal | None:
        """Once each, after which one may be there and the other is not."""
        if request.saga_id not in {"s-1", "s-2"} or request.saga_id in refused:
            return None
        refused.add(request.saga_id)
        peer.there.add("s-1")
        return Refusal("UNAVAILABLE" if request.saga_id == "s-1" else "RESOURCE_EXHAUSTED", "OVERLOADED", 0.001)

    peer.refuse, peer.there = refuse, {"s-0"}
    found = {saga_id: created async for saga_id, _, created in client.start_many(requests(4))}
    assert found == {"s-0": False, "s-1": None, "s-2": True, "s-3": True}


async def test_what_a_broken_stream_may_have_started_is_not_said_to_have_been_there(
    peer: Streaming, client: Client
) -> None:
    peer.breaks, peer.there = [1], {"s-0", "s-1"}
    found = {saga_id: created async for saga_id, _, created in client.start_many(requests(3))}
    assert found == {"s-0": False, "s-1": None, "s-2": True}


async def test_no_more_are_taken_than_may_be_open_however_slow_the_consumer(peer: Streaming, client: Client) -> None:
    taken = 0

    def counted() -> Iterator[pb.StartSagaRequest]:
        nonlocal taken
        for request in requests(200):
            taken += 1
            yield request

    yielded = 0
    async for _ in client.start_many(counted(), concurrency=8):
        await asyncio.sleep(0)
        assert taken <= yielded + 8 + 1, "one more is taken, and held, than may be open"
        yielded += 1
    assert (yielded, taken) == (200, 200)


async def test_large_requests_are_bounded_by_their_bytes(peer: Streaming, client: Client) -> None:
    peer.answers.clear()
    data = pb.StartSagaRequest(saga_id="s").input
    data.data = bytes(256 * 1024)
    results = client.start_many(requests(100, input=data))
    first = asyncio.ensure_future(anext(results))
    await peer.called.wait()
    peer.answers.set()
    await first
    async with aclosing(results):
        found = await collected(results)
    assert len(found) == 99
    assert peer.largest <= 1536 * 1024


async def test_a_request_that_is_too_large_is_refused_alone(peer: Streaming, client: Client) -> None:
    large = pb.StartSagaRequest(saga_id="large", definition_id="order")
    large.input.data = bytes(5 * 1024 * 1024)
    found = await collected(client.start_many([large, *requests(3)]))
    assert isinstance(found.pop("large"), InvalidArgument)
    assert all(isinstance(result, saga_pb2.Saga) for result in found.values())
    assert "large" not in peer.seen


async def test_the_same_id_again_is_asked_again_and_answered_again(peer: Streaming, client: Client) -> None:
    given = [*requests(3), *requests(3)]
    counts = Counter([saga_id async for saga_id, *_ in client.start_many(given)])
    assert counts == {"s-0": 2, "s-1": 2, "s-2": 2}


async def test_an_iterable_that_raises_does_so_after_the_results_of_what_it_gave(
    peer: Streaming, client: Client
) -> None:
    async def failing() -> AsyncIterator[pb.StartSagaRequest]:
        for request in requests(5):
            yield request
        raise KeyError("line 6")

    results = client.start_many(failing())
    assert len([await anext(results) for _ in range(5)]) == 5
    with pytest.raises(KeyError, match="line 6"):
        await anext(results)


async def test_leaving_early_ends_the_stream_and_every_task(peer: Streaming, client: Client) -> None:
    before = asyncio.all_tasks()
    async with aclosing(client.start_many(requests(100_000), concurrency=16)) as results:
        await anext(results)
    await peer.ended.wait()
    assert {task for task in asyncio.all_tasks() - before if "Starts" in repr(task.get_coro())} == set()


async def test_no_requests_open_no_stream(peer: Streaming, client: Client) -> None:
    assert await collected(client.start_many([])) == {}
    assert peer.streams == 0


async def test_what_cannot_be_meant_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="1-4,096"):
        client.start_many([], concurrency=4097)
    with pytest.raises(ValueError, match="namespace"):
        await collected(client.start_many([pb.StartSagaRequest(namespace="other")]))
