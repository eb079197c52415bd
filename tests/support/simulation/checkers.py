"""What must hold of every history, whatever was asked and whatever went wrong."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from uuid import UUID

from sagad.storage.v1 import storage_pb2
from sagad_server.domain.graph import bits
from sagad_server.domain.saga import needs_undo
from sagad_server.domain.states import ENDED, Direction, EventCause, SagaState, StepState
from sagad_server.storage.journal import Cursor
from sagad_server.storage.memory_database import MOVING, MemorySaga
from sagad_server.storage.rows import Key
from support.simulation.history import History, WatchEnd


class RuleBroken(AssertionError):  # noqa: N818 - a verdict
    """A checker's finding."""


def check(history: History) -> None:
    """Raises RuleBroken with all that is wrong."""
    found = [f"{rule.__name__}: {fault}" for rule in _RULES for fault in rule(history)]
    if found:
        raise RuleBroken("\n".join(found[:20]))


def _every_saga_rests(history: History) -> Iterator[str]:
    for key, saga in history.sagas().items():
        if saga.row.state in MOVING and not history.waits_for_parked(key):
            yield f"{key[1]} is still {SagaState(saga.row.state).name}, at revision {saga.row.revision}"


def _what_is_acknowledged_is_durable(history: History) -> Iterator[str]:
    for one in history.acknowledged:
        if one.durable_revision < one.revision or one.key not in history.database.sagas:
            yield f"{one.key[1]} was acknowledged at {one.revision}, when {one.durable_revision} was durable"


def _what_is_parked_says_why(history: History) -> Iterator[str]:
    for key, saga in history.sagas().items():
        if saga.row.state == SagaState.PARKED:
            steps = storage_pb2.SagaRecord.FromString(saga.row.body).steps
            if not saga.row.parking_mask or not (saga.row.incident_id or any(step.parking_reason for step in steps)):
                yield f"{key[1]} is parked, and nobody is told why"


def _money_is_conserved(history: History) -> Iterator[str]:
    """All of a saga's effects stand, or none."""
    standing: dict[tuple[Key, int], set[str]] = defaultdict(set)
    for effect in history.effects:
        keys = standing[effect.key, effect.step]
        (keys.add if effect.direction is Direction.ACTION else keys.discard)(effect.idempotency_key)
    for key, saga in history.sagas().items():
        steps = storage_pb2.SagaRecord.FromString(saga.row.body).steps
        for index, definition in enumerate(history.recipes[key].steps):
            stands = len(standing[key, index])
            where = f"{key[1]}:{definition.step_id}"
            if stands > 1:
                yield f"{where} has taken effect {stands} times"
            elif saga.row.state == SagaState.COMPENSATED and stands and not definition.read_only:
                yield f"{where} stands, and its saga is compensated"
            elif saga.row.state == SagaState.SUCCEEDED and not stands and steps[index].state == StepState.SUCCEEDED:
                yield f"{where} has no effect, and its saga has succeeded"


def _no_effect_twice_or_after_its_compensation(history: History) -> Iterator[str]:
    seen: dict[str, list[Direction]] = defaultdict(list)
    for effect in history.effects:
        before = seen[effect.idempotency_key]
        if effect.direction in before:
            yield f"{effect} comes twice"
        if effect.direction is Direction.ACTION and Direction.COMPENSATION in before:
            yield f"{effect} comes after its compensation"
        before.append(effect.direction)


def _compensations_go_in_reverse(history: History) -> Iterator[str]:
    standing: dict[tuple[Key, int], set[str]] = defaultdict(set)
    undone: set[tuple[Key, int]] = set()
    for effect in history.effects:
        if effect.key not in history.recipes:
            yield f"{effect} is of a saga that there is not"
            continue
        steps = history.recipes[effect.key].steps
        own, step = (effect.key, effect.step), steps[effect.step]
        if effect.direction is Direction.COMPENSATION:
            for after in bits(step.descendants):
                if standing[effect.key, after] and needs_undo(steps[after].kind, steps[after].read_only):
                    yield f"{effect} comes before that of {steps[after].step_id}, whose effect stands"
            standing[own].discard(effect.idempotency_key)
            undone.add(own)
        else:
            gone = [before for before in bits(step.ancestors) if (effect.key, before) in undone]
            if gone and not step.read_only:
                yield f"{effect} comes after the compensation of {[steps[i].step_id for i in gone]}"
            standing[own].add(effect.idempotency_key)


def _revisions_have_no_gap(history: History) -> Iterator[str]:
    for key, saga in history.sagas().items():
        if [event.revision for event in saga.events] != list(range(1, saga.row.revision + 1)):
            yield f"{key[1]} is at {saga.row.revision}, with events {[event.revision for event in saga.events]}"
    told: dict[Key, int] = {key: purged.saga.row.revision for key, purged in history.purged.items()}
    for row in history.database.journal.read(Cursor(0, 0, ""), 1 << 30).rows:
        key = row.event.namespace, row.event.saga_id
        if row.event.revision != told.get(key, 0) + 1:
            yield f"the journal goes from {told.get(key, 0)} to {row.event.revision} of {key[1]}"
        told[key] = row.event.revision


def _each_epoch_has_one_owner(history: History) -> Iterator[str]:
    """A write of an old epoch never takes effect, and no revision is made twice."""
    owners: dict[tuple[Key, int], UUID] = {}
    last: dict[Key, tuple[int, int]] = {}
    for one in history.applied:
        revision, epoch = last.get(one.key, (0, 0))
        if one.epoch < epoch:
            yield f"{one} is of an epoch that was over: {epoch} had begun"
        if one.revision == 0 and one.epoch == epoch:
            yield f"{one} takes over without a new epoch"
        if one.revision not in (0, revision + 1):
            yield f"{one} does not follow on revision {revision}"
        if owners.setdefault((one.key, one.epoch), one.instance) != one.instance:
            yield f"{one}: its epoch belongs to {owners[one.key, one.epoch]}"
        last[one.key] = max(revision, one.revision), max(epoch, one.epoch)


def _calls_follow_their_transitions(history: History) -> Iterator[str]:
    keys: dict[tuple[Key, int, int], str] = {}
    for call in history.dispatches:
        if not call.journaled:
            yield f"{call} is not in the journal"
        known = keys.setdefault((call.key, call.step, call.generation), call.idempotency_key)
        if known != call.idempotency_key:
            yield f"{call} had the key {known}"
    if len(set(keys.values())) != len(keys):
        yield "two steps or generations share a key"


def _only_nodes_that_hold_their_lease_call(history: History) -> Iterator[str]:
    for call in history.dispatches:
        if not call.live:
            yield f"{call} comes from a dead node"
        if call.lease_age_s > history.lease_s:
            yield f"{call} comes from a node whose lease is over"


def _what_never_left_is_no_attempt(history: History) -> Iterator[str]:
    for key, saga in history.sagas().items():
        attempts: dict[tuple[str, int], tuple[int, int]] = {}
        for _, change in _changes(saga):
            now = change.attempt, change.compensation_attempt
            before = attempts.get((change.step_id, change.generation), (0, 0))
            waits = change.state in (StepState.BACKING_OFF, StepState.COMPENSATION_BACKING_OFF)
            if waits and change.failure.reason == "NOT_SENT" and sum(now) != sum(before) - 1:
                yield f"{key[1]}:{change.step_id} counts a call that was not sent"
            attempts[change.step_id, change.generation] = now


def _locks_end_with_their_sagas(history: History) -> Iterator[str]:
    for lock, rows in history.database.locks.all().items():
        for row in rows:
            saga = history.database.sagas.get((lock[0], row.saga_id))
            if saga is None or saga.row.state in ENDED:
                yield f"lock {lock[1]} has a row of {row.saga_id}, which has ended"


def _calls_carry_the_locks_that_are_held(history: History) -> Iterator[str]:
    names = {key: storage_pb2.PayloadRecord.FromString(saga.events[0].payload).locks for key, saga in _begun(history)}
    for call in history.dispatches:
        if call.lock_tokens.keys() != set(names.get(call.key, ())):
            yield f"{call} is not of the locks {names.get(call.key)}"
        elif call.live and call.held_tokens not in ({}, call.lock_tokens):  # {}: its end is durable, and not known yet
            yield f"{call} carries tokens of what its saga does not hold"


def _begun(history: History) -> Iterator[tuple[Key, MemorySaga]]:
    return ((key, saga) for key, saga in history.sagas().items() if saga.events)


def _nothing_is_done_under_a_lock_that_another_has_had_since(history: History) -> Iterator[str]:
    """But for what an operator has abandoned, and for what is never undone: both may come late."""
    highest: dict[str, int] = {}
    sagas = history.sagas()
    for effect in history.effects:
        if effect.by_hand or history.recipes[effect.key].steps[effect.step].read_only:
            continue
        if sagas[effect.key].row.state == SagaState.ABANDONED:
            continue
        for name, token in effect.lock_tokens.items():
            if token < highest.setdefault(name, token):
                yield f"{effect} is done under lock {name}, whose token is {highest[name]} by now"
            highest[name] = token


def _generations_grow_by_hand(history: History) -> Iterator[str]:
    for key, saga in history.sagas().items():
        generations: dict[str, tuple[int, bool]] = {}
        for cause, change in _changes(saga):
            before, may_have = generations.get(change.step_id, (1, False))
            if change.generation != before and (cause != EventCause.RETRY_CALLED or may_have):
                yield f"{key[1]}:{change.step_id} has a new key by {EventCause(cause).name}"
            generations[change.step_id] = change.generation, change.may_have_happened


def _changes(saga: MemorySaga) -> Iterator[tuple[int, storage_pb2.StepChangeRecord]]:
    for event in saga.events:
        for change in storage_pb2.EventRecord.FromString(event.body).changes:
            yield event.cause, change


def _watches_have_no_gap(history: History) -> Iterator[str]:
    sagas = history.sagas()
    for watched in history.watched:
        where, saga = f"a watch of {watched.key[1]}", sagas.get(watched.key)
        journal = [(event.revision, event.cause) for event in saga.events] if saga is not None else []
        begin = watched.snapshot_revision
        if [(revision, cause) for revision, _, cause in watched.seen] != journal[begin : begin + len(watched.seen)]:
            yield f"{where} saw {watched.seen}, and at first revision {begin}"
        if watched.early:
            yield f"{where} saw {watched.early} before they were durable"
        if watched.end is None and watched.revision != len(journal):
            yield f"{where} ends at {watched.revision} of {len(journal)} transitions"
        if watched.end is WatchEnd.PURGED and watched.key not in history.purged:
            yield f"{where} was told that its saga is purged"
        if watched.end is WatchEnd.SAGA_ENDED and watched.seen and watched.seen[-1][1] not in ENDED:
            yield f"{where} has ended at {watched.seen[-1]}"


def _watches_of_many_have_no_gap(history: History) -> Iterator[str]:
    transitions = [(one.place, one.key, one.revision) for one in history.applied if one.place is not None]
    transitions.sort(key=lambda one: one[0])
    for watched in history.watched_all:
        if watched.begin is None:
            continue
        wanted = [
            (key, revision)
            for place, key, revision in transitions
            if place > watched.begin and watched.definition_id in ("", history.recipes[key].definition_id)
        ]
        where = f"a watch of all {watched.definition_id} from {watched.begin} on"
        if watched.seen != wanted[: len(watched.seen)]:
            differing = next(pair for pair in zip(watched.seen, [*wanted, None], strict=False) if pair[0] != pair[1])
            yield f"{where} saw {differing[0]} where the journal has {differing[1]}"
        elif not watched.purged and len(watched.seen) != len(wanted):
            yield f"{where} saw {len(watched.seen)} of {len(wanted)} transitions"


def _what_is_purged_rests_for_good(history: History) -> Iterator[str]:
    for key, purged in history.purged.items():
        before, row = purged.saga.row, history.database.sagas[key].row
        if before.state not in ENDED:
            yield f"{key[1]} was purged when it was {SagaState(before.state).name}"
        if (row.uid, row.state, row.revision, row.epoch) != (before.uid, before.state, before.revision, before.epoch):
            yield f"{key[1]} has changed since it was purged: {before} was followed by {row}"
        if row.purge_time is None or row.body or history.database.sagas[key].events:
            yield f"{key[1]} has come back since it was purged"
    for number, one in enumerate(history.applied):
        if one.key in history.purged and number >= history.purged[one.key].applied:
            yield f"{one} comes after its purge"


def _what_is_refused_is_not_there(history: History) -> Iterator[str]:
    for key in history.refused & history.database.sagas.keys():
        yield f"{key[1]} is there, and its start was refused"


def _definitions_live_as_long_as_their_sagas(history: History) -> Iterator[str]:
    for saga in history.database.sagas.values():
        row = saga.row
        if row.purge_time is None and (row.namespace, row.definition_id, row.version) not in (
            history.database.definitions
        ):
            yield f"{row.saga_id} is of {row.definition_id} {row.version}, which is gone"


def _kafka_has_each_event_once_and_each_sagas_in_order(history: History) -> Iterator[str]:
    if history.mirrored is None:
        return
    last: dict[Key, int] = {}
    partitions: dict[Key, int] = {}
    for partition, event in history.mirrored:
        key = event.namespace, event.saga_id
        if event.revision != last.get(key, 0) + 1:
            yield f"Kafka goes from {last.get(key, 0)} to {event.revision} of {key[1]}"
        if partitions.setdefault(key, partition) != partition:
            yield f"Kafka has {key[1]} in {partition} and in {partitions[key]}"
        last[key] = event.revision
    for key, saga in history.sagas().items():
        if last.pop(key, 0) != saga.row.revision:
            yield f"Kafka does not have all of {key[1]}, which is at {saga.row.revision}"
    yield from (f"Kafka has {key[1]}, which is not in the journal" for key in last)


def _the_mirror_is_never_ahead_nor_a_purge(history: History) -> Iterator[str]:
    yield from history.mirror_faults


def _nothing_breaks_inside(history: History) -> Iterator[str]:
    yield from history.incidents
    yield from history.contradictions
    yield from history.unapplied
    yield from history.left_over


_RULES: tuple[Callable[[History], Iterator[str]], ...] = (
    _every_saga_rests,
    _what_is_acknowledged_is_durable,
    _what_is_parked_says_why,
    _money_is_conserved,
    _no_effect_twice_or_after_its_compensation,
    _compensations_go_in_reverse,
    _revisions_have_no_gap,
    _each_epoch_has_one_owner,
    _calls_follow_their_transitions,
    _only_nodes_that_hold_their_lease_call,
    _what_never_left_is_no_attempt,
    _generations_grow_by_hand,
    _locks_end_with_their_sagas,
    _calls_carry_the_locks_that_are_held,
    _nothing_is_done_under_a_lock_that_another_has_had_since,
    _watches_have_no_gap,
    _watches_of_many_have_no_gap,
    _what_is_purged_rests_for_good,
    _what_is_refused_is_not_there,
    _definitions_live_as_long_as_their_sagas,
    _kafka_has_each_event_once_and_each_sagas_in_order,
    _the_mirror_is_never_ahead_nor_a_purge,
    _nothing_breaks_inside,
)
