"""sagactl mirror: how far the journal is in Kafka, and where it goes on."""

from __future__ import annotations

import enum
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from sagad.v1 import admin_service_pb2 as pb
from sagad_client.commands.exits import OK, UNAVAILABLE
from sagad_client.commands.session import SessionParameter
from sagad_client.durations import format_duration
from sagad_client.terminal.output import Fields, Rows
from sagad_client.terminal.text import printable


class StartName(enum.Enum):
    """Where lanes go on."""

    CURSOR = pb.MIRROR_START_CURSOR
    BEGINNING = pb.MIRROR_START_BEGINNING
    END = pb.MIRROR_START_END


async def status(topic: str = "", *, session: SessionParameter) -> int:
    """Show how far each lane of the journal is in Kafka, and who relays it; ends with 3 if one stands still.

    Parameters
    ----------
    topic
        Of one mirror; none shows all.
    """
    async with session.client() as client:
        answer = await client.admin.mirror_status(topic)
    rows = [
        (
            each.topic,
            str(each.lane),
            printable(each.relay_name) or "nobody",
            str(each.lag_events),
            format_duration(each.lag),
            Text(printable(each.fault), "bold red"),
        )
        for each in answer.lanes
    ]
    headers = ("TOPIC", "LANE", "RELAYED BY", "LAG EVENTS", "LAG", "FAULT")
    oldest = Fields([("oldest transaction", format_duration(answer.oldest_transaction))])
    session.output.show(answer, oldest, Rows(headers, rows))
    return UNAVAILABLE if any(each.fault for each in answer.lanes) else OK


async def resume(
    topic: str,
    start: StartName,
    *,
    lane: Annotated[tuple[int, ...], Parameter(help="Lane, 0-7; repeat it. None means those that stand still.")] = (),
    reason: Annotated[str, Parameter(help="Why, for the audit log.")],
    session: SessionParameter,
) -> int:
    """Let lanes that stand still go on.

    Parameters
    ----------
    topic
        Of the mirror.
    start
        cursor: behind what Kafka has. beginning: all that the journal has comes again. end: only what is yet to come.
    """
    async with session.client() as client:
        lanes = await client.admin.resume_mirror(topic, start.value, lanes=lane, reason=reason)
    shown = ", ".join(str(each) for each in lanes) or "none: no lane stood still"
    session.output.show({"lanes": list(lanes)}, Fields([("lanes that go on", shown)]))
    return OK


async def remove(
    topic: str, *, reason: Annotated[str, Parameter(help="Why, for the audit log.")], session: SessionParameter
) -> int:
    """Forget that there is a mirror in a topic, so that it holds back no purge; Kafka's topic stays.

    Parameters
    ----------
    topic
        Of the mirror that nobody relays any more.
    """
    async with session.client() as client:
        await client.admin.remove_mirror(topic, reason=reason)
    session.output.show({"removed": topic}, Fields([("removed", topic)]))
    return OK
