"""Calls that are taken in side by side, on a real server of gRPC's library."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from structlog.testing import capture_logs

from sagad_server.api import intake
from sagad_server.api.errors import Refusal, read_status, refusal
from sagad_server.domain.errors import ResourceExhausted

METHOD = "/test.Service/Ask"
MANY = 200


class Echo(grpc.aio.ServerInterceptor):
    """A server's service, and the interceptor that hears of each call."""

    def __init__(self) -> None:
        self.intercepted = 0
        self.under_way = 0
        self.may_answer = asyncio.Event()

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        assert handler_call_details.method == METHOD
        self.intercepted += 1
        return await continuation(handler_call_details)

    async def reach(self, count: int) -> None:
        """Returns when so many calls are under way; the test's own timeout bounds it."""
        while self.under_way < count:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)

    async def ask(self, request: bytes, context: Any) -> bytes:
        self.under_way += 1
        await self.may_answer.wait()
        self.under_way -= 1
        return request


@asynccontextmanager
async def serving(
    echo: Echo, gate: intake.Gate | None = None
) -> AsyncIterator[tuple[grpc.aio.Server, "asyncio.Task[None]", Any]]:
    """A server, what takes calls in, and a stub."""
    handlers = {"Ask": grpc.unary_unary_rpc_method_handler(echo.ask, bytes, bytes)}
    server = grpc.aio.server(interceptors=[echo])
    server.add_registered_method_handlers("test.Service", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gates = {} if gate is None else {METHOD: gate}
    taking_in = asyncio.create_task(intake.take_in(server, echo, {METHOD: handlers["Ask"]}, gates))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield server, taking_in, channel.unary_unary(METHOD)
    await server.stop(None)
    await asyncio.wait_for(taking_in, 10)


def test_the_installed_version_of_the_library_was_tried() -> None:
    assert grpc.__version__.startswith(intake.TRIED), (
        "try `intake` with it, and measure: else calls are slow to come in"
    )


async def test_each_call_is_intercepted_and_answered_once() -> None:
    echo = Echo()
    echo.may_answer.set()
    async with serving(echo) as (_, _, ask):
        answers = await asyncio.gather(*(ask(b"%d" % number) for number in range(MANY)))
    assert answers == [b"%d" % number for number in range(MANY)]
    assert echo.intercepted == MANY


async def test_all_calls_are_under_way_side_by_side() -> None:
    echo = Echo()
    async with serving(echo) as (_, _, ask):
        calls = [ask(b"") for _ in range(MANY)]
        await echo.reach(MANY)
        echo.may_answer.set()
        await asyncio.gather(*calls)


async def test_it_ends_with_the_server_whose_calls_under_way_have_their_grace() -> None:
    echo = Echo()
    async with serving(echo) as (server, taking_in, ask):
        first = ask(b"first")
        await echo.reach(1)
        stopping = asyncio.create_task(server.stop(grace=10))
        await asyncio.wait_for(taking_in, 10)
        echo.may_answer.set()
        assert await first == b"first"
        await stopping
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(b"late", timeout=5)


async def test_a_client_that_leaves_ends_its_call() -> None:
    echo = Echo()
    async with serving(echo) as (_, _, ask):
        call = ask(b"")
        await echo.reach(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        echo.may_answer.set()
        assert await ask(b"next") == b"next"


async def test_with_a_version_that_was_not_tried_the_library_goes_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "TRIED", "0.")
    echo = Echo()
    echo.may_answer.set()
    with capture_logs() as logs:
        async with serving(echo) as (_, taking_in, ask):
            await taking_in
            assert await ask(b"one") == b"one"
    assert [log["event"] for log in logs] == ["calls are taken in one by one"]


entered: ContextVar[str] = ContextVar("entered", default="")


class Turnstile:
    """A gate that lets some calls in."""

    def __init__(self, most: int) -> None:
        self.let_in = 0
        self.left = 0
        self.most = most

    def refusal(self) -> Refusal | None:
        return refusal(ResourceExhausted("full", reason="FULL", retry_after_ms=7)) if self.let_in == self.most else None

    def enter(self) -> Callable[[object], None]:
        self.let_in += 1
        entered.set(f"call {self.let_in}")
        return self.leave

    def leave(self, _: object) -> None:
        self.left += 1


async def test_a_gate_refuses_calls_unread_and_says_why() -> None:
    echo, gate = Echo(), Turnstile(most=0)
    echo.may_answer.set()
    codes: Counter[Any] = Counter()
    async with serving(echo, gate) as (_, _, ask):
        for ended in await asyncio.gather(*(ask(b"") for _ in range(MANY)), return_exceptions=True):
            if isinstance(ended, grpc.aio.AioRpcError):
                assert ended.details() == "full"
                assert read_status(ended).details[1].Is(error_details_pb2.RetryInfo.DESCRIPTOR)
            codes[ended.code() if isinstance(ended, grpc.aio.AioRpcError) else "OK"] += 1
    assert codes.keys() <= {grpc.StatusCode.RESOURCE_EXHAUSTED, "OK"}, "the library's own request has no gate"
    assert codes[grpc.StatusCode.RESOURCE_EXHAUSTED] > MANY / 2
    assert echo.intercepted == codes["OK"]


async def test_a_call_that_a_gate_lets_in_has_its_context_and_the_gate_hears_of_its_end() -> None:
    seen: list[str] = []

    class Reader(Echo):
        async def ask(self, request: bytes, context: Any) -> bytes:
            seen.append(entered.get())
            return await super().ask(request, context)

    echo, gate = Reader(), Turnstile(most=MANY)
    async with serving(echo, gate) as (_, _, ask):
        calls = [ask(b"") for _ in range(MANY)]
        await echo.reach(MANY)
        assert gate.left == 0
        echo.may_answer.set()
        await asyncio.gather(*calls)
    assert gate.left == gate.let_in > MANY / 2
    assert sorted(filter(None, seen)) == sorted(f"call {number + 1}" for number in range(gate.let_in))


async def test_a_refused_client_that_has_left_takes_nothing_down() -> None:
    echo, gate = Echo(), Turnstile(most=0)
    echo.may_answer.set()
    async with serving(echo, gate) as (_, taking_in, ask):
        for _ in range(MANY):
            ask(b"").cancel()
        gate.most = 1
        assert await ask(b"next") == b"next"
        assert not taking_in.done()
