"""The one exception of the dialogue.

Whoever says no -- a parser, a policy, a checker, a delivery -- raises :class:`Refused`.  It has two
sides: ``reply`` is what the client reads, generic and safe; ``cause`` is why, for the log alone.
"""

from __future__ import annotations

from submitd.wire.reply import Reply


class Refused(Exception):
    """A refusal: a public reply and a private cause.

    :param reply: what the client is told; its code must be 4yz or 5yz.
    :param cause: what the log says about it; never sent.
    :ivar origin: who refused, for the log: the policy and its stage, filled in by the pipeline.
    :ivar transaction: what the log says of the mail transaction where that is over already.
    """

    def __init__(self, reply: Reply, cause: str | None = None) -> None:
        if reply.code < 400:
            raise ValueError(f"a refusal needs a 4yz or 5yz reply, not {reply.code}")
        super().__init__(reply, cause)
        self.reply = reply
        self.cause = cause
        self.origin = ""
        self.transaction: dict[str, object] = {}

    def __str__(self) -> str:
        said = f"{self.reply.code} {self.reply.status} {' / '.join(self.reply.lines)}"
        return f"{said} ({self.cause})" if self.cause else said
