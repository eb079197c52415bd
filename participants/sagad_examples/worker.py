"""Completes what the examples have answered with pending."""

import asyncio
import logging

from sagad_examples.service import Service
from sagad_participant import deliver
from sagad_participant.completions import CompleteStep

logger = logging.getLogger(__name__)

POLL_S = 0.1


async def work(service: Service, complete_step: CompleteStep, delay_s: float) -> None:
    """Does pending work `delay_s` after it was first seen, and tells the coordinator. Runs until it is cancelled."""
    now = asyncio.get_running_loop().time
    first_seen: dict[str, float] = {}
    while True:
        try:
            pending = await service.barrier.pending()
            first_seen = {item.idempotency_key: first_seen.get(item.idempotency_key, now()) for item in pending}
            for item in pending:
                if now() - first_seen[item.idempotency_key] >= delay_s:
                    await service.complete(item)
            await deliver(service.barrier, complete_step)
        except Exception:
            logger.exception("%s: the worker tries again", service.name)
        await asyncio.sleep(POLL_S)
