"""Faults between a committed effect and its answer: they need a place outside of the handler's transaction."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from sagad_examples.faults import Faults, Mode

logger = logging.getLogger(__name__)

EXIT_CODE = 70


class AfterAnswer(grpc.aio.ServerInterceptor):
    """Lets the process die, or the answer come too late, as the switch says."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        if not handler_call_details.method.startswith("/sagad.v1.ParticipantService/") or handler is None:
            return handler
        if handler.unary_unary is None:  # a session
            return handler

        async def behave(request: Any, context: Any) -> Any:
            key = getattr(request, "idempotency_key", "")
            try:
                response = await handler.unary_unary(request, context)
            except BaseException:
                self._faults.after_answer(key)  # no effect: nothing to strike
                raise
            await self._strike(key)
            return response

        return grpc.unary_unary_rpc_method_handler(behave, handler.request_deserializer, handler.response_serializer)

    async def _strike(self, key: str) -> None:
        match self._faults.after_answer(key):
            case Mode.DIE:
                logger.warning("dying on purpose between the effect and the answer of %s", key)
                os._exit(EXIT_CODE)
            case Mode.LATE:
                await asyncio.Event().wait()  # until the caller gives up
