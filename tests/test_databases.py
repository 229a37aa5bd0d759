"""URLs of data bases show no secret."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from submitd.databases import readUrl, shownUrl
from submitd.policies.ownersquery import OwnersQuery
from submitd.spool.database import Database

EXAMPLE = "postgresql:///x"


class UrlTests(SynchronousTestCase):
    """Reading and showing."""

    def test_shown(self) -> None:
        """Neither a password before the host nor one behind the question mark."""
        for text, shown in (
            ("postgresql://me:s3cret@h:1/x", "postgresql://me:***@h:1/x"),
            ("postgresql:///x?host=h&password=s3cret&port=1", "postgresql:///x?host=h&port=1"),
            ("postgresql:///x?sslpassword=s3cret&user=me", "postgresql:///x?user=me"),
            ("postgresql://h/x?pasword=s3cret", "postgresql://h/x"),
        ):
            self.assertEqual(shownUrl(readUrl(text, EXAMPLE)), shown)

    def test_wrong(self) -> None:
        """What cannot be read is not repeated."""
        for text in (
            "postgresql:/me:s3cret@h/x",
            "postgres//me:s3cret@h/x",
            "s3cret",
            "postgresql://me:s3@cr:et@h/x",
            "postgresql://h:54x/x",
        ):
            with self.assertRaises(ValueError) as caught:
                readUrl(text, EXAMPLE)
            self.assertEqual(str(caught.exception), 'url must be such as "postgresql:///x"')

    def test_at(self) -> None:
        """What stands behind an "@" of the password is no host, and is not shown as one."""
        for text in ("me:s3@cret@h/x", "me:s3@cr/et@h/x", "me:s3@cr?et@h/x"):
            with self.assertRaises(ValueError) as caught:
                readUrl(f"postgresql://{text}", EXAMPLE)
            said = 'url must have "%40" for an "@" in its password'
            self.assertEqual(str(caught.exception), said)
        self.assertEqual(readUrl("postgresql://me:s3%40cret@h/x", EXAMPLE).password, "s3@cret")

    def test_used(self) -> None:
        """The spool and sender-owner show theirs so, also in what they say of a failure."""
        url = "postgresql://127.0.0.1:1/x?password=s3cret&nonsense=s3cret"
        for each in (Database(url=url), OwnersQuery(url, "SELECT :login", 0)):
            said = [each.name, *each.check()]
            self.assertEqual(len(said), 2)
            said.append(repr(each))
            self.assertNotIn("s3cret", str(said))
