"""Which sagas a SagaFilter selects, said in SQL.

Only conditions that are asked for stand in the text, so that the planner knows which index serves them; what a caller
gave is always a parameter, but for states. Statements are planned anew for the parameters of each call: what a common
label selects is found in another way than what a rare one does.
"""

import json
from collections.abc import Collection
from datetime import datetime

from sagad_server.domain.states import ENDED, SagaState
from sagad_server.storage.postgres.resolve import SAGAS
from sagad_server.storage.store import SagaFilter

UNENDED = frozenset(SagaState) - ENDED


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
        conditions.append(_state_in(selection.states))
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
    if selection.end_time_max is not None:
        conditions.append(f"create_time < {add(selection.end_time_max)}")  # no saga ends before it is created
    bounds = {
        "create_time >=": selection.create_time_min,
        "create_time <": selection.create_time_max,
        "end_time >=": selection.end_time_min,
        "end_time <": selection.end_time_max,
    }
    conditions += [f"{comparison} {add(time)}" for comparison, time in bounds.items() if time is not None]
    return " AND ".join(conditions)


def list_statement(
    namespace: str, selection: SagaFilter, after: tuple[datetime, str] | None, limit: int, parameters: Parameters
) -> str:
    """The first of the selected sagas that follow a row."""
    condition = where(namespace, selection, parameters) + _following(after, parameters)
    bound = parameters.add(limit)
    newest = _newest(namespace, selection, frozenset(SagaState), condition, bound, parameters)
    return SAGAS["list"].format(newest=newest, limit=bound)


def stats_statement(namespace: str, selection: SagaFilter, most_ended: int, parameters: Parameters) -> str:
    """Counts of all selected sagas that have not ended, and of the newest ones that have."""
    condition = where(namespace, selection, parameters)
    bound = parameters.add(most_ended)
    newest = _newest(namespace, selection, ENDED, condition, bound, parameters)
    return SAGAS["stats"].format(where=condition, newest=newest, limit=bound)


def _newest(
    namespace: str, selection: SagaFilter, states: Collection[int], condition: str, limit: str, parameters: Parameters
) -> str:
    """The newest of the selected sagas of each state and, where the filter names them, of each definition version or
    category: each of these is a range of an index, in the order of lists. In an index of all of them together, the
    search for what is rare or long gone would pass by millions of others."""
    source, of_source = _source(namespace, selection, parameters)
    if selection.parking_mask:  # few are, and saga_parked is in the order of lists
        ranges = [_state_in(UNENDED & set(states))]
    else:
        ranges = [f"state = {state}" for state in sorted(states) if not selection.states or state in selection.states]
    return "\nUNION ALL\n".join(
        SAGAS["newest"].format(source=source, where=f"{condition}{of_source} AND {each}", limit=limit)
        for each in ranges or ["false"]
    )


def _source(namespace: str, selection: SagaFilter, parameters: Parameters) -> tuple[str, str]:
    """What the branches of `_newest` range over besides states, and the condition that a saga is of it."""
    add = parameters.add
    if selection.parking_mask:
        return "", ""
    if selection.categories:  # fewer have failed than are of a definition
        categories = f"unnest({add(sorted(set(selection.categories)))}::smallint[]) AS c (category), "
        return categories, " AND category = c.category"
    if selection.definition_id or selection.version:
        names = {"definition_id": selection.definition_id, "version": selection.version}
        named = "".join(f" AND {name} = {add(value)}" for name, value in names.items() if value)
        versions = SAGAS["versions"].format(namespace=add(namespace), named=named)
        return f"({versions}) AS d, ", " AND definition_id = d.definition_id AND version = d.version"
    return "", ""


def _following(after: tuple[datetime, str] | None, parameters: Parameters) -> str:
    """The condition for what is listed after a row, to be appended to another."""
    if after is None:
        return ""
    time, saga_id = (parameters.add(value) for value in after)
    return f" AND create_time <= {time} AND (create_time < {time} OR saga_id > {saga_id})"


def _state_in(states: Collection[int]) -> str:
    """With numbers, not parameters: only so can the planner see which partial indexes serve."""
    return f"state IN ({', '.join(str(int(state)) for state in sorted(states))})" if states else "false"
