"""The participant SDK: what a service needs to take part in sagas.

    from sagad_participant import Action, Compensation, Participant, Refused, serve
    from sagad_participant.postgres import PostgresBarrier

Start with Participant; `sagad_participant.barrier` says what the barrier promises.
"""

from sagad_participant.barrier import Barrier, BatchBarrier
from sagad_participant.calls import UNKNOWN, Action, Cause, Compensation
from sagad_participant.completions import Completion, deliver
from sagad_participant.errors import (
    AlreadyCompleted,
    BadAnswer,
    CallError,
    CompletionError,
    DeadlinePassed,
    Fenced,
    HandlerFailed,
    InvalidCall,
    PendingClosed,
    Unavailable,
    UnknownHandler,
    UnknownWork,
)
from sagad_participant.execution import run_action, run_compensation
from sagad_participant.memory import MemoryBarrier, MemoryConnection
from sagad_participant.outcomes import Pending, Refused
from sagad_participant.participant import Participant, action, compensation
from sagad_participant.rows import Kind, Work
from sagad_participant.servicer import ParticipantServicer
from sagad_participant.serving import RunningServer, serve, start

__all__ = [
    "UNKNOWN",
    "Action",
    "AlreadyCompleted",
    "BadAnswer",
    "Barrier",
    "BatchBarrier",
    "CallError",
    "Cause",
    "Compensation",
    "Completion",
    "CompletionError",
    "DeadlinePassed",
    "Fenced",
    "HandlerFailed",
    "InvalidCall",
    "Kind",
    "MemoryBarrier",
    "MemoryConnection",
    "Participant",
    "ParticipantServicer",
    "Pending",
    "PendingClosed",
    "Refused",
    "RunningServer",
    "Unavailable",
    "UnknownHandler",
    "UnknownWork",
    "Work",
    "action",
    "compensation",
    "deliver",
    "run_action",
    "run_compensation",
    "serve",
    "start",
]
