"""Policy rate-limit."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from submitd import events, policies
from submitd.interfaces import (
    IChecked,
    IDataPolicy,
    IHelloPolicy,
    IRecipientPolicy,
    IRunning,
    ISenderPolicy,
)
from submitd.policies.ratelimit import RateLimit
from submitd.settings import Component
from submitd.typed import Rates
from tests.counters.server import MISSING, RedisServer
from tests.fixtures import Conversation, makeSubmission

MESSAGE = ("DATA", "Subject: x", "", "hello", ".")


class RateLimitTestCase(SynchronousTestCase):
    """Has conversations with a policy, a clock, and the events."""

    def setUp(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=self.logged.append))
        self.clock = Clock()
        self.delivery: Any = None

    def policy(self, **keys: Any) -> RateLimit:
        """A policy that runs."""
        policy = RateLimit(**keys)
        self.successResultOf(policy.start(self.clock))
        return policy

    def conversation(self, *rules: RateLimit, address: str = "", **changes: Any) -> Conversation:
        """Somebody who has said EHLO, without TLS and login."""
        changes = {"requireTLS": False, "loginRequired": False, **changes}
        talk = Conversation(makeSubmission(self.clock, policies=rules, **changes))
        talk.protocol.dialogue.session.remoteAddress = address or "192.0.2.7"
        talk.say("EHLO client.example")
        return talk

    def send(self, talk: Conversation, count: int = 1, sender: str = "a@example.com") -> list[str]:
        """Send a message; the codes of all replies."""
        recipients = [f"RCPT TO:<r{number}@example.org>" for number in range(count)]
        said = talk.say(f"MAIL FROM:<{sender}>")
        if said.startswith("250"):
            said += "\n" + talk.say(*recipients)
            said += "\n" + talk.say("DATA")
            if "354" in said:
                said += "\n" + talk.say(*MESSAGE[1:])
        return [line[:9] for line in said.split("\n")]


TAKEN = ["250 2.1.0", "250 2.1.5", "354 Start", "250 2.0.0"]
FULL = ["450 4.7.1"]


class ScopeTests(RateLimitTestCase):
    """Who is counted as one."""

    def test_interfaces(self) -> None:
        """It takes part from EHLO to DATA, runs, and can be checked."""
        policy = RateLimit(messages_in_all=Rates("1/hour"))
        for interface in (
            IHelloPolicy,
            ISenderPolicy,
            IRecipientPolicy,
            IDataPolicy,
            IRunning,
            IChecked,
        ):
            self.assertTrue(verifyObject(interface, policy))
        self.assertEqual(policy.check(), [])
        self.assertEqual(RateLimit().check(), ["limits nothing: there are no rates"])
        self.successResultOf(policy.stop())

    def test_address(self) -> None:
        """An address has its own count, over all its connections."""
        policy = self.policy(messages_per_address=Rates("1/hour"))
        self.assertEqual(self.send(self.conversation(policy)), TAKEN)
        self.assertEqual(self.send(self.conversation(policy)), FULL)
        self.assertEqual(self.send(self.conversation(policy, address="192.0.2.8")), TAKEN)

    def test_network(self) -> None:
        """All addresses of one /64 are one: a subscriber has them all."""
        policy = self.policy(messages_per_network=Rates("1/hour"))
        self.assertEqual(self.send(self.conversation(policy, address="2001:db8::1")), TAKEN)
        self.assertEqual(self.send(self.conversation(policy, address="2001:db8::2")), FULL)
        self.assertEqual(self.send(self.conversation(policy, address="2001:db8:0:1::1")), TAKEN)

    def test_domain(self) -> None:
        """A domain is one in both of its forms; the null sender has none."""
        policy = self.policy(messages_per_domain=Rates("1/hour"))
        talk = self.conversation(policy)
        self.assertEqual(self.send(talk, sender="a@xn--bcher-kva.example"), TAKEN)
        said = talk.say("MAIL FROM:<b@b\u00fccher.example> SMTPUTF8")
        self.assertIn("for this sender domain; try again after 1970-01-01 01:00:00 UTC", said)
        for _ in range(2):
            self.assertEqual(self.send(talk, sender=""), TAKEN)

    def test_login(self) -> None:
        """A login is counted wherever it comes from; who has none is not."""
        policy = self.policy(messages_per_login=Rates("1/hour"))
        for expected in (TAKEN, FULL):
            talk = self.conversation(policy)
            talk.login()
            self.assertEqual(self.send(talk), expected)
        anonymous = self.conversation(policy)
        for _ in range(3):
            self.assertEqual(self.send(anonymous), TAKEN)

    def test_logins(self) -> None:
        """A section for some logins, or for all but some, counts and refuses nobody else."""
        rates = Rates("1/hour")
        for keys, isForAlice, isForNobody in (
            ({"logins": ["alice", "bob"]}, True, False),
            ({"logins": ["bob", "@example.com"]}, False, False),
            ({"except_logins": ["alice"]}, False, True),
            ({"except_logins": ["bob"]}, True, True),
            ({"logins": ["alice"], "except_logins": ["alice"]}, False, False),
        ):
            policy = self.policy(messages_in_all=rates, **keys)
            for logsIn, isMeant in ((True, isForAlice), (False, isForNobody)):
                talk = self.conversation(policy)
                if logsIn:
                    talk.login()
                sent = [self.send(talk) for _ in range(2)]
                self.assertEqual(sent, [TAKEN, FULL if isMeant else TAKEN], (keys, logsIn))
                self.clock.advance(3600)

    def test_keptApart(self) -> None:
        """Where sections for others keep their counts in one place, none takes another's room."""
        keys: list[dict[str, Any]] = [{}, {"logins": ["a"]}, {"logins": ["b"]}]
        keys += [{"except_logins": ["a"]}, {"logins": ["b"], "except_logins": ["a"]}]
        rates = Rates("1/hour")
        made = {
            RateLimit(messages_in_all=rates, **each)._limits[0].want("", 1).key for each in keys
        }
        self.assertEqual(len(made), len(keys))
        again = RateLimit(messages_in_all=rates, logins=["b"])
        self.assertIn(again._limits[0].want("", 1).key, made)

    def test_unix(self) -> None:
        """Who comes by a unix socket has no address to be counted by."""
        policy = self.policy(
            messages_per_address=Rates("1/hour"), messages_per_network=Rates("1/hour")
        )
        talk = self.conversation(policy)
        talk.protocol.dialogue.session.remoteAddress = ""
        for _ in range(3):
            self.assertEqual(self.send(talk), TAKEN)

    def test_twoPolicies(self) -> None:
        """Two sections are two policies: neither takes the other's room."""
        narrow = self.policy(recipients_in_all=Rates("2/hour"))
        wide = self.policy(recipients_in_all=Rates("100/hour"))
        talk = self.conversation(narrow, wide)
        self.assertEqual(
            self.send(talk, 3),
            ["250 2.1.0", "250 2.1.5", "250 2.1.5", "452 4.5.3", "354 Start", "250 2.0.0"],
        )


class AccountTests(RateLimitTestCase):
    """What is counted, and what is not."""

    def used(self, policy: RateLimit, talk: Conversation) -> list[int]:
        """What is counted in all windows of a policy for a client."""
        session = talk.protocol.dialogue.session
        asked = policy._concerning(session, None)
        wants = [limit.want(name, 1) for limit, name in asked]
        rooms: Any = policy._counters.rooms(wants)
        return [room.used for room in rooms]

    def test_exact(self) -> None:
        """Refused recipients, transactions given up and lost connections cost nothing."""
        policy = self.policy(messages_in_all=Rates("9/hour"), recipients_in_all=Rates("3/hour"))
        talk = self.conversation(policy)
        talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RSET")
        talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "RCPT TO:<nonsense>")
        self.assertEqual(self.used(policy, talk), [0, 0])
        talk.say(*MESSAGE)
        self.assertEqual(self.used(policy, talk), [1, 1])
        talk.say("MAIL FROM:<a@example.com>", *["RCPT TO:<b@example.org>"] * 5)
        talk.lose()
        self.assertEqual(self.used(policy, talk), [1, 1])
        last = self.conversation(policy)
        last.say("MAIL FROM:<a@example.com>", *["RCPT TO:<b@example.org>"] * 5, *MESSAGE)
        self.assertEqual(self.used(policy, last), [2, 3])

    def test_race(self) -> None:
        """When others have taken the room since MAIL, DATA is refused, and nothing is counted."""
        policy = self.policy(messages_in_all=Rates("9/hour"), recipients_in_all=Rates("3/hour"))
        one, other = self.conversation(policy), self.conversation(policy)
        for talk in (one, other):
            talk.say("MAIL FROM:<a@example.com>", *["RCPT TO:<b@example.org>"] * 2)
        self.assertTrue(one.say("DATA").startswith("354"))
        self.assertEqual(
            other.say("DATA"),
            "450 4.7.1 Too many recipients: 3 per hour for all senders; try again after"
            " 1970-01-01 01:00:00 UTC",
        )
        self.assertEqual(self.used(policy, one), [1, 2])

    def test_chunks(self) -> None:
        """A message in chunks is counted once."""
        policy = self.policy(messages_in_all=Rates("9/hour"))
        talk = self.conversation(policy)
        talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>")
        talk.send(b"BDAT 4\r\nA: b")
        talk.send(b"BDAT 4\r\n\r\n\r\n")
        talk.send(b"BDAT 0 LAST\r\n")
        self.assertEqual(self.used(policy, talk), [1])

    def test_windows(self) -> None:
        """Several windows hold at once, and the one that is full is named."""
        policy = self.policy(messages_in_all=Rates("2/minute, 3/hour"))
        talk = self.conversation(policy)
        self.assertEqual([self.send(talk) for _ in range(3)], [TAKEN, TAKEN, FULL])
        self.clock.advance(60)
        self.assertEqual(self.send(talk), TAKEN)
        self.clock.advance(60)
        self.assertIn("3 per hour for all senders", talk.say("MAIL FROM:<a@example.com>"))
        self.clock.advance(3480)
        self.assertEqual(self.send(talk), TAKEN)


class WarningTests(RateLimitTestCase):
    """The event before it is too late."""

    def warnings(self) -> list[tuple[Any, ...]]:
        """What was warned of."""
        return [
            (each["scope"], each["what"], each["limit"], each["user"])
            for each in self.logged
            if each["event"] == "limit-near"
        ]

    def test_once(self) -> None:
        """It comes when the part is reached, and once in the window's time."""
        policy = self.policy(messages_per_login=Rates("5/hour"))
        talk = self.conversation(policy)
        talk.login()
        for expected in (0, 0, 0, 1, 1):
            self.send(talk)
            self.assertEqual(len(self.warnings()), expected)
        self.assertEqual(self.warnings(), [("login alice", "messages", "5 per hour", "alice")])
        self.clock.advance(3601)
        for _ in range(5):
            self.send(talk)
        self.assertEqual(len(self.warnings()), 2)

    def test_steady(self) -> None:
        """Somebody who stays around the mark for long does not fill the log."""
        policy = self.policy(messages_in_all=Rates("5/hour"))
        talk = self.conversation(policy)
        for _ in range(20):
            self.send(talk)
            self.clock.advance(850)
        self.assertLess(len(self.warnings()), 6)

    def test_never(self) -> None:
        """0 is never."""
        policy = self.policy(messages_in_all=Rates("2/hour"), warn_at=0.0)
        talk = self.conversation(policy)
        for _ in range(2):
            self.send(talk)
        self.assertEqual(self.warnings(), [])

    def test_bounded(self) -> None:
        """What is remembered of warnings is bounded."""
        self.patch(policies.ratelimit, "_MAX_WARNED", 3)
        policy = self.policy(messages_per_domain=Rates("1/hour"))
        talk = self.conversation(policy)
        for number in range(6):
            self.send(talk, sender=f"a@d{number}.example")
        self.assertEqual(len(self.warnings()), 6)
        self.assertEqual(len(policy._warned), 3)


class HelloTests(RateLimitTestCase):
    """What LIMITS tells."""

    def limits(self, talk: Conversation) -> str:
        """The line of LIMITS."""
        lines = talk.say("EHLO client.example").split("\n")
        return next(line[4:] for line in lines if "LIMITS" in line)

    def test_room(self) -> None:
        """It is what there is room for, and grows again; 1 is the least that may be said."""
        policy = self.policy(messages_in_all=Rates("3/hour"), recipients_in_all=Rates("9/hour"))
        talk = self.conversation(policy)
        self.assertEqual(self.limits(talk), "LIMITS MAILMAX=3 RCPTMAX=9")
        self.send(talk, 4)
        # Of this connection, for RFC 9422 counts from its beginning.
        self.assertEqual(self.limits(talk), "LIMITS MAILMAX=3 RCPTMAX=5")
        self.send(talk, 5)
        self.assertEqual(self.limits(talk), "LIMITS MAILMAX=3 RCPTMAX=1")
        self.assertEqual(self.limits(self.conversation(policy)), "LIMITS MAILMAX=1 RCPTMAX=1")
        self.clock.advance(3600)
        self.assertEqual(self.limits(talk), "LIMITS MAILMAX=5 RCPTMAX=9")

    def test_beforeLogin(self) -> None:
        """Before the login it is what any login may have at most."""
        policy = self.policy(recipients_per_login=Rates("7/hour"))
        self.assertEqual(self.limits(self.conversation(policy)), "LIMITS RCPTMAX=7")

    def test_logins(self) -> None:
        """Of a section for some logins nothing is told before it is known who that is."""
        policy = self.policy(recipients_per_login=Rates("7/hour"), logins=["alice"])
        talk = self.conversation(policy)
        self.assertEqual(self.limits(talk), "LIMITS RCPTMAX=1000")
        talk.login()
        self.assertEqual(self.limits(talk), "LIMITS RCPTMAX=7")

    def test_lower(self) -> None:
        """A limit of the listener that is lower stays."""
        policy = self.policy(recipients_in_all=Rates("5000/hour"))
        self.assertEqual(self.limits(self.conversation(policy)), "LIMITS RCPTMAX=1000")


class StorageTests(RateLimitTestCase):
    """When the counts are somewhere else."""

    def setUp(self) -> None:
        super().setUp()
        self.waiting: list[Deferred[Any]] = []

    def away(self, onFailure: Any) -> Conversation:
        """A client, and a Redis that gives no answer."""
        policy = RateLimit(
            messages_in_all=Rates("1/hour"),
            recipients_in_all=Rates("1/hour"),
            storage="redis://127.0.0.1:1/0",
            on_failure=onFailure,
        )
        policy.start(self.clock, self.run)
        return self.conversation(policy)

    def run(self, *arguments: Any) -> Any:  # type: ignore[override]
        """In place of a thread."""
        if arguments and callable(arguments[0]):
            self.waiting.append(Deferred())
            return self.waiting[-1]
        return super().run(*arguments)

    def test_open(self) -> None:
        """With "open", a Redis that is away costs one wait, and then nobody is limited."""
        talk = self.away("open")
        self.clock.advance(1)  # EHLO has waited so long
        self.assertIn("LIMITS MAILMAX=1 RCPTMAX=1", talk.transport.taken().decode())
        for _ in range(2):
            self.assertEqual(
                self.send(talk, 2), ["250 2.1.0", "250 2.1.5", "250 2.1.5", *TAKEN[2:]]
            )

    def test_closed(self) -> None:
        """With "closed", MAIL is 451; EHLO is answered all the same."""
        talk = self.away("closed")
        self.clock.advance(1)
        self.assertIn("250 ", talk.transport.taken().decode())
        self.assertIn("250 ", talk.say("EHLO client.example"))
        self.assertEqual(self.send(talk), ["451 4.3.0"])


class ConfigurationTests(SynchronousTestCase):
    """Its keys."""

    def made(self, **keys: object) -> tuple[Any, list[str]]:
        """What a section makes."""
        made, findings = Component("rate-limit", keys).make(policies.REGISTRY, "policy[0]")
        return made, [str(finding) for finding in findings]

    def test_good(self) -> None:
        """Rates are strings."""
        made, findings = self.made(messages_per_login="1/hour", warn_at=1)
        self.assertEqual(findings, [])
        self.assertEqual(made.check(), [])

    def test_mistakes(self) -> None:
        """Each mistake has its key."""
        _, findings = self.made(
            messages_per_login="many", recipients_in_all=5, on_failure="maybe", timeout="soon"
        )
        keys = [each.partition(":")[0] for each in findings]
        names = ("messages_per_login", "recipients_in_all", "on_failure", "timeout")
        self.assertEqual(keys, [f"policy[0].{name}" for name in names])

    def test_storage(self) -> None:
        """So has a storage that is none."""
        _, findings = self.made(messages_per_login="1/hour", storage="memcached://x")
        self.assertEqual(len(findings), 1)
        self.assertIn('must be "memory" or begin with redis://', findings[0])


class RedisTests(TestCase):
    """Two nodes and a real Redis."""

    skip = MISSING

    def setUp(self) -> None:
        self.server = RedisServer()
        self.addCleanup(self.server.remove)
        self.server.start()

    async def test_shared(self) -> None:
        """What one node has counted is refused at the other."""
        talks = []
        for _ in range(2):
            policy = RateLimit(messages_in_all=Rates("2/hour"), storage=self.server.url)
            await policy.start(reactor)
            submission = makeSubmission(
                reactor,
                policies=[policy],
                requireTLS=False,
                loginRequired=False,  # type: ignore
            )
            talks.append(Conversation(submission))
        said = []
        for talk in (*talks, *talks):
            talk.say("EHLO client.example")
            await self.heard(talk, "DELIVERBY")
            talk.protocol.dataReceived(b"MAIL FROM:<a@example.com>\r\n")
            said.append((await self.heard(talk, "."))[:9])
            if said[-1].startswith("250"):
                talk.protocol.dataReceived(b"RCPT TO:<b@example.org>\r\nDATA\r\n")
                await self.heard(talk, "354")
                talk.say(".")
        self.assertEqual(said, ["250 2.1.0", "250 2.1.0", "450 4.7.1", "450 4.7.1"])

    async def heard(self, talk: Conversation, word: str) -> str:
        """What the server says, once this word is in it."""
        from twisted.internet.task import deferLater

        said = ""
        for _ in range(500):
            said += talk.transport.taken().decode()
            if word in said and said.endswith("\r\n"):
                return said
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        raise AssertionError(said)
