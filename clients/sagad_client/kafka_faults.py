"""Why Kafka cannot be reached. aiokafka's own error does not tell."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError


async def connection_faults(
    bootstrap_servers: str, connection: Mapping[str, Any], request_timeout_s: float
) -> list[str]:
    """What each broker has against a consumer with these options; empty where one can be reached by now."""
    secured = {name: value for name, value in connection.items() if name.startswith(("security_", "ssl_", "sasl_"))}
    secured.setdefault("sasl_mechanism", "PLAIN")  # as the consumer has it, and a bare connection has not
    secured["request_timeout_ms"] = round(request_timeout_s * 1000)
    hosts = collect_hosts(bootstrap_servers, randomize=False)
    faults = await asyncio.gather(*(_fault(host, port, secured) for host, port, _ in hosts))
    return faults if all(faults) else []


async def _fault(host: str, port: int, options: Mapping[str, Any]) -> str:
    try:
        reached = await create_conn(host, port, **options)
    except (KafkaError, OSError, TimeoutError) as error:
        return f"{host}:{port}: {_reason(error, options)}"
    reached.close()
    return ""


def _reason(error: Exception, options: Mapping[str, Any]) -> str:
    cause = error.__cause__ or error  # that a connection was closed, because of something else
    match cause:
        case ssl.SSLCertVerificationError():
            return f"its certificate is refused: {cause.verify_message} (the CA of ssl_context says whom to trust)"
        case ssl.SSLError():
            return (
                f"{cause}: it refuses the client's certificate, or wants one (load_cert_chain of ssl_context), or "
                f"security_protocol is not as it has it"
            )
        case EOFError() | ConnectionResetError():
            return "it closed the connection: security_protocol or sasl_mechanism may not be as it has them"
        case TimeoutError():
            return f"no answer within {options['request_timeout_ms'] / 1000:g} s"
        case _:
            return str(cause)
