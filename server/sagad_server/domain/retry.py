"""Retry arithmetic: capped exponential back-off with full jitter.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from sagad_server.domain.definition import StepDefinition


def backoff_ms(step: StepDefinition, failures: int, random: float, retry_after_ms: int = 0) -> int:
    """The pause before the next attempt, in milliseconds, at least 1.

    `failures` counts those before this one (0 for the first), `random` is in [0, 1). A participant's wish is obeyed up
    to the cap.
    """
    assert failures >= 0, failures
    assert 0 <= random < 1, random
    # The exponent is bounded so that no float overflows: the cap has won long before.
    bound = min(step.max_backoff_ms, step.initial_backoff_ms * step.multiplier ** min(failures, 64))
    return max(1, int(random * bound), min(retry_after_ms, step.max_backoff_ms))
