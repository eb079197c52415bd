"""Which sagas a SagaFilter selects, said in SQL.

Only conditions that are asked for stand in the text, so that the planner knows which index serves them; what a caller
gave is always a parameter. Statements are planned anew for the parameters of each call.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sagad_server.domain.states import SagaState
from sagad_server.storage.postgres.resolve import SAGAS
from sagad_server.storage.rows import Position
from sagad_server.storage.selection import SagaFilter


class Parameters:
    """The parameters of a statement, numbered in the order of their addition."""

    def __init__(self) -> None:
        self.values: list[object] = []

    def add(self, value: object) -> str:
        """The placeholder of the value."""
        self.values.append(value)
        return f"${len(self.values)}"


def where(namespace: str | None, selection: SagaFilter, parameters: Parameters) -> str:
    """The condition for the selected sagas of a namespace, or of all. Tombstones are left out."""
    add = parameters.add
    conditions = ["purge_time IS NULL"]
    if namespace is not None:
        conditions.append(f"namespace = {add(namespace)}")
    if selection.states:
        conditions.append(f"state = ANY ({add(list(selection.states))}::smallint[])")
    if selection.definition_id:
        conditions.append(f"definition_id = {add(selection.definition_id)}")
    if selection.version:
        conditions.append(f"version = {add(selection.version)}")
    if selection.labels:
        conditions.append(f"labels @> {add(json.dumps(dict(selection.labels)))}::text::jsonb AND labels <> '{{}}'")
    if selection.parking_mask:
        conditions.append(f"parking_mask & {add(selection.parking_mask)} <> 0 AND parking_mask <> 0")
    if selection.categories:
        conditions.append(f"category = ANY ({add(list(selection.categories))}::smallint[]) AND category <> 0")
    conditions += _created(selection, parameters) + _ended(selection, parameters)
    return " AND ".join(conditions)


def _created(selection: SagaFilter, parameters: Parameters) -> list[str]:
    """What the filter says about create_time. No saga ends before it is created."""
    bounds = [
        ("create_time >=", selection.create_time_min),
        ("create_time <", selection.create_time_max),
        ("create_time <", selection.end_time_max),
    ]
    return _within(bounds, parameters)


def _ended(selection: SagaFilter, parameters: Parameters) -> list[str]:
    return _within([("end_time >=", selection.end_time_min), ("end_time <", selection.end_time_max)], parameters)


def _within(bounds: list[tuple[str, datetime | None]], parameters: Parameters) -> list[str]:
    return [f"{comparison} {parameters.add(time)}" for comparison, time in bounds if time is not None]


def parts_with_an_index(selection: SagaFilter) -> list[SagaFilter]:
    """The parts of a filter that have an index which is not in the order of lists: good where they select few."""
    by_labels = SagaFilter(labels=selection.labels)
    by_end = SagaFilter(end_time_min=selection.end_time_min, end_time_max=selection.end_time_max)
    return [part for part in (by_labels, by_end) if part != SagaFilter()]


@dataclass(frozen=True, slots=True)
class Search:
    """Where to look for the sagas that a filter selects.

    Either among all that a part of it selects, which are few. Or in ranges of an index in the order of lists: one for
    each state and, where the filter names them, each category of failure or each definition version. A condition that
    no index serves may select none of millions, so no range is followed beyond `most_scanned` sagas.
    """

    namespace: str
    selection: SagaFilter
    few: SagaFilter | None
    versions: list[tuple[str, str]] | None
    """(definition_id, version) of those that the filter names; None: it names none, or too many."""
    most_scanned: int
    """Of a range."""

    def newest(self, states: Collection[int], after: Position | None, limit: int, parameters: Parameters) -> str:
        """The newest `limit` of the selected sagas of these states: of each range, in no order, with a column `place`.
        It is `most_scanned` in the last saga of a range that was not followed further, which may not be selected."""
        following = _following(after, parameters)
        selected = where(self.namespace, self.selection, parameters)
        if self.few is not None:
            few = where(None, self.few, parameters)
            of_states = f" AND state = ANY ({parameters.add(sorted(states))}::smallint[])"
            return SAGAS["few"].format(few=few, where=selected + following + of_states)
        source, of_range = self._ranges(states, parameters)
        return SAGAS["newest"].format(
            source=source,
            range=" AND ".join([of_range, *_created(self.selection, parameters)]) + following,
            where=selected,
            most=parameters.add(self.most_scanned),
            limit=parameters.add(limit),
        )

    def _ranges(self, states: Collection[int], parameters: Parameters) -> tuple[str, str]:
        """What the statement ranges over, and the condition that a saga is in a range."""
        add, selection = parameters.add, self.selection
        asked = sorted(set(states) & set(selection.states or SagaState))
        in_namespace = f"purge_time IS NULL AND namespace = {add(self.namespace)}"
        if selection.parking_mask:  # few are, and saga_parked is in the order of lists
            return "", f"{in_namespace} AND parking_mask <> 0 AND state = ANY ({add(asked)}::smallint[])"
        source = f"unnest({add(asked)}::smallint[]) AS r (state), "
        of_range = f"{in_namespace} AND state = r.state"
        if selection.categories:  # fewer have failed than are of a definition
            categories = f"unnest({add(sorted(set(selection.categories)))}::smallint[]) AS c (category), "
            return source + categories, f"{of_range} AND category <> 0 AND category = c.category"
        if self.versions is not None:
            names = [add([version[place] for version in self.versions]) for place in (0, 1)]
            versions = f"unnest({names[0]}::text[], {names[1]}::text[]) AS d (definition_id, version), "
            return source + versions, f"{of_range} AND definition_id = d.definition_id AND version = d.version"
        return source, of_range


def _following(after: Position | None, parameters: Parameters) -> str:
    """The condition for what is listed after a place, to be appended to another."""
    if after is None:
        return ""
    time, saga_id = (parameters.add(value) for value in after)
    return f" AND create_time <= {time} AND (create_time < {time} OR saga_id > {saga_id})"
