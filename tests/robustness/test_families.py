"""Each family of input against a started service: one test per check, by all its ways."""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.robustness.checks import Check, Family, NotOffered, Wrong
from tests.robustness.families import FAMILIES
from tests.robustness.peer import randomWays
from tests.robustness.service import LONG, robust

# What the service logs when something happened that should not happen, whatever a client sends.
_UNEXPECTED = re.compile(r"Traceback|Unhandled|#error|#critical|policy failed")


class FamilyTestCase(SynchronousTestCase):
    """Tests of one family; after each the service must run, and have logged nothing unexpected."""

    def setUp(self) -> None:
        """Have the service."""
        self.robust = robust()
        self._logged = len(self.robust.service.log)

    def check(self, check: Check) -> None:
        """Run one check by all its ways."""
        ways = [*check.ways, *(randomWays(40) if LONG and len(check.ways) > 1 else ())]
        for way in ways:
            try:
                check(self.robust.target, way)
            except (Wrong, NotOffered, AssertionError) as error:
                said = "\n".join(self.robust.service.log[self._logged :].splitlines()[-12:])
                self.fail(f"{check.name}, {way.name}: {error}\n{said}")
        service = self.robust.service
        self.assertTrue(service.isRunning, service.log[-4000:])
        self.assertIsNone(_UNEXPECTED.search(service.log[self._logged :]), service.log[-4000:])


def _test(check: Check) -> Callable[[FamilyTestCase], None]:
    def test(self: FamilyTestCase) -> None:
        self.check(check)

    test.__doc__ = check.promise
    return test


def _tests(family: Family) -> type[FamilyTestCase]:
    title = "".join(word.capitalize() for word in re.findall("[A-Za-z]+", family.name))
    methods = {
        "test_" + re.sub(r"[^0-9A-Za-z]+", "_", check.name).strip("_"): _test(check)
        for check in family
    }
    assert len(methods) == len(family.checks), f"{family.name}: two checks have one name"
    return type(f"{title}Tests", (FamilyTestCase,), {**methods, "__doc__": family.name})


for _family in FAMILIES:
    _case = _tests(_family)
    _case.__module__ = __name__
    globals()[_case.__name__] = _case
del _case


class WholeTests(SynchronousTestCase):
    """What holds for all families together."""

    def test_nothingMissing(self) -> None:
        """Every family has checks; the suite has not been emptied by accident."""
        self.assertGreaterEqual(sum(len(family.checks) for family in FAMILIES), 250)
        self.assertEqual([family.name for family in FAMILIES if not family.checks], [])
