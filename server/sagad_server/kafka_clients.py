"""What aiokafka's clients of all kinds need around them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError

_ASK_MS = 5_000
_CLOSE_S = 5.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def telling_why(bootstrap_servers: str, connection: Mapping[str, Any]) -> AsyncIterator[None]:
    """Clients start within it. Where no broker can be reached the library's error does not tell why: then each is asked
    once again, and the error that comes out says what each has against it."""
    try:
        yield
    except KafkaConnectionError as error:
        hosts = collect_hosts(bootstrap_servers, randomize=False)
        faults = await asyncio.gather(*(_fault(host, port, connection) for host, port, _ in hosts))
        if not all(faults):
            raise  # one of them is there by now
        raise KafkaConnectionError("; ".join(faults)) from error


async def close(consumer: Any) -> None:
    """Ends it, in some seconds at most. What goes wrong with that is no matter of whoever has read from it."""
    # As a task: where a connection has broken the library lets a cancellation of its own out, which is not ours.
    stopping = asyncio.create_task(_stop(consumer))
    await asyncio.wait({stopping}, timeout=_CLOSE_S)
    if not stopping.cancel() and not stopping.cancelled() and (failed := stopping.exception()) is not None:
        log.info("a consumer did not close well", error=repr(failed))


async def _stop(consumer: Any) -> None:
    try:
        await consumer.stop()
    finally:
        # Which that leaves open then. Closed twice, it stays closed.
        await consumer._client.close()


async def _fault(host: str, port: int, connection: Mapping[str, Any]) -> str:
    """Why a broker cannot be reached; empty: it can."""
    try:
        reached = await create_conn(host, port, request_timeout_ms=_ASK_MS, **connection)
    except (KafkaError, OSError, TimeoutError) as error:
        return f"{host}:{port}: {_reason(error)}"
    reached.close()
    return ""


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error  # that a connection was closed, because of something else
    match cause:
        case ssl.SSLCertVerificationError():
            return f"its certificate is refused: {cause.verify_message} (kafka.ca_file says whom to trust)"
        case ssl.SSLError():
            return f"{cause}: it refuses the client's certificate, or wants one (kafka.cert_file), or TLS is not for it"
        case EOFError() | ConnectionResetError():
            return "it closed the connection: kafka.tls or kafka.sasl_mechanism may not be as it has them"
        case TimeoutError():
            return f"no answer within {_ASK_MS / 1000:g} s"
        case _:
            return str(cause)
