"""Which sagas a SagaFilter selects, said in SQL.

Only conditions that are asked for stand in the text, so that the planner knows which index serves them; what a caller
gave is always a parameter.
"""

import json
from datetime import datetime

from sagad_server.domain.states import SagaState
from sagad_server.storage.store import SagaFilter


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
    if set(selection.states) == {SagaState.PARKED}:
        conditions.append("state = 3")  # for the partial index
    if selection.definition_id:
        conditions.append(f"definition_id = {add(selection.definition_id)}")
    if selection.version:
        conditions.append(f"version = {add(selection.version)}")
    if selection.labels:
        conditions.append(f"labels @> {add(json.dumps(dict(selection.labels)))}::text::jsonb AND labels <> '{{}}'")
    if selection.parking_mask:
        conditions.append(f"parking_mask & {add(selection.parking_mask)} <> 0 AND parking_mask <> 0")
    if selection.categories:
        conditions.append(f"category = ANY ({add(list(selection.categories))}::smallint[])")
    bounds = {
        "create_time >=": selection.create_time_min,
        "create_time <": selection.create_time_max,
        "end_time >=": selection.end_time_min,
        "end_time <": selection.end_time_max,
    }
    conditions += [f"{comparison} {add(time)}" for comparison, time in bounds.items() if time is not None]
    return " AND ".join(conditions)


def following(after: tuple[datetime, str] | None, parameters: Parameters) -> str:
    """The condition for what is listed after a row, to be appended to another."""
    if after is None:
        return ""
    time, saga_id = (parameters.add(value) for value in after)
    return f" AND create_time <= {time} AND (create_time < {time} OR saga_id > {saga_id})"
