"""The read model in MongoDB."""

from collections.abc import Sequence

from pymongo import AsyncMongoClient, InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import BulkWriteError
from pymongo.write_concern import WriteConcern

from sagad.v1.saga_pb2 import SagaEvent
from sagad_server.projection.document import SagaDocument, fold

COLLECTION = "sagas"
_DUPLICATE_KEY = 11000
_INDEXES: tuple[tuple[str, ...], ...] = (
    ("namespace", "create_time"),
    ("namespace", "definition_id", "create_time"),
    ("namespace", "saga_id"),
)


class Conflict(Exception):  # noqa: N818 - read again, and it is gone
    """Another process has written the same sagas meanwhile."""


class Model:
    """Documents of sagas by uid. Every method raises PyMongoError."""

    def __init__(self, client: AsyncMongoClient[SagaDocument], database: str, *, marks_gaps: bool) -> None:
        """`client` must give times with their zone."""
        self._marks_gaps = marks_gaps
        # What is acknowledged outlives a fail-over: Kafka's offset moves behind it.
        self._sagas = client[database].get_collection(COLLECTION, write_concern=WriteConcern("majority", j=True))

    async def prepare(self) -> None:
        """Makes the indexes that are missing."""
        for fields in _INDEXES:
            await self._sagas.create_index([(field, 1) for field in fields])
        incomplete = {"complete": False}  # there are hardly any, and reports count them
        await self._sagas.create_index([("namespace", 1)], name="incomplete", partialFilterExpression=incomplete)

    async def apply(self, events: Sequence[SagaEvent]) -> int:
        """Returns, with the number of documents that have changed, when all of them are durable.

        Each is compared and set: no repeat, no restart and no second process turns one back. Raises Conflict,
        EventsMissing.
        """
        uids = sorted({event.uid for event in events})
        known = {document["_id"]: document async for document in self._sagas.find({"_id": {"$in": uids}})}
        changed = fold(known, events, marks_gaps=self._marks_gaps)
        writes = [_write(uid, known.get(uid), changed.get(uid)) for uid in uids]
        try:
            result = await self._sagas.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            faults = error.details.get("writeErrors", ())
            if faults and all(fault["code"] == _DUPLICATE_KEY for fault in faults):
                raise Conflict from error
            raise
        if result.inserted_count + result.matched_count < len(writes):
            raise Conflict
        return len(changed)


def _write(
    uid: str, known: SagaDocument | None, changed: SagaDocument | None
) -> InsertOne[SagaDocument] | ReplaceOne[SagaDocument] | UpdateOne:
    """Also where nothing changes: what was read may be lost by a fail-over until a majority has acknowledged it."""
    if known is None:
        assert changed is not None, "an event of an unknown saga makes a document"
        return InsertOne(changed)
    as_read = {"_id": uid, "revision": known["revision"]}
    if changed is None:
        return UpdateOne(as_read, {"$set": {"revision": known["revision"]}})
    return ReplaceOne(as_read, changed)
