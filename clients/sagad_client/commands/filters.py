"""The options that select sagas."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter

from sagad.v1 import common_pb2, saga_pb2
from sagad.v1.saga_pb2 import SagaFilter
from sagad_client.commands.inputs import InstantOption, read_pairs

_GROUP = Group("Which sagas", sort_key=10)


class StateName(enum.Enum):
    """States of sagas."""

    RUNNING = saga_pb2.SAGA_STATE_RUNNING
    COMPENSATING = saga_pb2.SAGA_STATE_COMPENSATING
    PARKED = saga_pb2.SAGA_STATE_PARKED
    SUCCEEDED = saga_pb2.SAGA_STATE_SUCCEEDED
    COMPENSATED = saga_pb2.SAGA_STATE_COMPENSATED
    ABANDONED = saga_pb2.SAGA_STATE_ABANDONED


class ParkingName(enum.Enum):
    """Reasons for parking."""

    PIVOT_OUTCOME_UNKNOWN = saga_pb2.PARKING_REASON_PIVOT_OUTCOME_UNKNOWN
    STEP_REFUSED = saga_pb2.PARKING_REASON_STEP_REFUSED
    STEP_EXHAUSTED = saga_pb2.PARKING_REASON_STEP_EXHAUSTED
    COMPENSATION_REFUSED = saga_pb2.PARKING_REASON_COMPENSATION_REFUSED
    COMPENSATION_EXHAUSTED = saga_pb2.PARKING_REASON_COMPENSATION_EXHAUSTED
    EXPRESSION_FAILED = saga_pb2.PARKING_REASON_EXPRESSION_FAILED
    INTERNAL = saga_pb2.PARKING_REASON_INTERNAL
    NO_PROGRESS = saga_pb2.PARKING_REASON_NO_PROGRESS


class CategoryName(enum.Enum):
    """Categories of failures."""

    VALIDATION = common_pb2.FAILURE_CATEGORY_VALIDATION
    BUSINESS = common_pb2.FAILURE_CATEGORY_BUSINESS
    INFRASTRUCTURE = common_pb2.FAILURE_CATEGORY_INFRASTRUCTURE
    TIMEOUT = common_pb2.FAILURE_CATEGORY_TIMEOUT
    RETRIES_EXHAUSTED = common_pb2.FAILURE_CATEGORY_RETRIES_EXHAUSTED
    COMPENSATION = common_pb2.FAILURE_CATEGORY_COMPENSATION


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True)
class FilterOptions:
    """Which sagas; all that is given must match."""

    state: Annotated[tuple[StateName, ...], Parameter(help="State; repeat it for any of several.")] = ()
    definition: Annotated[str, Parameter(help="Definition, by its id.")] = ""
    version: Annotated[str, Parameter(help="Version of the definition.")] = ""
    label: Annotated[tuple[str, ...], Parameter(help="Label key=value; repeat it for all of several.")] = ()
    created_after: Annotated[
        InstantOption | None,
        Parameter(help="Created then or later: 2026-01-31, 2026-01-31T12:00Z, or 1h for so long ago."),
    ] = None
    created_before: Annotated[InstantOption | None, Parameter(help="Created before then.")] = None
    ended_after: Annotated[InstantOption | None, Parameter(help="Ended then or later.")] = None
    ended_before: Annotated[InstantOption | None, Parameter(help="Ended before then.")] = None
    parking_reason: Annotated[
        tuple[ParkingName, ...], Parameter(help="Parked for this reason; repeat it for any of several.")
    ] = ()
    category: Annotated[
        tuple[CategoryName, ...], Parameter(help="Failed in this category; repeat it for any of several.")
    ] = ()

    def to_filter(self) -> SagaFilter:
        """The filter of the contract. Raises UsageError."""
        return SagaFilter(
            states=[state.value for state in self.state],
            definition_id=self.definition,
            version=self.version,
            labels=read_pairs(self.label, "--label"),
            create_time_min=self.created_after,
            create_time_max=self.created_before,
            end_time_min=self.ended_after,
            end_time_max=self.ended_before,
            parking_reasons=[reason.value for reason in self.parking_reason],
            categories=[category.value for category in self.category],
        )


NO_FILTER = FilterOptions()
"""All sagas."""
