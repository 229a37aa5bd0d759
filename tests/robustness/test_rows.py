"""Every row is checked, and every check belongs to one."""

from __future__ import annotations

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from tests.robustness.families import FAMILIES
from tests.robustness.peer import WAYS
from tests.robustness.rows import ROWS

CHECKS = [f"{family.name}: {check.name}" for family in FAMILIES for check in family]


class RowTests(SynchronousTestCase):
    """The table of rows."""

    def test_exist(self) -> None:
        """What a row names is there: a check of a family, or a test."""
        missing = [
            f"{row}: {name}" for row, names in ROWS.items() for name in names if not _exists(name)
        ]
        self.assertEqual(missing, [])

    def test_allBelong(self) -> None:
        """No check belongs to no row."""
        beginnings = tuple(name for names in ROWS.values() for name in names)
        self.assertEqual([each for each in CHECKS if not each.startswith(beginnings)], [])

    def test_ways(self) -> None:
        """Checks go whole, octet by octet, and cut over segments and records, but for a few.

        Those have a cut of their own, or so many octets that they could not be cut.
        """
        self.assertGreaterEqual(len(WAYS), 5)
        once = [check.name for family in FAMILIES for check in family if len(check.ways) == 1]
        self.assertLess(len(once), len(CHECKS) / 5, once)


def _exists(name: str) -> bool:
    module, _, attribute = name.partition(":")
    if module.startswith("tests.") and not attribute.startswith(" "):
        case, _, method = attribute.partition(".")
        return method in dir(getattr(namedAny(module), case, None))
    return any(each.startswith(name) for each in CHECKS)
