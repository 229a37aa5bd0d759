"""How many examples: a few in each run of the tests, very many in the long form."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

LONG = bool(os.environ.get("SUBMITD_TEST_LONG"))


def examples(count: int, steps: int = 50) -> settings:
    """Settings for so many examples; what is found in the long form is printed as code.

    :param steps: of a state machine.
    """
    return settings(
        max_examples=count * 50 if LONG else count,
        stateful_step_count=steps,
        deadline=None,
        derandomize=not LONG,
        # To make an example small can take minutes; the long form does.
        phases=tuple(Phase) if LONG else (Phase.explicit, Phase.generate),
        database=None,
        suppress_health_check=list(HealthCheck),
    )
