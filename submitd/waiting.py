"""What somebody answers now or later: a value, or a Deferred or coroutine of one.

What is there at once is gone on with at once, without a Deferred, which costs as much as a command.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from functools import partial
from inspect import iscoroutine
from typing import Any, NoReturn, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure

T = TypeVar("T")


class Overdue(Exception):
    """There was no answer within the time limit."""


def asDeferred(waiting: Deferred[Any] | Coroutine[Any, Any, Any]) -> Deferred[Any]:
    """A Deferred for what a policy, delivery or checker returned to wait for.

    :raise TypeError: for anything else: a policy that returns ``True`` has misunderstood, and
        taking that for consent would fail open.
    """
    if isinstance(waiting, Deferred):
        return waiting
    if iscoroutine(waiting):
        return Deferred.fromCoroutine(waiting)
    raise TypeError(f"neither None nor a Deferred nor a coroutine: {type(waiting).__name__}")


def promised(answer: Any) -> Any:
    """What somebody may answer later: a coroutine becomes a Deferred, all else stays as it is."""
    return Deferred.fromCoroutine(answer) if iscoroutine(answer) else answer


def runNow(coroutine: Coroutine[Any, Any, T]) -> T | Deferred[T]:
    """Run a coroutine; one that nobody keeps waiting ends at once, and needs no Deferred.

    :return: what it returns, or a Deferred of that where it has to wait.
    :raise Exception: what it raises, where it does so before it has to wait.
    """
    try:
        waiting = coroutine.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    return Deferred.fromCoroutine(_goOn(coroutine, waiting))


def _goOn(coroutine: Coroutine[Any, Any, T], waiting: Any) -> Generator[Any, Any, T]:
    """What a coroutine does from where it waits for ``waiting``."""
    while True:
        try:
            result = yield waiting
        except GeneratorExit:
            coroutine.close()  # where both are garbage, it may have been closed already
            raise
        except BaseException as error:
            resume = partial(coroutine.throw, error)
        else:
            resume = partial(coroutine.send, result)
        try:
            waiting = resume()
        except StopIteration as ended:
            returned: T = ended.value
            return returned


def then(result: Any, call: Callable[..., Any], *arguments: Any) -> Any:
    """``call(result, *arguments)``, now, or when a Deferred fires."""
    if isinstance(result, Deferred):
        return result.addCallback(call, *arguments)
    return call(result, *arguments)


async def over(waiting: Awaitable[object] | None) -> None:
    """Wait, where there is something to wait for."""
    if waiting is not None:
        await waiting


def allOf(waiting: Iterable[Deferred[Any]]) -> Deferred[None]:
    """Wait for all of them.

    :return: fires with ``None``; fails as the first of them that does, and the failures of the
        others are nobody's.
    """
    return gatherResults(waiting, consumeErrors=True).addCallbacks(_nothing, _first)


def _nothing(_: object) -> None:
    """What they have answered is left to those who asked each."""


def _first(failure: Failure) -> Failure:
    """What went wrong, without the wrapping of gatherResults."""
    return failure.value.subFailure if isinstance(failure.value, FirstError) else failure


def overdue(result: object, timeout: float) -> NoReturn:
    """What a Deferred's time limit calls, in place of failing as one that nobody wants any more.

    :raise Overdue: in any case.
    """
    raise Overdue(f"no answer within {timeout:g} s")
