"""The dialogue against a model that knows the table of states and nothing else of it.

A machine has several connections.  It sends commands, cut anywhere and pipelined; policies,
checker and delivery answer at once or later, in any order among the connections, in time or not;
clients vanish.  Whatever happens: each command has its replies (one; in LMTP one per recipient
behind a message), in order, with the code that :data:`submitd.states.VERBS` and the verdicts
demand, and the dialogue stands where the table says.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any, ClassVar

import attrs
from hypothesis import strategies as st
from hypothesis.errors import StopTest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from submitd.extensions.auth import Auth
from submitd.extensions.pipelining import Pipelining
from submitd.extensions.starttls import StartTLS
from submitd.interfaces import (
    IDataPolicy,
    IHelloPolicy,
    ILoginPolicy,
    IMessagePolicy,
    IRecipientPolicy,
    ISenderPolicy,
)
from submitd.realm import SubmissionRealm
from submitd.sasl import mechanism
from submitd.states import VERBS, State, Verb
from submitd.submission import Limits
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply
from tests.fixtures import Conversation, MemoryDelivery, makeSubmission
from tests.fuzz.examples import examples
from tests.fuzz.target import Machine

STAGE_LIMIT = 60.0
MAX_RECIPIENTS = 3

OK, RAISE, LATE = "ok", "raise", "late"

VERDICTS = st.sampled_from([OK] * 12 + ["450", "550", "421", RAISE])
WHEN = st.sampled_from([True, True, False])

GOOD = {b"EHLO": 250, b"HELO": 250, b"LHLO": 250, b"MAIL": 250, b"RCPT": 250, b"DATA": 354}
GOOD |= {b"RSET": 250, b"NOOP": 250, b"VRFY": 252, b"HELP": 214, b"QUIT": 221}
STAGES = {b"EHLO": "hello", b"HELO": "hello", b"LHLO": "hello", b"MAIL": "sender"}
STAGES |= {b"RCPT": "recipient", b"DATA": "data", b"AUTH": "login"}

TABLE: dict[bytes, Verb] = {
    row.name: row for row in (*VERBS, *(row for one in (Auth, StartTLS) for row, _ in one.verbs))
}

LOGIN = base64.b64encode(b"\0alice\0secret")


@attrs.frozen
class Command:
    """A line, and what is wrong with it by itself.

    :param code: what it gets where it may come, if not what is good for its verb.
    """

    line: bytes
    code: int = 0

    @property
    def verb(self) -> bytes:
        """The verb in upper case."""
        return self.line.partition(b" ")[0].upper()


COMMANDS = st.sampled_from(
    [
        Command(b"EHLO client.example"),
        Command(b"ehlo client.example"),
        Command(b"HELO client.example"),
        Command(b"LHLO client.example"),
        Command(b"EHLO two words", 501),
        Command(b"EHLO", 501),
        Command(b"MAIL FROM:<alice@example.com>"),
        Command(b"MAIL FROM:<alice@example.com>"),
        Command(b"MAIL FROM:<>"),
        Command(b"MAIL FROM:<alice>", 501),
        Command(b"MAIL FROM:<alice@example.com> XYZZY=1", 555),
        Command(b"MAIL", 501),
        Command(b"RCPT TO:<bob@example.net>"),
        Command(b"RCPT TO:<bob@example.net>"),
        Command(b"RCPT TO:<bob@example.net>"),
        Command(b"RCPT TO:bob", 501),
        Command(b"RCPT TO:<bob@example.net> XYZZY", 555),
        Command(b"DATA"),
        Command(b"DATA"),
        Command(b"DATA"),
        Command(b"DATA x", 501),
        Command(b"RSET"),
        Command(b"RSET x", 501),
        Command(b"NOOP"),
        Command(b"NOOP with text"),
        Command(b"VRFY alice"),
        Command(b"VRFY", 501),
        Command(b"HELP"),
        Command(b"HELP DATA"),
        Command(b"AUTH PLAIN " + LOGIN),
        Command(b"AUTH PLAIN " + LOGIN),
        Command(b"AUTH PLAIN"),
        Command(b"AUTH PLAIN !", 501),
        Command(b"AUTH XYZZY", 504),
        Command(b"AUTH", 501),
        Command(b"STARTTLS"),
        Command(b"STARTTLS now", 501),
        Command(b"QUIT"),
        Command(b"XYZZY", 500),
        Command(b"RSET\nNOOP", 500),
        Command(b"NO\0OP", 500),
        Command(b"", 500),
        Command(b"NOOP " + b"x" * 3000, 500),
        Command(b"NOOP " + b"x" * 20000, 500),
    ]
)
EHLO, LHLO = Command(b"EHLO client.example"), Command(b"LHLO client.example")
MAIL, RCPT = Command(b"MAIL FROM:<alice@example.com>"), Command(b"RCPT TO:<bob@example.net>")
DATA, RSET, TLS = Command(b"DATA"), Command(b"RSET"), Command(b"STARTTLS")
AUTH, ASK = Command(b"AUTH PLAIN " + LOGIN), Command(b"AUTH PLAIN")
FITTING: dict[State, list[list[Command]]] = {
    State.GREETED: [[EHLO], [EHLO, TLS], [EHLO, AUTH], [EHLO, ASK], [EHLO, MAIL, RCPT, DATA]],
    State.READY: [[MAIL], [MAIL, RCPT, DATA], [MAIL, RCPT, RCPT, RCPT, RCPT, DATA], [AUTH], [TLS]],
    State.MAIL: [[RCPT], [RCPT, DATA], [MAIL], [RSET, MAIL, RCPT, DATA], [EHLO, MAIL]],
    State.RCPT: [[DATA], [RCPT, DATA], [RCPT, RCPT, RCPT, DATA], [RSET, MAIL]],
}
"""What clients say: most of what is found is found deep in a dialogue."""

ANYTHING = st.lists(COMMANDS, min_size=1, max_size=4)
RESPONSES = st.sampled_from([LOGIN, LOGIN, b"*", b"", b"!!", b"QUIT", b"AGE=", b"x" * 13000])
TEXTS = st.sampled_from(
    [
        b"",
        b"Subject: x\r\n\r\ntext\r\n",
        b"..\r\nRSET\r\n",
        b"Subject: x\r\n\r\nMAIL FROM:<eve@example.org>\r\nDATA\r\n",
        b"bare\nline feed\r\n",
        b"bare\n.\n\r\n",
        b"nul\0\r\n",
        b"x" * 70 + b"\r\n",
    ]
)


@attrs.define(eq=False)
class Call:
    """Something that was asked of a policy, the checker or the delivery.

    :param verdict: empty while nobody has answered.
    """

    stage: str
    verdict: str = ""
    waiting: Deferred[Any] | None = None


@implementer(
    IHelloPolicy, ILoginPolicy, ISenderPolicy, IRecipientPolicy, IDataPolicy, IMessagePolicy
)
class Policy:
    """Asks the machine; and notes whose login the checker is asked about next."""

    def __init__(self, machine: DialogueMachine) -> None:
        self._ask = machine.ask
        self.session: Any = None

    def loginRequested(self, session: Any, credentials: Any) -> None:
        self.session = session

    def loginSucceeded(self, session: Any, avatar: Any) -> None:
        """No objection."""

    def loginFailed(self, session: Any, credentials: Any, failure: Any) -> None:
        """No objection."""

    def helloReceived(self, session: Any, domain: str) -> Any:
        return self._ask(session, "hello")

    def validateFrom(self, session: Any, envelope: Any) -> Any:
        return self._ask(session, "sender")

    def validateTo(self, session: Any, envelope: Any, recipient: Any) -> Any:
        return self._ask(session, "recipient")

    def dataRequested(self, session: Any, envelope: Any) -> Any:
        return self._ask(session, "data")

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> Any:
        return self._ask(session, "message")


@implementer(ICredentialsChecker)
class Checker:
    """Asks the machine, about the connection that the policy has noted."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, machine: DialogueMachine, policy: Policy) -> None:
        self._machine = machine
        self._policy = policy

    def requestAvatarId(self, credentials: Any) -> Any:
        result = self._machine.ask(self._policy.session, "login")
        if result is None:
            return credentials.username
        return result.addCallback(lambda _: credentials.username)


class Client:
    """One connection, what was sent over it, and where the model says it stands.

    :ivar outbox: chunks that wait until the server reads.
    :ivar sent: what was sent and has not been answered: commands, responses, texts.
    :ivar codes: the codes that the model wants next.
    """

    def __init__(self, talk: Conversation, lmtp: bool) -> None:
        self.talk = talk
        self.lmtp = lmtp
        self.outbox: list[bytes] = []
        self.sent: list[Command | bytes] = []
        self.calls: list[Call] = []
        self.codes: list[int] = [220]
        self.heard = b""
        self.state = State.GREETED
        self.recipients = 0
        self.secure = False
        self.loggedIn = False
        self.lost = False

    # What is sent.

    def send(self, octets: bytes, cuts: list[int]) -> None:
        """Cut, and deliver as much as is read."""
        begin = 0
        for cut in sorted({min(cut, len(octets)) for cut in cuts} | {len(octets)}):
            if octets[begin:cut]:
                self.outbox.append(octets[begin:cut])
            begin = cut
        self.deliver()

    def deliver(self) -> None:
        """Let the server read, as long as it does."""
        protocol, transport = self.talk.protocol, self.talk.transport
        while self.outbox and transport.producerState == "producing" and not self.isOver:
            protocol.dataReceived(self.outbox.pop(0))

    @property
    def session(self) -> Any:
        """The server's side of it."""
        return self.talk.protocol.dialogue.session

    @property
    def isOver(self) -> bool:
        """Whether the server has ended it, or the client has gone."""
        return self.lost or self.talk.transport.disconnecting

    @property
    def waiting(self) -> Call | None:
        """What has not been answered; there is one at most."""
        open_ = [call for call in self.calls if not call.verdict]
        assert len(open_) <= 1, "asked for something while something else is open"
        return open_[0] if open_ else None

    # The model.

    def follow(self) -> None:
        """Work out the codes of all that the server can have answered."""
        while self.sent and self.state not in (State.CLOSED, State.TLS) and self.answer():
            self.sent.pop(0)
        if self.state in (State.CLOSED, State.TLS):
            # RFC 3207 4.2 and the end: what was sent behind it is dropped.
            self.sent.clear()
            self.outbox.clear()

    def answer(self) -> bool:
        """Answer what is first; false where a verdict is awaited."""
        first = self.sent[0]
        if self.state is State.AUTH:
            assert isinstance(first, bytes)
            return self.response(first)
        if self.state is State.DATA:
            assert isinstance(first, bytes)
            return self.text(first)
        assert isinstance(first, Command)
        return self.command(first)

    def verdict(self, *stages: str) -> str:
        """The verdict of these stages together; empty while one is awaited."""
        for at, stage in enumerate(stages):
            assert at < len(self.calls), f"{stage} was not asked"
            call = self.calls[at]
            assert call.stage == stage, f"{call.stage} was asked in place of {stage}"
            if call.verdict != OK:
                if call.verdict:
                    del self.calls[: at + 1]
                return call.verdict
        del self.calls[: len(stages)]
        return OK

    def say(self, code: int, count: int = 1) -> bool:
        """The model's reply."""
        self.codes += [code] * count
        if code in (421, 221):
            self.state = State.CLOSED
        return True

    def command(self, command: Command) -> bool:
        """A line where a command belongs."""
        row = TABLE.get(command.verb)
        wrongVerb = (b"EHLO", b"HELO") if self.lmtp else (b"LHLO",)
        if row is None or command.verb in wrongVerb or command.code == 500:
            return self.say(500)
        if self.state not in row.states:
            return self.say(503)
        if row.argument is not None and row.argument is not (b" " in command.line):
            return self.say(501)
        if command.verb == b"AUTH" and self.loggedIn:
            return self.say(503)
        if command.verb == b"STARTTLS" and self.secure:
            return self.say(503)
        if command.verb == b"RCPT" and self.recipients >= MAX_RECIPIENTS:
            return self.say(452)
        if command.code:
            return self.say(command.code)
        if command.line == b"AUTH PLAIN":
            self.state = State.AUTH
            return self.say(334)
        stage = STAGES.get(command.verb)
        if stage == "hello":
            self.reset()  # also where a policy then objects: RFC 5321 4.1.4
        if stage is not None:
            return self.judged(command.verb, stage)
        return self.done(command.verb)

    def judged(self, verb: bytes, *stages: str) -> bool:
        """A command that policies are asked about."""
        verdict = self.verdict(*stages)
        if not verdict:
            return False
        if verdict == OK:
            return self.done(verb)
        return self.say(self.refusal(verdict, verb))

    def refusal(self, verdict: str, verb: bytes) -> int:
        """The code of what is no consent."""
        if verdict.isdigit():
            return int(verdict)
        if verb == b"AUTH":
            return 535 if verdict == "unauthorized" else 454
        return 451

    def done(self, verb: bytes) -> bool:
        """A command that nobody has objected to."""
        if verb in (b"EHLO", b"HELO", b"LHLO"):
            self.state = State.READY
        elif verb == b"MAIL":
            self.state = State.MAIL
        elif verb == b"RCPT":
            self.state = State.RCPT
            self.recipients += 1
        elif verb == b"DATA":
            self.state = State.DATA
        elif verb == b"RSET":
            self.reset()
        elif verb == b"STARTTLS":
            self.state = State.TLS
            return self.say(220)
        elif verb == b"AUTH":
            self.loggedIn = True
            return self.say(235)
        return self.say(GOOD[verb])

    def response(self, line: bytes) -> bool:
        """A line where a response of AUTH belongs."""
        if line != LOGIN:
            self.state = State.READY
            return self.say(500 if len(line) > 12320 else 501)
        verdict = self.verdict("login")
        if not verdict:
            return False
        self.state = State.READY
        return self.done(b"AUTH") if verdict == OK else self.say(self.refusal(verdict, b"AUTH"))

    def text(self, octets: bytes) -> bool:
        """A message up to its end."""
        count = self.recipients if self.lmtp else 1
        bare = octets.replace(b"\r\n", b"")
        if b"\n" in bare or b"\0" in bare:
            self.reset()
            return self.say(554, count)
        verdict = self.verdict("message", "end")
        if not verdict:
            return False
        self.reset()
        return self.say(250 if verdict == OK else self.refusal(verdict, b""), count)

    def reset(self) -> None:
        """No mail transaction."""
        self.recipients = 0
        if self.state is not State.GREETED:
            self.state = State.READY

    def secured(self) -> None:
        """The handshake is over."""
        self.state = State.GREETED
        self.secure = True
        self.loggedIn = False
        self.recipients = 0

    # What is said.

    def check(self) -> None:
        """Compare what was said with what the model wants, and the states."""
        self.heard += self.talk.transport.taken()
        while found := re.match(
            rb"(?:([2-5]\d\d)-[^\r\n]*\r\n)*([2-5]\d\d) [^\r\n]*\r\n", self.heard
        ):
            code = int(found[2])
            assert found[1] in (None, found[2]), "the codes of one reply differ"
            assert self.codes, f"{code}, and nothing was to be answered"
            wanted = self.codes.pop(0)
            assert code == wanted, f"{code} in place of {wanted}"
            self.heard = self.heard[found.end() :]
        assert not self.heard, f"not a reply: {self.heard!r}"
        if self.lost:
            return
        assert not self.codes, f"not answered: {self.codes}"
        if self.waiting is None:
            assert self.talk.protocol.dialogue.state is self.state
        assert self.talk.transport.disconnecting is (self.state is State.CLOSED)


class DialogueMachine(RuleBasedStateMachine):
    """Up to three connections.

    :cvar lmtp: whether it is LMTP.
    """

    lmtp: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.clients: list[Client] = []
        self.draw: Callable[[Any], Any] = lambda strategy: None
        policy = Policy(self)
        portal = Portal(SubmissionRealm(), [Checker(self, policy)])
        self.submission = makeSubmission(
            self.clock,
            delivery=MemoryDelivery(onEnd=lambda message: self.ask(message.session, "end")),
            policies=[policy],
            portal=portal,
            mechanisms=[mechanism("PLAIN")],
            extensions=[Pipelining(), StartTLS(), Auth()],
            requireTLS=False,
            loginRequired=False,
            insecureLogin=True,
            lmtp=self.lmtp,
            limits=Limits(
                recipients=MAX_RECIPIENTS,
                unrecognized=0,
                refusals=0,
                loginFailures=0,
                stage=STAGE_LIMIT,
                commandsBeforeLogin=0,
            ),
        )

    # What policies are asked.

    def ask(self, session: Any, stage: str) -> Any:
        """A verdict, now or later."""
        [client] = [one for one in self.clients if one.session is session]
        call = Call(stage)
        client.calls.append(call)
        if self.draw(WHEN):
            call.verdict = self.draw(VERDICTS)
            return self._give(call.verdict, stage)
        call.waiting = Deferred()
        return call.waiting

    def _give(self, verdict: str, stage: str) -> None:
        if verdict != OK:
            raise self._error(verdict)

    def _error(self, verdict: str) -> Exception:
        if verdict.isdigit():
            return Refused(Reply(int(verdict), "", "no"))
        return UnauthorizedLogin() if verdict == "unauthorized" else ZeroDivisionError()

    # What happens.

    @initialize(count=st.integers(1, 2))
    def connect(self, count: int) -> None:
        """The first connections."""
        for _ in range(count):
            self.clients.append(Client(Conversation(self.submission), self.lmtp))

    @precondition(lambda self: any(one.isOver for one in self.clients))
    @rule()
    def connectAgain(self) -> None:
        """New ones in place of those that are over."""
        for at, client in enumerate(self.clients):
            if client.isOver:
                if not client.lost:
                    client.talk.lose()
                self.clients[at] = Client(Conversation(self.submission), self.lmtp)

    def turn(self, which: int, data: Any) -> Client:
        """The connection that something happens on."""
        self.draw = data.draw
        return self.clients[which % len(self.clients)]

    def after(self, client: Client) -> None:
        """Let the server read on, and see that all is as the model says."""
        client.deliver()
        client.follow()
        client.check()

    @rule(which=st.integers(0, 1), data=st.data())
    def goOn(self, which: int, data: Any) -> None:
        """Whatever comes next on a connection, most of the time what fits."""
        client = self.turn(which, data)
        call = client.waiting
        if client.isOver:
            return
        if call is not None and not data.draw(st.sampled_from([True, False, False, False])):
            self.decide(client, call, data.draw(VERDICTS))
        elif client.state is State.TLS:
            client.secured()
            client.talk.secure()
        elif client.state is State.DATA and not client.sent:
            self.send(client, data, data.draw(TEXTS), data.draw(st.lists(COMMANDS, max_size=2)))
        elif client.state is State.AUTH and not client.sent:
            self.send(client, data, data.draw(RESPONSES), [])
        elif client.state in FITTING and not any(self.mayOpen(one) for one in client.sent):
            known = [self.spoken(path) for path in FITTING[client.state]]
            fitting = data.draw(st.sampled_from([True, True, True, False]))
            self.send(
                client, data, None, data.draw(st.sampled_from(known) if fitting else ANYTHING)
            )
        self.after(client)

    def send(self, client: Client, data: Any, first: bytes | None, commands: list[Command]) -> None:
        """Send a message or a response, if there is one, and commands behind it, cut anywhere.

        Behind what may be followed by something else nothing is sent: the answer decides.
        """
        octets = b""
        if first is not None:
            client.sent.append(first)
            isText = client.state is State.DATA
            octets = re.sub(rb"(?m)^\.", b"..", first) + b".\r\n" if isText else first + b"\r\n"
        for command in commands:
            client.sent.append(command)
            octets += command.line + b"\r\n"
            if self.mayOpen(command):
                break
        client.send(octets, data.draw(st.lists(st.integers(0, 80), max_size=6)))

    def decide(self, client: Client, call: Call, verdict: str) -> None:
        """What a policy, the checker or the delivery has waited for is there."""
        if call.stage == "login" and verdict == "550":
            verdict = "unauthorized"
        assert call.waiting is not None
        call.verdict = verdict
        if verdict == OK:
            call.waiting.callback(None)
        else:
            call.waiting.errback(self._error(verdict))

    def spoken(self, path: list[Command]) -> list[Command]:
        """The same in LMTP, where it is that."""
        return [LHLO if self.lmtp and command is EHLO else command for command in path]

    def mayOpen(self, sent: Command | bytes) -> bool:
        """Whether something other than a command may belong behind it."""
        return isinstance(sent, Command) and (
            sent.verb in (b"DATA", b"STARTTLS") or sent.line == b"AUTH PLAIN"
        )

    @rule(data=st.data())
    def tooLate(self, data: Any) -> None:
        """A minute passes: all that is awaited counts as failed."""
        self.draw = data.draw
        late = [client for client in self.clients if client.waiting is not None and not client.lost]
        for client in late:
            call = client.waiting
            assert call is not None
            call.verdict = LATE
        self.clock.advance(STAGE_LIMIT + 1)
        for client in late:
            self.after(client)

    @precondition(lambda self: len([one for one in self.clients if not one.lost]) > 1)
    @rule(which=st.integers(0, 1), data=st.data())
    def lose(self, which: int, data: Any) -> None:
        """A client is gone, whatever was under way; nothing is said or asked any more."""
        client = self.turn(which, data)
        if client.lost:
            return
        client.check()
        client.lost = True
        calls = len(client.calls)
        client.talk.lose()
        assert client.talk.transport.taken() == b""
        assert len(client.calls) == calls, "asked for a client that is gone"

    @invariant()
    def nothingHalfKept(self) -> None:
        """A message is open only while its client is in DATA, or while its end is decided on."""
        open_ = [one for one in self.submission.delivery.begun if one.state == "open"]
        for message in open_:
            [client] = [
                one for one in self.clients if one.talk.protocol.dialogue.session is message.session
            ]
            assert not client.lost and client.state is State.DATA, "a message was left open"


class LMTPMachine(DialogueMachine):
    """The same for LMTP: one reply per recipient behind a message."""

    lmtp = True


def _test(machine: type[DialogueMachine], count: int) -> type[SynchronousTestCase]:
    made: Any = machine.TestCase
    made.settings = examples(count, steps=80)
    return type(
        f"{machine.__name__.removesuffix('Machine')}MachineTests",
        (SynchronousTestCase,),
        {"__doc__": machine.__doc__, "test_machine": _run(made)},
    )


def _run(made: Any) -> Callable[[SynchronousTestCase], None]:
    def test(self: SynchronousTestCase) -> None:
        made("runTest").runTest()
        # StopTest: hypothesis ends an example that draws too much, wherever it draws.
        self.flushLoggedErrors(ZeroDivisionError, TimeoutError, StopTest)

    test.__doc__ = "Whatever is sent, whenever it is judged: as the table of states says."
    return test


DIALOGUE = Machine("dialogue", DialogueMachine)
LMTP = Machine("lmtp", LMTPMachine)

DialogueMachineTests = _test(DialogueMachine, 80)
LMTPMachineTests = _test(LMTPMachine, 40)
