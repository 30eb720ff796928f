"""The machine of `test_federation` over thousands of schedules, on all cores: `make test-federation`.

    FEDERATION_SCHEDULES=3000    how many, in batches of 100
    FEDERATION_SEED=0            the first batch's seed; each further one has the next

A batch is a test, and its seed decides its schedules: a run without variables is the same run each time. A batch that
fails is run again, alone, by `make test-federation FEDERATION_SEED=17 FEDERATION_SCHEDULES=100`; Hypothesis has made
the failing schedule as short as it can by then. What happened in all of them is summed up at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.test_federation import COUNTS, STEPS, Federation, check_not_idle, folder

__all__ = ["folder"]  # a fixture
BATCH = 100
SCHEDULES = int(os.environ.get("FEDERATION_SCHEDULES", "3000"))
FIRST = int(os.environ.get("FEDERATION_SEED", "0"))
SEEDS = range(FIRST, FIRST + -(-SCHEDULES // BATCH))

pytestmark = pytest.mark.federation


@pytest.mark.parametrize("number", SEEDS, ids="seed-{}".format)
def test_schedules(number: int, record_property: Callable[[str, object], None]) -> None:
    """Everything that `test_federation` says must hold holds, in each schedule that this seed gives."""
    COUNTS.clear()

    @seed(number)
    class Batch(Federation):
        pass

    try:
        rules = settings(max_examples=BATCH, stateful_step_count=STEPS, derandomize=False, database=None)
        run_state_machine_as_test(Batch, settings=rules)
    finally:
        record_property("federation", dict(COUNTS))
    check_not_idle(BATCH)
