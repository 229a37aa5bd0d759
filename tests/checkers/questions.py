"""A question over HTTP that goes over no wire, and its answer."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone


class Question:
    """What the provider was asked, and how it answers."""

    def __init__(self, method: bytes, url: bytes, headers: Any, body: Any) -> None:
        self.method, self.url, self.headers = method, url, headers
        self.body = body._inputFile.getvalue() if body is not None else b""
        self.closed = False
        self.answered: Deferred[Any] = Deferred(lambda _: setattr(self, "closed", True))

    @property
    def form(self) -> dict[str, list[str]]:
        """The fields of its form."""
        return parse_qs(self.body.decode("ascii"), strict_parsing=True)

    def header(self, name: str) -> str:
        """The one value of a field."""
        [value] = self.headers.getRawHeaders(name)
        return str(value)

    def deliverBody(self, reader: Any) -> None:
        """See IResponse."""
        reader.makeConnection(self)
        for at in range(0, len(self.said), 50_000):
            reader.dataReceived(self.said[at : at + 50_000])
        reader.connectionLost(Failure(ResponseDone()))

    def loseConnection(self) -> None:
        """See ITransport."""
        self.closed = True

    def answer(self, said: Any, code: int = 200) -> None:
        """Answer."""
        self.code = code
        self.said = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.answered.callback(self)
