"""All that leads to one participant: its channel, its dispatcher, and what carries its calls just now."""

import asyncio
from collections.abc import Iterable

import grpc.aio
import structlog

from sagad.v1.participant_service_pb2 import DescribeRequest, DescribeResponse
from sagad.v1.participant_service_pb2_grpc import ParticipantServiceStub
from sagad_server.domain.inputs import Failed, failed_with_code
from sagad_server.engine.ports import Clock, Observer, Random
from sagad_server.transport.breaker import BreakerState, is_no_connection
from sagad_server.transport.channel import ParticipantConfig, connect, failed_rpc
from sagad_server.transport.dispatcher import Dispatcher, Pace
from sagad_server.transport.session import Session
from sagad_server.transport.state import LinkState
from sagad_server.transport.stream import Stream, open_stream
from sagad_server.transport.unary import UnaryCalls

log = structlog.get_logger(__name__)

_DESCRIBE_TIMEOUT_S = 2.0
_PROBE_S = 1.0
_MAX_PAUSE_S = 30.0
_CANCEL_AGAIN_S = 0.2


class Link:
    """Hands calls over on a session if the participant has them, else each as an RPC of its own.

    A participant is asked again and again: it may be upgraded, or downgraded, at any time.
    """

    def __init__(
        self,
        name: str,
        config: ParticipantConfig,
        clock: Clock,
        random: Random,
        observer: Observer,
        pace: Pace | None,
    ) -> None:
        self.config = config
        self.dispatcher = Dispatcher(name, config.max_in_flight, config.step_timeout_s, clock, random, observer, pace)
        self._name = name
        self._clock = clock
        self._random = random
        self._channel = connect(config)
        self._stub = ParticipantServiceStub(self._channel)
        self._unary = UnaryCalls(self._stub, self.dispatcher)
        self._stream: Stream | None = None
        self._streaming: asyncio.Task[None] | None = None
        self._look_again = asyncio.Event()
        self._idle = asyncio.Event()
        self.dispatcher.wake = self._take
        self.dispatcher.on_open = self._opened
        self.dispatcher.on_idle = self._idle.set
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    @property
    def has_session(self) -> bool:
        return self._stream is not None and not self._stream.session.closing

    def state(self) -> LinkState:
        calls = self.dispatcher
        return LinkState(calls.breaker.state, self.has_session, calls.in_flight, calls.queued)

    async def describe(self) -> DescribeResponse | str:
        """What the participant says it implements, or why it does not say."""
        answer = await self._describe()
        if isinstance(answer, DescribeResponse):
            return answer
        return f"{answer.code}: {answer.failure.message[:200]}"

    async def drain(self) -> None:
        """Hands nothing over any more, and returns when every call under way has ended."""
        self.dispatcher.drain()
        while self.dispatcher.in_flight:
            self._idle.clear()
            await self._idle.wait()

    async def close(self) -> None:
        """Gives up what is still under way."""
        self.dispatcher.drain()
        await _end([task for task in (self._watching, self._streaming) if task is not None])
        await self._unary.close()
        await self._channel.close()

    def _take(self) -> None:
        if self._stream is not None and self.has_session:
            self._stream.take()
        else:
            self._unary.take()

    def _opened(self) -> None:
        log.warning("a participant does not answer: it is not called until it is back", participant=self._name)
        self._look_again.set()

    async def _watch(self) -> None:
        """Asks whether the participant is there, and whether it has sessions."""
        answers = 0
        while True:
            self._look_again.clear()
            answers = answers + 1 if await self._ask() else 0
            await self._pause(answers)

    async def _ask(self) -> bool:
        """Whether the participant has answered."""
        answer = await self._describe()
        if not isinstance(answer, DescribeResponse):
            if not is_no_connection(answer.code):  # it is there, and only does not describe itself
                self.dispatcher.reachable()
            return False
        self.dispatcher.reachable()
        if not answer.sessions or self._stream is not None:
            return True
        call = await open_stream(self._stub)
        if isinstance(call, str):
            log.warning("a participant has sessions, but opens none", participant=self._name, why=call)
            return True
        self._stream = Stream(call, Session(self.dispatcher, self._clock), self._unary.hand_over)
        self._streaming = asyncio.get_running_loop().create_task(self._run(self._stream))
        return True

    async def _run(self, stream: Stream) -> None:
        log.info("session opened", participant=self._name)
        try:
            why = await stream.run()
            log.info("session ended", participant=self._name, why=why)
        finally:
            self._stream = None
            self._take()
            self._look_again.set()

    async def _pause(self, answers: int) -> None:
        """Until it is worth asking again: soon if nobody answers, more and more rarely if there are no sessions, and
        while there is one, when it has ended or the breaker has opened."""
        if answers and self.dispatcher.breaker.state is not BreakerState.OPEN:
            within_s = self._jitter(min(_PROBE_S * 2 ** min(answers, 5), _MAX_PAUSE_S))
            try:
                async with asyncio.timeout(None if self._stream is not None else within_s):
                    await self._look_again.wait()
            except TimeoutError:
                return
        await asyncio.sleep(self._jitter(_PROBE_S))

    def _jitter(self, seconds: float) -> float:
        return seconds * (0.5 + self._random.random() / 2)

    async def _describe(self) -> DescribeResponse | Failed:
        try:
            answer = await self._stub.Describe(DescribeRequest(), timeout=_DESCRIBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return failed_rpc(error)
        if isinstance(answer, DescribeResponse):
            return answer
        return failed_with_code("INTERNAL", "its answer is no DescribeResponse")  # what cannot be parsed is None


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancels them until they have ended: gRPC swallows a cancellation that comes together with an answer."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
