"""Several back ends behind one Portal, which keeps only one checker per kind of credentials.

They are asked in order, and the first that says yes is believed.  All are asked for an unknown user
as for a known one with a wrong password, so that the time tells nothing.  Where none says yes and
one could not tell, the login is :class:`LoginUnavailable`: the user may well be there.  Of those
that say no, the first that says why is heard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from submitd import events
from submitd.checkers import AvatarId, LoginUnavailable
from submitd.checkers.salts import numberFor
from submitd.interfaces import IChecked, IRevised, IRunning, IScramSalts
from submitd.sasl.bearer import ForeignToken
from submitd.waiting import allOf


@implementer(ICredentialsChecker, IChecked, IRevised, IRunning, IScramSalts)
class CheckerChain:
    """Asks several checkers, in order.

    :param checkers: the back ends; each is asked for the credentials it has an interface for.
    """

    def __init__(self, checkers: Sequence[ICredentialsChecker]) -> None:
        self._checkers = tuple(checkers)
        # A dict, for a set would shuffle the Portal's order from start to start.
        union = {each: None for checker in checkers for each in checker.credentialInterfaces}
        self.credentialInterfaces: tuple[type[Interface], ...] = tuple(union)

    def check(self) -> list[str]:
        """What is wrong with each."""
        return [
            problem
            for checker in self._checkers
            if IChecked.providedBy(checker)
            for problem in checker.check()
        ]

    def revision(self) -> object:
        """What changes when any of them does."""
        return tuple(
            checker.revision() for checker in self._checkers if IRevised.providedBy(checker)
        )

    def start(self, reactor: Any) -> Deferred[None]:
        """Start those that run; fails with the first failure, and all are started all the same."""
        return self._each(lambda checker: checker.start(reactor))

    def stop(self) -> Deferred[None]:
        """Stop them."""
        return self._each(lambda checker: checker.stop())

    def _each(self, do: Callable[[Any], Deferred[None]]) -> Deferred[None]:
        running = [each for each in self._checkers if IRunning.providedBy(each)]
        return allOf([maybeDeferred(do, each) for each in running])

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """The name that the first of them gives.

        :raise UnauthorizedLogin: (the Deferred) when all say no.
        :raise LoginUnavailable: (the Deferred) when none says yes and one cannot tell.
        """
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: Any) -> AvatarId:
        others = _Others()
        for checker in self._checkers:
            if any(each.providedBy(credentials) for each in checker.credentialInterfaces):
                with others.asking(checker):
                    return await maybeDeferred(checker.requestAvatarId, credentials)
        raise others.unavailable or others.refused or UnauthorizedLogin()

    def saltOf(self, username: bytes) -> Deferred[Any]:
        """The salt of the first that knows the user.

        Where none does, it is what one of them has made up, for a name always the same one: that of
        another would be told of its users alone, and theirs may be of other costs.

        :raise LoginUnavailable: (the Deferred) when none knows the user and one cannot tell.
        """
        return Deferred.fromCoroutine(self._salt(username))

    async def _salt(self, username: bytes) -> Any:
        others, madeUp = _Others(), []
        for checker in self._checkers:
            salts = IScramSalts(checker, None)
            if salts is not None:
                with others.asking(checker):
                    salt: Any = await maybeDeferred(salts.saltOf, username)
                    if salt.isKnown:
                        return salt
                    madeUp.append(salt)
        if others.unavailable is not None or not madeUp:
            raise others.unavailable or LoginUnavailable("no back end has salts")
        return madeUp[numberFor(username, b"back end") % len(madeUp)]


class _Others:
    """Why those that were asked have not said yes.

    :ivar unavailable: the first "I cannot tell now".
    :ivar refused: the first "no" that says why; of a token, that of one who judges it.
    """

    def __init__(self) -> None:
        self.unavailable: LoginUnavailable | None = None
        self.refused: UnauthorizedLogin | None = None

    @contextmanager
    def asking(self, checker: object) -> Iterator[None]:
        """A block that asks one, and ends where that does not say yes."""
        try:
            yield
        except LoginFailed as error:
            # Of any other kind it would be an error of the checker to who asks, and no "no".
            if isinstance(error, UnauthorizedLogin) and str(error) and self._saysMore(error):
                self.refused = error
        except CancelledError:
            raise  # the one who asked has gone
        except LoginUnavailable as error:
            self.unavailable = self.unavailable or error
        except Exception as error:
            name = type(checker).__name__
            told = f"{name} failed; the next back end is asked"
            events.emit(events.SERVICE_PROBLEM, problem=told, failure=Failure())
            said = f"{name}: {type(error).__name__}"
            self.unavailable = self.unavailable or LoginUnavailable(said)

    def _saysMore(self, error: UnauthorizedLogin) -> bool:
        if isinstance(self.refused, ForeignToken):
            return not isinstance(error, ForeignToken)
        return self.refused is None
