"""What is loaded of a long journal: a step may be retried for a month, and most of what it did matters no more."""

from google.protobuf.message import DecodeError

from sagad.storage.v1 import storage_pb2

WHOLE = 256
"""Events of a saga: up to so many are loaded all together."""


def referred(body: bytes) -> set[int]:
    """The revisions from whose instants something is reckoned or shown that the row with this body knows."""
    try:
        record = storage_pb2.SagaRecord.FromString(body)
    except DecodeError:  # it is parked by those who load the saga to drive it, and meet this too
        return {1}
    return {1}.union(*((step.changed_revision, step.since_revision) for step in record.steps)) - {0}
