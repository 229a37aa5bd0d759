"""How many examples: a few in each run of the tests, very many in the long form."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

LONG = bool(os.environ.get("SUBMITD_TEST_LONG"))


def examples(count: int, steps: int = 50, quick: bool = not LONG) -> settings:
    """Settings for so many examples; what is found in the long form is made small.

    :param steps: of a state machine.
    :param quick: the same examples each time, and none is made small: that can take minutes.
    """
    return settings(
        max_examples=count * 50 if LONG else count,
        stateful_step_count=steps,
        deadline=None,
        derandomize=quick,
        phases=(Phase.explicit, Phase.generate) if quick else tuple(Phase),
        database=None,
        suppress_health_check=list(HealthCheck),
    )
