"""The dialogue is held to the table of states: each verb in each state, and where it leads.

What is to come of a verb is written here a second time, from RFC 5321 4.1.4, 3207, 3030 and 4954,
and must agree both with :mod:`submitd.states` and with what a connection does.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from submitd.extensions import extensions
from submitd.interfaces import IConnectionPolicy
from submitd.states import FRAMING, VERBS, Framing, State, Verb
from submitd.submission import Limits
from submitd.wire.network import Networks
from tests.fixtures import Conversation, makePortal, makeSubmission

PROXIES = Networks.parse(["192.0.2.7"])

TABLE: dict[str, Verb] = {
    row.name.decode(): row
    for row in (*VERBS, *(row for one in extensions() for row, _ in one.verbs))
}

PATHS: dict[State, list[str]] = {
    State.GREETED: [],
    State.READY: ["EHLO c"],
    State.MAIL: ["EHLO c", "MAIL FROM:<a@b.example>"],
    State.RCPT: ["EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>"],
    State.CHUNKED: ["EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "BDAT 0"],
    State.DATA: ["EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"],
    State.BDAT: ["EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "BDAT 5000"],
    State.AUTH: ["EHLO c", "AUTH PLAIN"],
    State.TLS: ["EHLO c", "STARTTLS"],
    State.CLOSED: ["QUIT"],
}
"""How to get to each state, but for CONNECTED."""

G, R, M, T, C = State.GREETED, State.READY, State.MAIL, State.RCPT, State.CHUNKED

# verb -> a good line, its code, and state -> the next one; in what states it may not come.
EXPECTED: dict[str, tuple[str, int, dict[State, State]]] = {
    "EHLO": ("EHLO c", 250, dict.fromkeys((G, R, M, T, C), R)),
    "HELO": ("HELO c", 250, dict.fromkeys((G, R, M, T, C), R)),
    "MAIL": ("MAIL FROM:<a@b.example>", 250, {R: M}),
    "RCPT": ("RCPT TO:<c@d.example>", 250, {M: T, T: T}),
    "DATA": ("DATA", 354, {T: State.DATA}),
    "BDAT": ("BDAT 0", 250, {T: C, C: C}),
    "RSET": ("RSET", 250, {G: G, R: R, M: R, T: R, C: R}),
    "NOOP": ("NOOP", 250, {each: each for each in (G, R, M, T, C)}),
    "HELP": ("HELP", 214, {each: each for each in (G, R, M, T, C)}),
    "VRFY": ("VRFY a", 252, {each: each for each in (G, R, M, T, C)}),
    "QUIT": ("QUIT", 221, dict.fromkeys((G, R, M, T, C), State.CLOSED)),
    "AUTH": ("AUTH PLAIN", 334, {R: State.AUTH}),
    "STARTTLS": ("STARTTLS", 220, {R: State.TLS}),
    "XCLIENT": ("XCLIENT ADDR=203.0.113.9", 220, {G: G, R: G}),
    "XFORWARD": ("XFORWARD ADDR=203.0.113.9", 250, {R: R}),
}


@implementer(IConnectionPolicy)
class Slow:
    """Lets nobody in for the time being."""

    def connectionMade(self, session: object) -> Deferred[None]:
        self.waiting: Deferred[None] = Deferred()
        return self.waiting


def conversation(lmtp: bool = False, policies: tuple[object, ...] = ()) -> Conversation:
    """A connection that has everything and requires nothing."""
    made = Conversation(
        makeSubmission(
            Clock(),
            portal=makePortal(alice="secret"),
            requireTLS=False,
            loginRequired=False,
            insecureLogin=True,
            lmtp=lmtp,
            policies=list(policies),
            xclientFrom=PROXIES,
            xforwardFrom=PROXIES,
            limits=Limits(unrecognized=0, refusals=0, loginFailures=0),
        )
    )
    made.transport.clear()
    return made


class TableTests(SynchronousTestCase):
    """Each verb in each state."""

    def at(self, state: State, lmtp: bool = False) -> Conversation:
        """A connection that stands there."""
        talk = conversation(lmtp)
        for line in PATHS[state]:
            talk.say(line.replace("EHLO", "LHLO") if lmtp else line)
        self.assertIs(talk.protocol.dialogue.state, state)
        return talk

    def test_complete(self) -> None:
        """Every verb of the table is checked here, and every state can be got to."""
        self.assertEqual(set(EXPECTED) | {"LHLO"}, set(TABLE))
        self.assertEqual(set(PATHS) | {State.CONNECTED}, set(State))

    def test_states(self) -> None:
        """The table says of each verb where it may come, as it is written here."""
        for name, (_, _, following) in EXPECTED.items():
            self.assertEqual(set(following), set(TABLE[name].states), name)

    def test_everywhere(self) -> None:
        """Where a verb may come it has its code and leads where it should; else it is 503."""
        for name, (line, code, following) in EXPECTED.items():
            for state in (G, R, M, T, C):
                for lmtp in (False, True):
                    talk = self.at(state, lmtp)
                    said = talk.say(_spoken(line, lmtp))
                    now = talk.protocol.dialogue.state
                    if name == "HELO" and lmtp:
                        self.assertEqual((said[:3], now), ("500", state))
                    elif state in following:
                        self.assertEqual(
                            (said[:3], now), (str(code), following[state]), (name, state)
                        )
                    elif name == "BDAT":  # RFC 3030 2: what is refused ends the transaction
                        ready = G if state is G else R
                        self.assertEqual((said[:3], now), ("503", ready), (name, state))
                    else:
                        self.assertEqual((said[:3], now), ("503", state), (name, state))

    def test_argument(self) -> None:
        """An argument too many or too few is 501, and leads nowhere."""
        for name, (line, _, following) in EXPECTED.items():
            wanted = TABLE[name].argument
            if wanted is None or name == "BDAT":
                continue
            for state in following:
                talk = self.at(state)
                said = talk.say(name if wanted else f"{line} x")
                self.assertEqual((said[:3], talk.protocol.dialogue.state), ("501", state), name)

    def test_wrongProtocol(self) -> None:
        """LHLO belongs to LMTP, EHLO to SMTP (RFC 2033 4.1)."""
        for lmtp, line in ((False, "LHLO c"), (True, "EHLO c")):
            talk = conversation(lmtp)
            self.assertEqual((talk.say(line)[:3], talk.protocol.dialogue.state), ("500", G))

    def test_noCommandThere(self) -> None:
        """Where text, octets or a response are awaited no verb is one."""
        for name, (line, _, _) in EXPECTED.items():
            for state in (State.DATA, State.BDAT):
                talk = self.at(state)
                self.assertEqual(talk.say(line), "", name)
                self.assertIs(talk.protocol.dialogue.state, state)
            talk = self.at(State.AUTH)
            self.assertEqual((talk.say(line)[:3], talk.protocol.dialogue.state), ("501", R), name)

    def test_nothingThere(self) -> None:
        """Before the handshake is over, and behind the end, nothing is read or answered."""
        for state in (State.TLS, State.CLOSED):
            self.assertIs(FRAMING[state], Framing.NOTHING)
            for line, _, _ in EXPECTED.values():
                talk = self.at(state)
                self.assertEqual((talk.say(line), talk.protocol.dialogue.state), ("", state))

    def test_connected(self) -> None:
        """Before the greeting every verb waits, and is answered behind it."""
        for line, _, _ in EXPECTED.values():
            slow = Slow()
            talk = conversation(policies=(slow,))
            self.assertIs(talk.protocol.dialogue.state, State.CONNECTED)
            self.assertEqual(talk.say(line), "")
            slow.waiting.callback(None)
            said = talk.transport.taken()
            if not slow.waiting.called:  # XCLIENT begins again
                slow.waiting.callback(None)
                said += talk.transport.taken()
            self.assertEqual(said[:3], b"220", line)
            self.assertGreater(said.count(b"\r\n"), 1, line)

    def test_login(self) -> None:
        """A login leads back to where it began, good or not."""
        for response, code in (("AGFsaWNlAHNlY3JldA==", "235"), ("AGFsaWNlAHdyb25n", "535")):
            talk = self.at(State.AUTH)
            self.assertEqual((talk.say(response)[:3], talk.protocol.dialogue.state), (code, R))

    def test_endOfMessage(self) -> None:
        """The end of a message leads back to where one may begin."""
        talk = self.at(State.DATA)
        self.assertEqual((talk.say("x", ".")[:3], talk.protocol.dialogue.state), ("250", R))
        talk = self.at(State.BDAT)
        talk.send(b"x" * 4998 + b"\r\n")
        self.assertIs(talk.protocol.dialogue.state, C)
        self.assertEqual((talk.say("BDAT 0 LAST")[:3], talk.protocol.dialogue.state), ("250", R))

    def test_handshake(self) -> None:
        """Behind the handshake all begins again (RFC 3207 4.2)."""
        talk = self.at(State.TLS)
        talk.secure()
        self.assertIs(talk.protocol.dialogue.state, G)


def _spoken(line: str, lmtp: bool) -> str:
    return line.replace("EHLO", "LHLO") if lmtp else line
