"""Waiting for what nobody tells of."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[bool]], limit_s: float, what: str, *, every_s: float = 0.05) -> None:
    """Returns once it holds; it is asked every so often. Raises AssertionError if that takes longer than the limit."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + limit_s
    while not await condition():
        assert loop.time() < give_up_at, f"not within {limit_s} s: {what}"
        await asyncio.sleep(every_s)
