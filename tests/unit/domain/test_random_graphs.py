"""Random graphs through random outcomes: every run ends, and its compensations are the reverse of what may have run."""

from hypothesis import given, settings
from hypothesis import strategies as st
from support.definitions import valid_definitions
from support.play import TIMED_OUT, Play, code, refused

from sagad.v1.definition_pb2 import Definition as DefinitionMessage
from sagad_server.domain.graph import bits
from sagad_server.domain.inputs import Failed, NotSent, Outcome, Pending, Success
from sagad_server.domain.states import Direction, SagaState, StepState

OUTCOMES: list[Outcome] = [
    Success(None),
    Success(None),
    Success(None),
    Pending(),
    NotSent("full"),
    NotSent("it does not answer", uses_retry=True),
    TIMED_OUT,
    code("UNAVAILABLE"),
    code("NOT_FOUND"),
    refused(),
    refused(retryable=True),
    refused(never_executed=True),
]
WAITS = {
    StepState.BACKING_OFF,
    StepState.AWAITING_COMPLETION,
    StepState.COMPENSATION_BACKING_OFF,
    StepState.COMPENSATION_AWAITING_COMPLETION,
}


class Model:
    """What an onlooker knows who sees only calls and answers."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.may = 0
        """Steps whose effect may be there: succeeded, ambiguous, or still under way."""
        self.seen = 0

    def check_calls(self) -> None:
        """Each new compensation comes after those of everything that may have happened behind it."""
        definition = self.play.saga.definition
        for call in self.play.called[self.seen :]:
            index = self.play.index(call.lstrip("-"))
            if call.startswith("-"):
                behind = list(bits(definition.steps[index].descendants & self.may))
                assert not behind, f"{call} before {[definition.steps[i].step_id for i in behind]}"
            elif not definition.steps[index].read_only:
                self.may |= 1 << index
        self.seen = len(self.play.called)

    def answered(self, index: int, direction: Direction, outcome: Outcome, *, sticky: bool) -> None:
        settled = isinstance(outcome, Failed) and not outcome.ambiguous and not sticky
        cleared = isinstance(outcome, Failed) and outcome.never_executed
        undone = direction is Direction.COMPENSATION and isinstance(outcome, Success)
        if undone or (direction is Direction.ACTION and (settled or cleared)):
            self.may &= ~(1 << index)


@settings(max_examples=300)
@given(message=valid_definitions(), data=st.data())
def test_every_run_ends_with_compensations_in_reverse(message: DefinitionMessage, data: st.DataObject) -> None:
    play = Play(message, input={"amount": 20})
    model = Model(play)
    model.check_calls()
    sticky: set[int] = set()
    for turn in range(2000):
        if play.saga.ended or play.state is SagaState.PARKED:
            break
        calm = turn > 60  # in the end everything answers well
        waiting = [i for i, s in enumerate(play.saga.steps) if s.state in WAITS]
        if play.calls and (calm or not waiting or data.draw(st.booleans())):
            index, direction = play.calls[0] if calm else data.draw(st.sampled_from(play.calls))
            outcome = Success(None) if calm else data.draw(st.sampled_from(OUTCOMES))
            if isinstance(outcome, Failed) and outcome.ambiguous and direction is Direction.ACTION:
                sticky.add(index)
            if isinstance(outcome, Failed) and outcome.never_executed:
                sticky.discard(index)
            compensating = play.saga.compensating
            before = play.step(play.saga.definition.steps[index].step_id).state
            play.answer(play.saga.definition.steps[index].step_id, outcome)
            not_sent = isinstance(outcome, NotSent) and compensating and before is StepState.RUNNING
            if not_sent and index not in sticky:
                model.may &= ~(1 << index)
            model.answered(index, direction, outcome, sticky=index in sticky)
        elif waiting:
            index = waiting[0] if calm else data.draw(st.sampled_from(waiting))
            state = play.saga.steps[index].state
            play.wait_over(play.saga.definition.steps[index].step_id)
            if state is StepState.AWAITING_COMPLETION and play.saga.steps[index].may_have_happened:
                sticky.add(index)
        if not calm and data.draw(st.integers(0, 30)) == 0:
            sticky |= {i for i, d in play.calls if d is Direction.ACTION}
            play.crash()
        # A back-off without ambiguity that the turn has ended is certainly without effect.
        for i, s in enumerate(play.saga.steps):
            if s.state is StepState.REFUSED and i not in sticky:
                model.may &= ~(1 << i)
        model.check_calls()
    assert play.saga.ended or play.state is SagaState.PARKED
    if play.state is SagaState.COMPENSATED:
        assert model.may == 0
