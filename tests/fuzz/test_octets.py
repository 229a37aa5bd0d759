"""A whole connection with any octets: the same replies however they come, and nothing unforeseen.

What a client sends at once, octet by octet or cut anywhere is the same to the server.  Each reply
is well-formed, there are no more of them than lines, nothing is logged as an error, and a message
is kept or not, never half.
"""

from __future__ import annotations

import re

from twisted.internet.task import Clock

from submitd.states import State
from submitd.submission import Limits
from tests.fixtures import Conversation, MemoryDelivery, makePortal, makeSubmission
from tests.fuzz.target import Target, cuttings, nothingLogged, same
from tests.fuzz.test_wire import LONG, ODD, TEXT, isBare

REPLY = re.compile(rb"(?:([2-5]\d\d)-[^\r\n]*\r\n)*([2-5]\d\d) [^\r\n]*\r\n")


def submission(data: bytes) -> None:
    """Submission: as many replies as commands, and the same for each way of cutting."""
    for lmtp in (False, True):
        _, codes, kept = same([_codes(chunks, lmtp) for chunks in cuttings(data)])
        lines = data.count(b"\n") + 1
        # LMTP has one for each recipient, of which there are no more than lines.
        assert len(codes) <= (lines * lines if lmtp else lines) + 1
        assert len(kept) <= lines and not any(map(isBare, kept))


def _codes(chunks: list[bytes], lmtp: bool) -> tuple[State, list[int], list[bytes]]:
    delivery = MemoryDelivery()
    talk = Conversation(
        makeSubmission(
            Clock(),
            delivery=delivery,
            portal=makePortal(alice="secret"),
            requireTLS=False,
            loginRequired=False,
            insecureLogin=True,
            lmtp=lmtp,
            limits=Limits(messageSize=100_000, recipients=5, unrecognized=8, headerSize=1000),
        )
    )
    dialogue, transport = talk.protocol.dialogue, talk.transport
    with nothingLogged():
        for chunk in filter(None, chunks):
            if not transport.disconnecting:
                talk.protocol.dataReceived(chunk)
        state, said = dialogue.state, transport.taken()
        talk.lose()
    assert transport.taken() == b""
    assert [each.state for each in delivery.begun if each.state == "open"] == []
    codes, at = [], 0
    while found := REPLY.match(said, at):
        assert found[1] in (None, found[2]), "the codes of one reply differ"
        codes.append(int(found[2]))
        at = found.end()
    assert at == len(said), f"not a reply: {said[at:]!r}"
    assert transport.disconnecting is (state is State.CLOSED)
    assert len(talk.protocol._buffer) <= 20000
    binary = [one for one in delivery.messages if one.envelope.bodyType == "BINARYMIME"]
    return state, codes, [one.text for one in delivery.messages if one not in binary]


OPENING = b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
OCTETS = Target(
    "octets",
    submission,
    [
        b"EHLO a\r\n",
        b"LHLO a\r\n",
        b"HELO a\r\n",
        b"MAIL FROM:<a@b.example>\r\n",
        b"MAIL FROM:<>",
        b"RCPT TO:<c@d.example>\r\n",
        b"RCPT TO:<d@d.example>\r\n",
        b"DATA\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"BDAT 5\r\n",
        b"BDAT 5 LAST\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT x\r\n",
        b"12345",
        b"BDAT 200000\r\n",
        b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n",
        b"AUTH LOGIN\r\n",
        b"YWxpY2U=\r\n",
        b"c2VjcmV0\r\n",
        b"*\r\n",
        b"QUIT\r\n",
        b"STARTTLS\r\n",
        b"VRFY a\r\n",
        b"HELP\r\n",
        b"XYZZY\r\n",
        b" BODY=BINARYMIME",
        b" SIZE=1",
        b" SMTPUTF8",
        OPENING,
        OPENING + b"DATA\r\n",
        OPENING + b"BDAT 9\r\n",
        b"x" * 13000,
        b"BDAT ",
        b"XCLIENT NAME=a\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
        *LONG,
        *TEXT,
        *ODD,
    ],
    60,
    20,
)

OctetsTests = OCTETS.tests(__name__)
