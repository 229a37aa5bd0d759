"""aiosmtplib, a client on asyncio."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import SkipTest

from tests.clients import mechanisms, messages
from tests.clients.case import (
    RECIPIENT,
    SENDER,
    USERS,
    UTF8_RECIPIENT,
    UTF8_SENDER,
    WRONG,
)
from tests.clients.running import HOST

try:
    import aiosmtplib
except ImportError:
    aiosmtplib = None  # type: ignore[assignment]

LOGINS = {
    "PLAIN": "auth_plain",
    "LOGIN": "auth_login",
    "CRAM-MD5": "auth_crammd5",
    "XOAUTH2": "auth_xoauth2",
}


class AiosmtplibTests(mechanisms.Tokens):
    """A message by each mechanism, over both kinds of TLS."""

    def setUp(self) -> None:
        """Have the library and the service."""
        if aiosmtplib is None:
            raise SkipTest("aiosmtplib is not installed")
        super().setUp()

    def _connect(
        self,
        work: Callable[[Any], Awaitable[Any]],
        implicit: bool = False,
        authority: str = "",
    ) -> Any:
        async def connected() -> Any:
            client = aiosmtplib.SMTP(
                hostname=HOST,
                port=self.service.ports["implicit" if implicit else "starttls"],
                use_tls=implicit,
                start_tls=not implicit,
                tls_context=ssl.create_default_context(cafile=authority or self.authority),
                timeout=30,
            )
            async with client:
                await client.ehlo()
                return await work(client)

        return asyncio.run(connected())

    def submit(self, mechanism: str, message: bytes, implicit: bool = False) -> None:
        """See :meth:`mechanisms.Passwords.submit`."""
        user = USERS[mechanism]

        async def submit(client: Any) -> None:
            await getattr(client, LOGINS[mechanism])(user.name, user.secret)
            await client.sendmail(SENDER, [RECIPIENT], message, mail_options=["BODY=8BITMIME"])

        self._connect(submit, implicit)
        self.assertKept(message, mechanism)

    def test_utf8(self) -> None:
        """A message with UTF-8 in addresses and header arrives under SMTPUTF8."""
        user = USERS["PLAIN"]

        async def submit(client: Any) -> None:
            await client.login(user.name, user.secret)
            await client.sendmail(
                UTF8_SENDER,
                [UTF8_RECIPIENT],
                messages.utf8(),
                mail_options=["SMTPUTF8", "BODY=8BITMIME"],
            )

        self._connect(submit)
        kept = self.kept(UTF8_SENDER, [UTF8_RECIPIENT], "UTF8SMTPSA")
        self.assertSame(kept.message, messages.utf8())

    def test_wrong(self) -> None:
        """A wrong password, secret or token is 535, by each mechanism."""

        async def attempt(client: Any, mechanism: str, name: str) -> int:
            try:
                await getattr(client, LOGINS[mechanism])(name, WRONG)
            except aiosmtplib.SMTPAuthenticationError as error:
                return error.code
            return 235

        for mechanism in LOGINS:
            name = USERS[mechanism].name
            code = self._connect(functools.partial(attempt, mechanism=mechanism, name=name))
            self.assertEqual(code, 535)
            self.assertIn(f"mechanism={mechanism}", self.logged)
        self.assertNoLogin()

    def test_stranger(self) -> None:
        """A certificate of another authority is not believed."""

        async def nothing(client: Any) -> None:
            raise AssertionError("connected")

        # It wraps the error of implicit TLS in one of its own.
        for implicit in (False, True):
            with self.assertRaises((ssl.SSLCertVerificationError, aiosmtplib.SMTPConnectError)):
                self._connect(nothing, implicit, self.stranger)
        self.assertToldNothing()
