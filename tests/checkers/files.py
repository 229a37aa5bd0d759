"""What the tests of several back ends need: files of users that change, and the events of that."""

from __future__ import annotations

import os
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from submitd.checkers import LoginUnavailable

# The password of all of these is "wonder"; they cost next to nothing.
HASHES = {
    "argon2": "$argon2id$v=19$m=64,t=1,p=1$HmNsbS1FKMWYE6I0xlgrJQ"
    "$gd7xmCOQJXxBR980RoKeu8hNbsCeY1LztGrEsALFAUg",
    "bcrypt": "$2b$04$8dG/vsGt95wovta2N2MJB.kk02.8.7umL2zarOai9rl1s3n5B2A2.",
    "scrypt": "$scrypt$ln=2,r=8,p=1$TakVwhhjTKmV0tp7DyFkTA"
    "$/o0y9Z+FtQ2SNoV+jgq9N++MQ963e/Yuwjy5e8hxxko",
    "sha512_crypt": "$6$rounds=1000$q3BVaT1bMPwNJvn4$tJW9bqvgbKbFpS3HWtHj62aLsNEXLi2Kht1OjaFVlFu"
    "CpCBIhRcs5GEySYfe5m3oXjYryHN6k2hWUEdXQKMDS0",
    "sha256_crypt": "$5$rounds=1000$.JNSqyeWJfev.XXa$T.72CklV..g0A/VtgzTJ/rqkMy8D9R7gFN5fjmm/z4C",
    "pbkdf2_sha512": "$pbkdf2-sha512$10$pzSGMKaU0lqrtdZ6bw2hFA$3xJaieJBVlX1EKyl/QdEYOl/DoD7NbcNAbg"
    "yVPp9woH65f0ZrAxK9JUhjYmhqqy6e8BwmgLsXZW/vT/lL6GRdg",
    "pbkdf2_sha256": "$pbkdf2-sha256$10$bM15b63V.l9rTQmBMCaE8A"
    "$ZTiyZC8RMAL/dKOlmJz3JfzW1aerqwlPxoh9B7o9R9g",
}


class FileTestCase(SynchronousTestCase):
    """A file of users, and what was logged about it.

    :ivar path: where :meth:`write` writes.
    """

    def setUp(self) -> None:
        """Begin without a file."""
        self.path = self.mktemp()
        self._events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self._events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self._events.append)

    def write(self, *lines: str | bytes, mode: int = 0o600) -> str:
        """Put a new file of these lines in place of the old one, as a good editor does."""
        with open(self.path + ".new", "wb") as file:
            for line in lines:
                file.write((line.encode() if isinstance(line, str) else line) + b"\n")
        os.chmod(self.path + ".new", mode)
        os.rename(self.path + ".new", self.path)
        return self.path

    def problems(self) -> list[tuple[int | None, str]]:
        """Line and text of each problem logged since the last call; each names the file."""
        told = [event for event in self._events if event.get("event") == "file-problem"]
        self._events.clear()
        self.assertEqual({event["file"] for event in told} - {self.path}, set())
        return [(event.get("line"), event["problem"]) for event in told]

    def assertLogin(self, login: Deferred[Any], name: bytes) -> None:
        """The login has come out as that name."""
        self.assertEqual(self.successResultOf(login), name)

    def assertRefused(self, login: Deferred[Any]) -> None:
        """The login has been refused."""
        self.failureResultOf(login, UnauthorizedLogin)

    def assertUnavailable(self, login: Deferred[Any]) -> None:
        """The login could not be decided: 454, not 535."""
        failure = self.failureResultOf(login, LoginUnavailable)
        self.assertEqual(failure.value.reply.code, 454)
