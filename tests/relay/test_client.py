"""The SMTP client without I/O."""

from __future__ import annotations

import base64

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.relay.client import Client, Profile
from submitd.relay.login import Account
from submitd.relay.outgoing import Outgoing, Result
from submitd.relay.states import STATES, Done, StartTLS, State
from submitd.wire.address import NULL_PATH
from submitd.wire.reply import Reply
from tests.relay.hops import EVERYTHING, TEXT, Hop, ehlo, outgoing, recipient

STUFFED = TEXT.replace(b"\r\n.", b"\r\n..").decode()


def encoded(text: str) -> str:
    """Base64 of a text."""
    return base64.b64encode(text.encode()).decode()


class DeliveryTests(SynchronousTestCase):
    """Messages that a next hop takes, and those that it does not."""

    def test_plainServer(self) -> None:
        """Without PIPELINING one command waits for the reply to the other (RFC 2920)."""
        hop = Hop().greet("")
        self.assertEqual(hop.offer(outgoing()), "MAIL FROM:<me@example.org>\r\n")
        self.assertEqual(hop.say("250 ok"), "RCPT TO:<you@example.net>\r\n")
        self.assertEqual(hop.say("250 ok"), "DATA\r\n")
        self.assertEqual(hop.say("354 go"), STUFFED + ".\r\n")
        hop.say("250 2.0.0 queued as 1")
        self.assertEqual(hop.results, [("delivered", 250)])
        self.assertEqual(hop.outcomes[0].reply, Reply(250, "2.0.0", "queued as 1"))

    def test_pipelining(self) -> None:
        """With PIPELINING envelope and DATA go out at once."""
        hop = Hop().greet("PIPELINING")
        self.assertEqual(
            hop.offer(outgoing("a@example.net", "b@example.net")),
            "MAIL FROM:<me@example.org>\r\nRCPT TO:<a@example.net>\r\n"
            "RCPT TO:<b@example.net>\r\nDATA\r\n",
        )
        self.assertEqual(hop.say("250 ok", "250 ok", "550 5.1.1 no", "354 go"), STUFFED + ".\r\n")
        hop.say("250 ok")
        self.assertEqual(hop.results, [("delivered", 250), ("failed", 550)])
        self.assertTrue(all(outcome.isRemote for outcome in hop.outcomes))

    def test_everyParameter(self) -> None:
        """Whatever the next hop offers is used, in its own notation."""
        hop = Hop().greet(EVERYTHING + ",DELIVERBY")
        message = outgoing(
            recipient("you@example.net", notify=("SUCCESS", "DELAY"), orcpt=("rfc822", "a+b@c.d")),
            recipient("jörg@example.net", orcpt=("UTF-8", "jörg@example.net")),
            size=40,
            bodyType="8BITMIME",
            smtpUtf8=True,
            ret="HDRS",
            envid="a b",
            parameters={"BY": "60;R", "MT-PRIORITY": "3"},
        )
        self.assertEqual(
            hop.offer(message).encode("latin-1").decode(),
            "MAIL FROM:<me@example.org> SIZE=40 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+20b"
            " BY=60;R MT-PRIORITY=3\r\n"
            "RCPT TO:<you@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@c.d\r\n"
            "RCPT TO:<jörg@example.net> ORCPT=UTF-8;j\\x{F6}rg@example.net\r\n",
        )
        self.assertEqual(hop.say("250 ok", "250 ok", "250 ok")[:9], "BDAT 32 L")
        hop.say("250 ok")
        self.assertEqual(hop.results, [("delivered", 250)] * 2)
        self.assertTrue(hop.outcomes[0].dsn)

    def test_tellsDelay(self) -> None:
        """A next hop without deadlines is asked to tell a sender of delays who wants to know."""
        to = [
            recipient("a@b.example"),
            recipient("b@b.example", notify=("SUCCESS",)),
            recipient("c@b.example", notify=("NEVER",)),
            recipient("d@b.example", notify=("DELAY",)),
        ]

        def notify(offered: str, **parameters: str) -> list[str]:
            said = Hop().greet(offered).offer(outgoing(*to, parameters=parameters))
            return [line.partition(" NOTIFY=")[2] for line in said.split("\r\n")[1:-1]]

        asIs = ["", "SUCCESS", "NEVER", "DELAY"]
        more = ["FAILURE,DELAY", "SUCCESS,DELAY", "NEVER", "DELAY"]
        self.assertEqual(notify("PIPELINING,DSN,CHUNKING", BY="60;N"), more)
        self.assertEqual(notify("PIPELINING,DSN,CHUNKING", BY="0;NT"), asIs)
        self.assertEqual(notify("PIPELINING,DSN,CHUNKING,DELIVERBY", BY="60;N"), asIs)
        self.assertEqual(notify("PIPELINING,DSN,CHUNKING"), asIs)

    def test_nothingOffered(self) -> None:
        """What the next hop does not know it is not told."""
        hop = Hop().greet("")
        message = outgoing(
            recipient("you@example.net", notify=("NEVER",), orcpt=("rfc822", "x@y")),
            size=40,
            bodyType="8BITMIME",
            smtpUtf8=True,
            ret="FULL",
            envid="x",
            parameters={"MT-PRIORITY": "3", "BY": "9;N"},
        )
        self.assertEqual(hop.offer(message), "MAIL FROM:<me@example.org>\r\n")
        self.assertEqual(hop.say("250 ok"), "RCPT TO:<you@example.net>\r\n")

    def test_secondMessage(self) -> None:
        """A connection takes several messages; RSET comes only after one that was broken off."""
        hop = Hop().greet("PIPELINING")
        hop.offer(outgoing())
        hop.say("250 ok", "250 ok", "354 go")
        hop.say("250 ok")
        self.assertTrue(hop.offer(outgoing(sender="")).startswith("MAIL FROM:<>\r\n"))
        hop.say("250 ok", "550 no", "554 no recipients")
        self.assertEqual(hop.results, [("failed", 550)])
        self.assertTrue(hop.offer(outgoing()).startswith("RSET\r\nMAIL FROM:"))
        hop.say("250 flushed", "250 ok", "250 ok", "354 go")
        hop.say("451 4.3.0 later")
        self.assertEqual(hop.results, [("delayed", 451)])
        hop.client.quit()
        self.assertEqual(hop.heard(), "QUIT\r\n")
        hop.say("221 bye")
        assert hop.ended is not None
        self.assertIsNone(hop.ended.reply)

    def test_resetRefused(self) -> None:
        """A next hop that does not even reset is out of step: nothing is sent into the unknown."""
        hop = Hop().greet("")
        hop.offer(outgoing())
        hop.say("250 ok")
        hop.say("550 no")
        self.assertEqual(hop.offer(outgoing()), "RSET\r\n")
        hop.say("500 what")
        self.assertEqual(hop.results, [("delayed", 451)])

    def test_mailRefused(self) -> None:
        """A refused sender is every recipient's outcome, pipelined or not."""
        for extensions, rest in (("", []), ("PIPELINING", ["503 no", "503 no"])):
            for code, result in ((452, "delayed"), (550, "failed")):
                hop = Hop().greet(extensions)
                hop.offer(outgoing())
                hop.say(f"{code} no", *rest)
                self.assertEqual(hop.results, [(result, code)])
                self.assertEqual(hop.client.state, State.READY)

    def test_nestedMail(self) -> None:
        """Who refuses the sender and takes recipients is given no empty message for them."""
        for extensions in ("PIPELINING", "PIPELINING,CHUNKING"):
            hop = Hop().greet(extensions)
            hop.offer(outgoing("a@b.example", "c@d.example"))
            said = hop.say("503 5.5.1 nested MAIL", "250 ok", "250 ok", "354 go")
            self.assertEqual((said, hop.client.state), ("", State.CLOSED))
            self.assertEqual(hop.results, [("failed", 503)] * 2)

    def test_dataRefused(self) -> None:
        """A refusal of DATA is for the recipients that had been accepted."""
        hop = Hop().greet("")
        hop.offer(outgoing("a@b.example", "c@d.example"))
        hop.say("250 ok")
        hop.say("450 later")
        hop.say("250 ok")
        hop.say("554 5.7.1 no")
        self.assertEqual(hop.results, [("delayed", 450), ("failed", 554)])

    def test_tooManyRecipients(self) -> None:
        """552 behind recipients that were taken is no verdict on the others; 552 5.2.2 is one."""
        for said, verdict in (
            ("552 too many", "delayed"),
            ("552 5.5.3 too many", "delayed"),
            ("552 5.2.2 full", "failed"),
        ):
            hop = Hop().greet("PIPELINING")
            hop.offer(outgoing("a@b.example", "c@d.example"))
            hop.say("250 ok", "250 ok", said, "354 go")
            hop.say("250 kept")
            self.assertEqual(hop.results, [("delivered", 250), (verdict, 552)])
            self.assertIs(hop.outcomes[1].isExcess, verdict == "delayed")
        for said, isExcess in (
            ("452 4.5.3 too many", True),
            ("452 too many", True),
            ("452 4.2.2 full", False),
            ("450 4.5.3 later", False),
        ):
            hop = Hop().greet("PIPELINING")
            hop.offer(outgoing("a@b.example", "c@d.example"))
            hop.say("250 ok", "250 ok", said, "354 go")
            hop.say("250 kept")
            self.assertIs(hop.outcomes[1].isExcess, isExcess, said)
        hop = Hop().greet("PIPELINING")
        hop.offer(outgoing())
        hop.say("250 ok", "552 too many", "554 no recipients")
        self.assertEqual(hop.results, [("failed", 552)])

    def test_loneDot(self) -> None:
        """354 without a recipient is answered with an empty message (RFC 2920 3.1)."""
        hop = Hop().greet("PIPELINING")
        hop.offer(outgoing())
        self.assertEqual(hop.say("250 ok", "550 no", "354 go"), ".\r\n")
        hop.say("554 no recipients")
        self.assertEqual(hop.results, [("failed", 550)])
        self.assertEqual(hop.client.state, State.READY)

    def test_chunks(self) -> None:
        """BDAT sends octets as they are, the last chunk as the last (RFC 3030)."""
        hop = Hop().greet("PIPELINING,CHUNKING")
        hop.offer(outgoing(), b"a\r\n.\r\n", b"b\r", b"\n")
        self.assertEqual(
            hop.say("250 ok", "250 ok"),
            "BDAT 6\r\na\r\n.\r\nBDAT 2\r\nb\rBDAT 1 LAST\r\n\n",
        )
        hop.say("250 ok", "250 ok", "250 2.0.0 taken")
        self.assertEqual(hop.results, [("delivered", 250)])

    def test_chunksOneByOne(self) -> None:
        """Without PIPELINING a chunk waits for the reply to the one before."""
        hop = Hop().greet("CHUNKING")
        hop.offer(outgoing(), b"a", b"b", b"c")
        hop.say("250 ok")
        self.assertEqual(hop.say("250 ok"), "BDAT 1\r\na")
        self.assertEqual(hop.say("250 ok"), "BDAT 1\r\nb")
        self.assertEqual(hop.say("250 ok"), "BDAT 1 LAST\r\nc")
        hop.say("250 ok")
        self.assertEqual(hop.results, [("delivered", 250)])

    def test_chunkRefused(self) -> None:
        """After a refused chunk no more follow, and the connection goes on with RSET."""
        hop = Hop().greet("CHUNKING")
        hop.offer(outgoing(), b"a", b"b", b"c")
        hop.say("250 ok")
        hop.say("250 ok")
        hop.say("552 5.3.4 too large")
        self.assertEqual(hop.results, [("failed", 552)])
        self.assertEqual(hop.offer(outgoing()), "RSET\r\n")

    def test_chunkUnknown(self) -> None:
        """Who offers BDAT and does not know it bounces no mail, and is left at once.

        The chunks are commands to it: what it says of them would be taken for other answers.
        """
        for code in (500, 502):
            for chunks in ([b"a\r\n"] * 2, []):
                for bodyType, expected in (("8BITMIME", "delayed"), ("BINARYMIME", "failed")):
                    hop = Hop().greet(EVERYTHING)
                    hop.offer(outgoing(bodyType=bodyType), TEXT, *chunks)
                    hop.say("250 ok", "250 ok")
                    hop.say(f"{code} 5.5.1 unknown", "500 5.5.1 unknown", "250 ok")
                    self.assertEqual(hop.results, [(expected, code)], (chunks, bodyType))
                    self.assertTrue(hop.client.isChunkingUnknown)
                    self.assertEqual(hop.client.state, State.CLOSED)

    def test_chunkKnown(self) -> None:
        """Who has taken a chunk knows BDAT: what it says then is of the message, and stands."""
        hop = Hop().greet(EVERYTHING)
        hop.offer(outgoing(), TEXT, b"a\r\n")
        hop.say("250 ok", "250 ok")
        hop.say("250 ok", "500 5.7.1 we do not like it")
        self.assertEqual(hop.results, [("failed", 500)])
        hop = Hop(lmtp=True).greet(EVERYTHING)
        hop.offer(outgoing("b@example.net", "c@example.net", "d@example.net"), TEXT)
        hop.say("250 ok", "250 ok", "250 ok", "250 ok")
        hop.say("250 2.0.0 taken", "500 5.2.0 broken mailbox", "250 2.0.0 taken")
        self.assertEqual(hop.results, [("delivered", 250), ("failed", 500), ("delivered", 250)])
        self.assertEqual(hop.client.state, State.READY)

    def test_chunkRefusedKnown(self) -> None:
        """Who has refused one as a chunk knows BDAT, too, whatever it calls the next one."""
        hop = Hop().greet("CHUNKING,PIPELINING")
        hop.offer(outgoing(), b"a", b"b")
        hop.say("250 ok", "250 ok")
        hop.say("552 5.3.4 too large", "500 no message")
        self.assertEqual(hop.results, [("failed", 552)])
        self.assertEqual(hop.client.state, State.READY)

    def test_chunkRefusedLate(self) -> None:
        """The refusal of a chunk stands, whatever is said to those on their way behind it."""
        hop = Hop().greet("CHUNKING,PIPELINING")
        hop.offer(outgoing(), b"a", b"b")
        self.assertEqual(hop.say("250 ok", "250 ok").count("BDAT"), 2)
        hop.say("552 5.3.4 too large", "250 ok")
        self.assertEqual(hop.results, [("failed", 552)])
        self.assertEqual(hop.client.state, State.READY)

    def test_chunkRefusedReset(self) -> None:
        """Where all chunks were on their way, too, RSET is first: MAIL might be one too many."""
        hop = Hop().greet("CHUNKING,PIPELINING")
        hop.offer(outgoing(), b"a", b"b")
        hop.say("250 ok", "250 ok")
        hop.say("452 4.3.1 full", "503 5.5.1 no")
        self.assertEqual(hop.results, [("delayed", 452)])
        self.assertEqual(hop.offer(outgoing()).partition("\r\n")[0], "RSET")

    def test_chunkRefusedEarly(self) -> None:
        """Nor does one that was asked for before the refusal, nor the message's end."""
        for lmtp in (False, True):
            hop = Hop(lmtp=lmtp).greet("CHUNKING,PIPELINING")
            hop.client.send(outgoing("a@b.example", "c@d.example"))
            hop.client.dataReceived(b"250 ok\r\n" * 3)
            for chunk in (b"a", b"b", b"c"):
                hop.client.body(chunk)
            hop.client.dataReceived(b"452 full\r\n")
            hop.client.takeOutput()
            hop.client.body(b"d")
            hop.client.bodyEnded()
            self.assertEqual(hop.client.takeOutput(), b"")
            hop.body = [b"e"] * 100
            self.assertEqual(hop.say("503 no"), "")
            self.assertEqual(hop.results, [("delayed", 452)] * 2)
            self.assertEqual(hop.client.state, State.READY)

    def test_manyChunks(self) -> None:
        """A bounded number of chunks is on its way at one time."""
        hop = Hop().greet("CHUNKING,PIPELINING")
        hop.offer(outgoing(), *[b"x"] * 40)
        sent = hop.say("250 ok", "250 ok")
        self.assertEqual(sent.count("BDAT"), 8)
        for _ in range(100):
            sent += hop.say("250 ok")
            if "LAST" in sent:
                break
        self.assertEqual(sent.count("BDAT"), 40)

    def test_emptyMessage(self) -> None:
        """A message of nothing is sent as one."""
        for extensions, sent in (("", ".\r\n"), ("CHUNKING", "BDAT 0 LAST\r\n")):
            hop = Hop().greet(extensions)
            hop.offer(outgoing())
            hop.body = []
            hop.say("250 ok")
            said = hop.say("250 ok")
            self.assertEqual(said if extensions else hop.say("354 go"), sent)

    def test_chunkingOff(self) -> None:
        """BDAT can be switched off for next hops that offer it and cannot do it."""
        hop = Hop(chunking=False).greet("CHUNKING")
        hop.offer(outgoing())
        hop.say("250 ok")
        self.assertEqual(hop.say("250 ok"), "DATA\r\n")

    def test_notReady(self) -> None:
        """A message that is sent at the wrong time is a mistake of the program."""
        self.assertRaises(ValueError, Hop().client.send, outgoing())

    def test_lateBody(self) -> None:
        """Chunks that nobody wants any more are nothing."""
        hop = Hop().greet("")
        hop.client.body(b"x")
        hop.client.bodyEnded()
        self.assertEqual(hop.heard(), "")


class LMTPTests(SynchronousTestCase):
    """RFC 2033."""

    def test_replies(self) -> None:
        """Each accepted recipient has its own reply behind the message."""
        hop = Hop(lmtp=True)
        self.assertEqual(hop.say("220 hi"), "LHLO relay.example\r\n")
        hop.say(*ehlo("PIPELINING"))
        addresses = ("a@b.example", "c@d.example", "e@f.example")
        self.assertNotIn("DATA", hop.offer(outgoing(*addresses)))
        self.assertEqual(hop.say("250 ok", "250 ok", "550 no", "250 ok"), "DATA\r\n")
        hop.say("354 go")
        hop.say("452 4.2.2 full")
        hop.say("250 2.1.5 ok")
        self.assertEqual(hop.results, [("delayed", 452), ("failed", 550), ("delivered", 250)])
        self.assertTrue(hop.outcomes[2].isFinal)

    def test_noRecipients(self) -> None:
        """DATA is not said when nobody is there to have it."""
        hop = Hop(lmtp=True)
        hop.say("220 hi")
        hop.say(*ehlo("PIPELINING"))
        hop.offer(outgoing())
        self.assertEqual(hop.say("250 ok", "550 no"), "")
        self.assertEqual(hop.results, [("failed", 550)])

    def test_chunkRefused(self) -> None:
        """How many replies follow a refused chunk nobody knows: the connection ends there."""
        hop = Hop(lmtp=True)
        hop.say("220 hi")
        hop.say(*ehlo("PIPELINING,CHUNKING"))
        hop.offer(outgoing("a@b.example", "c@d.example"), b"a", b"b")
        hop.say("250 ok", "250 ok", "250 ok")
        hop.say("451 no", "451 no")
        self.assertEqual(hop.results, [("delayed", 451)] * 2)
        self.assertEqual(hop.client.state, State.CLOSED)

    def test_nonsense(self) -> None:
        """3yz is no verdict."""
        hop = Hop(lmtp=True)
        hop.say("220 hi")
        hop.say(*ehlo(""))
        hop.offer(outgoing())
        hop.say("250 ok")
        hop.say("250 ok")
        hop.say("354 go")
        hop.say("354 more")
        self.assertEqual(hop.results, [("delayed", 451)])

    def test_unknownHello(self) -> None:
        """An LMTP server that does not know LHLO is not spoken to in SMTP."""
        hop = Hop(lmtp=True)
        hop.say("220 hi")
        self.assertEqual(hop.say("500 what"), "")
        self.assertEqual(hop.client.state, State.CLOSED)


class LimitationTests(SynchronousTestCase):
    """What the next hop cannot take is failed with the code that says so, never changed."""

    def refused(self, extensions: str, message: Outgoing, secure: bool = False) -> str:
        """The status with which a message is failed before anything is said."""
        hop = Hop()
        hop.say("220 hi")
        if secure:
            hop.client._secure = hop.client._verified = True
        hop.say(*ehlo(extensions))
        self.assertEqual(hop.offer(message), "")
        [outcome] = hop.outcomes
        self.assertEqual((outcome.result, outcome.isRemote), (Result.FAILED, False))
        self.assertEqual(hop.client.state, State.READY)
        return outcome.reply.status

    def test_beforehand(self) -> None:
        """What is known beforehand costs no transaction."""
        self.assertEqual(self.refused("SIZE 30", outgoing(size=31)), "5.3.4")
        self.assertEqual(self.refused("", outgoing(eightBit=True)), "5.6.3")
        self.assertEqual(self.refused("CHUNKING", outgoing(bodyType="BINARYMIME")), "5.6.3")
        self.assertEqual(self.refused("BINARYMIME", outgoing(bodyType="BINARYMIME")), "5.6.3")
        self.assertEqual(self.refused("", outgoing("jörg@b.example")), "5.6.7")
        self.assertEqual(self.refused("", outgoing(sender="jörg@b.example")), "5.6.7")
        self.assertEqual(self.refused("REQUIRETLS", outgoing(requireTLS=True)), "5.7.30")
        self.assertEqual(self.refused("", outgoing(requireTLS=True), secure=True), "5.7.30")
        self.assertEqual(self.refused("", outgoing(parameters={"BY": "60;R"})), "5.3.3")
        late = outgoing(parameters={"BY": "60;RT"})
        self.assertEqual(self.refused("DELIVERBY 61,x=y", late), "5.4.7")
        late = outgoing(parameters={"BY": "0;R"})
        self.assertEqual(self.refused("DELIVERBY", late), "5.4.7")

    def test_someRecipients(self) -> None:
        """An address in UTF-8 does not keep the others from theirs."""
        hop = Hop().greet("PIPELINING,SIZE")
        said = hop.offer(outgoing("jörg@b.example", "you@b.example"))
        self.assertEqual(said.count("RCPT"), 1)
        hop.say("250 ok", "250 ok", "354 go")
        hop.say("250 ok")
        self.assertEqual(hop.results, [("failed", 553), ("delivered", 250)])

    def stopped(self, extensions: str, message: Outgoing, *chunks: bytes) -> str:
        """The status with which a message is failed while it is sent."""
        hop = Hop().greet(extensions)
        hop.offer(message, *chunks)
        hop.say("250 ok")
        sent = hop.say("250 ok")
        if "CHUNKING" not in extensions:
            sent += hop.say("354 go")
        for _ in range(5):
            sent += hop.say("250 ok") if hop.client.state is State.BODY else ""
        self.assertNotIn("\r\n.\r\n", sent)
        self.assertNotIn("LAST", sent)
        self.assertEqual(hop.client.state, State.CLOSED)
        self.assertEqual([each.result for each in hop.outcomes], [Result.FAILED])
        return hop.outcomes[0].reply.status

    def test_onTheWay(self) -> None:
        """What shows only while it is sent ends the connection without the message's end."""
        eight = (b"A: b\r\n\r\nabc", "jörg\r\n".encode())
        self.assertEqual(self.stopped("", outgoing(bodyType="8BITMIME"), *eight), "5.6.3")
        self.assertEqual(self.stopped("CHUNKING", outgoing(), *eight), "5.6.3")
        utf8 = ("A: jö".encode(), b"rg\r\n\r\nx\r\n")
        message = outgoing(smtpUtf8=True, bodyType="8BITMIME")
        self.assertEqual(self.stopped("8BITMIME", message, *utf8), "5.6.7")
        self.assertEqual(self.stopped("8BITMIME", outgoing(), b"a\r", b"b\r\n"), "5.6.0")
        self.assertEqual(self.stopped("8BITMIME", outgoing(), b"a\r\n", b"b\r"), "5.6.0")
        self.assertEqual(self.stopped("CHUNKING", outgoing(), b"a", b"\n.\n"), "5.6.0")
        self.assertEqual(self.stopped("CHUNKING", outgoing(), b"a\r"), "5.6.0")

    def test_utf8BodyOnly(self) -> None:
        """SMTPUTF8 that nothing in the header needs can do without; the body may be 8-bit."""
        hop = Hop().greet("8BITMIME")
        hop.offer(outgoing(smtpUtf8=True), b"A: b\r\n\r", "\njörg\r\n".encode())
        hop.say("250 ok")
        hop.say("250 ok")
        hop.say("354 go")
        hop.say("250 ok")
        self.assertEqual(hop.results, [("delivered", 250)])

    def test_binary(self) -> None:
        """BINARYMIME goes as it is, where it is offered."""
        hop = Hop().greet("CHUNKING,BINARYMIME")
        said = hop.offer(outgoing(bodyType="BINARYMIME"), b"\0\r\n\n\r\xff")
        self.assertEqual(said, "MAIL FROM:<me@example.org> BODY=BINARYMIME\r\n")
        hop.say("250 ok")
        self.assertEqual(hop.say("250 ok"), "BDAT 6 LAST\r\n\0\r\n\n\r\xff")


class TLSTests(SynchronousTestCase):
    """STARTTLS (RFC 3207)."""

    def test_forgets(self) -> None:
        """What was offered before TLS is not known after it."""
        hop = Hop(tls="required")
        hop.say("220 hi")
        self.assertEqual(hop.say(*ehlo("STARTTLS,8BITMIME,AUTH PLAIN")), "STARTTLS\r\n")
        hop.say("220 go")
        self.assertEqual(hop.events, [StartTLS()])
        hop.client.handshakeCompleted(verified=True)
        self.assertEqual(hop.heard(), "EHLO relay.example\r\n")
        hop.say("250 hop.example")
        self.assertEqual(dict(hop.client.capabilities.keywords), {})
        self.assertTrue(hop.client.capabilities.verified)

    def test_injection(self) -> None:
        """What comes in the clear behind the 220 is never used: the session ends."""
        for extra in (b"250-evil\r\n250 AUTH PLAIN\r\n", b"2", b"250 x\r\n"):
            hop = Hop(tls="opportunistic")
            hop.say("220 hi")
            hop.say(*ehlo("STARTTLS"))
            hop.send(b"220-go\r\n220 ahead\r\n" + extra)
            self.assertEqual(hop.client.state, State.CLOSED)
            assert hop.ended is not None and hop.ended.reply is not None
            self.assertEqual(hop.ended.reply.status, "4.7.5")
            self.assertNotIn(StartTLS(), hop.events)

    def test_injectionLater(self) -> None:
        """The same in a segment of its own, before the handshake is over."""
        hop = Hop()
        hop.say("220 hi")
        hop.say(*ehlo("STARTTLS"))
        hop.say("220 go")
        hop.say("250 AUTH PLAIN")
        self.assertEqual(hop.client.state, State.CLOSED)

    def test_notOffered(self) -> None:
        """Required TLS that is not offered is a delay, not a bounce and no message in the clear."""
        hop = Hop(tls="required")
        hop.say("220 hi")
        self.assertEqual(hop.say(*ehlo("")), "")
        assert hop.ended is not None and hop.ended.reply is not None
        self.assertEqual(hop.ended.reply.status, "4.7.4")

    def test_refused(self) -> None:
        """454 to STARTTLS: in the clear where TLS was only a wish, and nothing else."""
        hop = Hop(tls="opportunistic")
        hop.say("220 hi")
        hop.say(*ehlo("STARTTLS"))
        hop.say("454 4.7.0 no TLS now")
        self.assertEqual(hop.client.state, State.READY)
        hop = Hop(tls="required")
        hop.say("220 hi")
        hop.say(*ehlo("STARTTLS"))
        hop.say("454 4.7.0 no TLS now")
        assert hop.ended is not None and hop.ended.reply is not None
        self.assertEqual(hop.ended.reply.code, 454)

    def test_off(self) -> None:
        """TLS can be switched off."""
        self.assertEqual(Hop(tls="off").greet("STARTTLS").client.state, State.READY)


class LoginTests(SynchronousTestCase):
    """AUTH (RFC 4954) from the client's side."""

    def hop(self, mechanisms: str, *ours: str, user: str = "u", secret: str = "p") -> Hop:
        """A next hop under TLS that offers mechanisms."""
        account = Account(user, secret.encode(), ours or ("PLAIN", "LOGIN", "CRAM-MD5"))
        hop = Hop(account=account)
        hop.client = Client(hop.client.profile)
        hop.client.connectionMade(secure=True)
        hop.say("220 hi")
        self.first = hop.say(*ehlo(f"AUTH {mechanisms}"))
        return hop

    def test_plain(self) -> None:
        """PLAIN goes with AUTH itself."""
        hop = self.hop("LOGIN PLAIN")
        self.assertEqual(self.first, f"AUTH PLAIN {encoded(chr(0) + 'u' + chr(0) + 'p')}\r\n")
        hop.say("235 welcome")
        self.assertEqual(hop.client.state, State.READY)

    def test_plainAsked(self) -> None:
        """A next hop that has not read what came with AUTH asks for it, and gets it once more."""
        hop = self.hop("PLAIN")
        response = encoded(chr(0) + "u" + chr(0) + "p")
        self.assertEqual(hop.say("334 "), f"{response}\r\n")
        hop.say("235 welcome")
        self.assertEqual(hop.client.state, State.READY)
        hop = self.hop("PLAIN")
        self.assertEqual(hop.say("334"), f"{response}\r\n")
        self.assertEqual(hop.say("334"), "*\r\n")

    def test_login(self) -> None:
        """LOGIN answers two challenges, whatever they say."""
        hop = self.hop("LOGIN")
        self.assertEqual(self.first, "AUTH LOGIN\r\n")
        self.assertEqual(hop.say("334 VXNlcm5hbWU6"), f"{encoded('u')}\r\n")
        self.assertEqual(hop.say("334 UGFzc3dvcmQ6"), f"{encoded('p')}\r\n")
        hop.say("235 welcome")
        self.assertEqual(hop.client.state, State.READY)

    def test_cramMD5(self) -> None:
        """The example of RFC 2195 2."""
        hop = self.hop("CRAM-MD5", user="tim", secret="tanstaaftanstaaf")
        challenge = encoded("<1896.697170952@postoffice.reston.mci.net>")
        self.assertEqual(
            hop.say(f"334 {challenge}"),
            f"{encoded('tim b913a602c7eda7a495b4e6e7334d3890')}\r\n",
        )

    def test_xoauth2(self) -> None:
        """The JSON of a refusal is answered with nothing, so that the 535 comes."""
        hop = self.hop("XOAUTH2", "XOAUTH2")
        self.assertEqual(
            self.first,
            f"AUTH XOAUTH2 {encoded('user=u' + chr(1) + 'auth=Bearer p' + chr(1) * 2)}\r\n",
        )
        self.assertEqual(hop.say(f"334 {encoded('{}')}"), "\r\n")
        hop.say("535 5.7.8 no")
        assert hop.ended is not None and hop.ended.reply is not None
        self.assertEqual(hop.ended.reply.code, 535)

    def test_longToken(self) -> None:
        """A token that makes AUTH too long a line waits for the first challenge."""
        hop = self.hop("XOAUTH2", "XOAUTH2", secret="t" * 600)
        self.assertEqual(self.first, "AUTH XOAUTH2\r\n")
        self.assertGreater(len(hop.say("334 ")), 600)

    def test_badChallenge(self) -> None:
        """A challenge that is no base64, or one too many, ends in a cancelled login."""
        hop = self.hop("LOGIN")
        self.assertEqual(hop.say("334 !!"), "*\r\n")
        hop = self.hop("PLAIN")
        self.assertEqual(hop.say(f"334 {encoded('more')}"), "*\r\n")
        hop.say("501 cancelled")
        self.assertEqual(hop.client.state, State.CLOSED)

    def test_endlessChallenges(self) -> None:
        """One that goes on to ask when the login has been cancelled is not answered for ever."""
        hop = self.hop("PLAIN")
        self.assertEqual(hop.say(f"334 {encoded('more')}"), "*\r\n")
        self.assertEqual(hop.say("334 "), "")
        assert hop.ended is not None and hop.ended.reply is not None
        self.assertEqual(hop.ended.reply.status, "4.5.0")

    def test_noMechanism(self) -> None:
        """Nothing in common: nothing is sent, for the next hop may want to know who we are."""
        hop = self.hop("GSSAPI")
        assert hop.ended is not None and hop.ended.reply is not None
        self.assertEqual(hop.ended.reply.status, "4.7.0")

    def test_severalLines(self) -> None:
        """Mechanisms may stand in several lines, of the new form and of the old one."""
        hop = Hop(account=Account("u", b"p", ("LOGIN",)), insecureLogin=True)
        hop.say("220 hi")
        self.assertEqual(hop.say(*ehlo("AUTH=GSSAPI,AUTH CRAM-MD5,AUTH LOGIN")), "AUTH LOGIN\r\n")

    def test_clear(self) -> None:
        """No password in the clear, unless it was allowed."""
        account = Account("u", b"p")
        hop = Hop(account=account)
        hop.say("220 hi")
        self.assertEqual(hop.say(*ehlo("AUTH PLAIN")), "")
        self.assertEqual(hop.client.state, State.CLOSED)
        hop = Hop(account=account, insecureLogin=True)
        hop.say("220 hi")
        self.assertTrue(hop.say(*ehlo("AUTH=PLAIN")).startswith("AUTH PLAIN"))

    def test_secret(self) -> None:
        """No password in what is printed of an account."""
        self.assertNotIn("hunter2", repr(Profile(hostname="x", account=Account("u", b"hunter2"))))


class BrokenHopTests(SynchronousTestCase):
    """Next hops that answer nonsense, or not at all."""

    def test_greetings(self) -> None:
        """A refusal before MAIL bounces nobody's mail: the session ends with it on record."""
        for lines in (["554 go away"], ["354 what"], ["421 busy"], ["220 hi", "421 no"]):
            hop = Hop()
            for line in lines:
                hop.say(line)
            assert hop.ended is not None and hop.ended.reply is not None
            self.assertTrue(lines[-1].startswith(str(hop.ended.reply.code)))

    def test_helo(self) -> None:
        """A server that does not know EHLO is greeted with HELO."""
        hop = Hop()
        hop.say("220 hi")
        self.assertEqual(hop.say("500 what"), "HELO relay.example\r\n")
        hop.say("250 hello")
        self.assertEqual(hop.client.state, State.READY)
        hop = Hop()
        hop.say("220 hi")
        hop.say("500 what")
        hop.say("550 go away")
        self.assertEqual(hop.client.state, State.CLOSED)

    def test_noReply(self) -> None:
        """What is no reply is on record for the recipients, who are delayed."""
        hop = Hop().greet("PIPELINING")
        hop.offer(outgoing("a@b.example", "c@d.example"))
        hop.send(b"250 ok\r\n550 no\r\nHTTP/1.1 400 Bad\nRequest\r\n")
        self.assertEqual(hop.results, [("failed", 550), ("delayed", 451)])
        self.assertIn("HTTP/1.1 400", hop.outcomes[1].reply.lines[0])
        self.assertFalse(hop.outcomes[1].isRemote)

    def test_wrongReplies(self) -> None:
        """A reply of the wrong class delays, at every step."""
        for extensions in ("", "CHUNKING", "PIPELINING"):
            for good in range(6):
                hop = Hop().greet(extensions)
                hop.offer(outgoing(), b"a", b"b")
                for _ in range(good):
                    if hop.client.state is not State.READY:
                        hop.say("354 go" if hop.client.state is State.OPENING else "250 ok")
                if hop.client.state is State.READY:
                    break
                hop.say("250 no" if hop.client.state is State.OPENING else "354 no")
                self.assertEqual(hop.results, [("delayed", 451)])

    def test_shuttingDown(self) -> None:
        """421 at any time is the end, and the rest is delayed with it."""
        hop = Hop().greet("PIPELINING")
        hop.offer(outgoing("a@b.example", "c@d.example"))
        hop.say("250 ok", "550 no", "421 4.3.2 bye", "354 go")
        self.assertEqual(hop.results, [("failed", 550), ("delayed", 421)])

    def test_refusedEarly(self) -> None:
        """A refusal while the message is on its way counts, and ends the connection."""
        hop = Hop().greet("")
        hop.offer(outgoing(), b"a")
        hop.say("250 ok")
        hop.say("250 ok")
        hop.client.dataReceived(b"354 go\r\n552 5.3.4 too large\r\n")
        hop.heard()
        self.assertEqual(hop.results, [("failed", 552)])
        self.assertEqual(hop.client.state, State.CLOSED)

    def test_unasked(self) -> None:
        """A reply to nothing ends the session."""
        hop = Hop().greet("")
        hop.say("250 there")
        self.assertEqual(hop.client.state, State.CLOSED)

    def test_lost(self) -> None:
        """A lost connection is one outcome for each recipient, and only one."""
        hop = Hop().greet("")
        hop.offer(outgoing())
        self.assertEqual(hop.client.waitingFor, "the reply to MAIL")
        self.assertEqual(hop.client.limit, "envelope")
        hop.client.connectionLost(Reply(451, "4.4.2", "gone"))
        hop.client.connectionLost(Reply(451, "4.4.2", "gone again"))
        hop.say("250 late")
        hop.heard()
        self.assertEqual(hop.outcomes[0].reply.lines, ("gone",))
        self.assertEqual(len([each for each in hop.events if isinstance(each, Done)]), 1)

    def test_quitEarly(self) -> None:
        """QUIT in the midst of something is the end at once."""
        hop = Hop()
        self.assertEqual(hop.client.waitingFor, "the greeting")
        hop.client.quit()
        self.assertEqual(hop.client.state, State.CLOSED)


class TableTests(SynchronousTestCase):
    """The table of states."""

    def test_complete(self) -> None:
        """Each state stands in it, each can be reached, and all can be closed."""
        self.assertEqual(set(STATES), set(State))
        reached = set().union(*(stand.following for stand in STATES.values()))
        self.assertEqual(reached | {State.NEW}, set(State))
        for state, stand in STATES.items():
            self.assertEqual(State.CLOSED in stand.following, state is not State.CLOSED)


CODES = ["220", "235", "250", "251", "334", "354", "421", "450", "452", "500", "503", "550", "554"]
LINES = st.one_of(
    st.builds(lambda code, text: f"{code} {text}\r\n".encode(), st.sampled_from(CODES), st.text()),
    st.sampled_from([b"250-x\r\n", b"\r\n", b"250\n", b"999 x\r\n", b"354 go\r\n", b"250 ok\r\n"]),
    st.binary(max_size=20),
)


class AnythingTests(SynchronousTestCase):
    """Whatever a next hop does, each recipient gets one outcome and nothing crashes."""

    @settings(deadline=None, max_examples=300)
    @given(
        st.sampled_from(["", "PIPELINING", "CHUNKING", "PIPELINING,CHUNKING,DSN", "STARTTLS"]),
        st.booleans(),
        st.integers(1, 4),
        st.lists(LINES, max_size=25),
        st.integers(1, 30),
    )
    def test_anything(
        self, extensions: str, lmtp: bool, recipients: int, lines: list[bytes], cut: int
    ) -> None:
        """A next hop that says anything, in pieces of any size."""
        hop = Hop(lmtp=lmtp, tls="off")
        hop.greet(extensions)
        sent = 0
        data = b"".join(lines)
        for at in range(0, len(data), cut):
            if hop.client.state is State.READY and sent < 3:
                sent += 1
                hop.offer(outgoing(*[f"{n}@b.example" for n in range(recipients)]), b"a", b"b\r\n")
            hop.send(data[at : at + cut])
        hop.client.connectionLost(Reply(451, "4.4.2", "gone"))
        hop.heard()
        done = [event for event in hop.events if isinstance(event, Done)]
        self.assertEqual(len(done), sent)
        self.assertTrue(all(len(each.outcomes) == recipients for each in done))
        self.assertIs(hop.client.state, State.CLOSED)

    @settings(deadline=None, max_examples=100)
    @given(st.lists(LINES, max_size=15))
    def test_anythingFirst(self, lines: list[bytes]) -> None:
        """A next hop that says anything before it is ready."""
        hop = Hop(account=Account("u", b"p"), insecureLogin=True)
        for line in [b"220 hi\r\n", *lines]:
            if hop.client.state is State.HANDSHAKE:
                hop.client.handshakeCompleted(verified=False)
            hop.send(line)
        hop.client.connectionLost(Reply(451, "4.4.2", "gone"))
        self.assertIs(hop.client.state, State.CLOSED)

    def test_byteByByte(self) -> None:
        """A reply that comes octet by octet is the same reply."""
        hop = Hop()
        talk = [
            "220 hi",
            *ehlo("PIPELINING,DSN"),
            "250 ok",
            "250-2.1.5 first",
            "250 2.1.5 second",
            "354 go",
            "250 2.0.0 done",
        ]
        data = "".join(f"{line}\r\n" for line in talk).encode()
        for at in range(len(data)):
            if hop.client.state is State.READY:
                hop.offer(outgoing()) if not any(isinstance(e, Done) for e in hop.events) else None
            hop.send(data[at : at + 1])
        self.assertEqual(hop.results, [("delivered", 250)])


class NullSenderTests(SynchronousTestCase):
    """Reports have no sender."""

    def test_null(self) -> None:
        """The null reverse-path is sent as such."""
        hop = Hop().greet("SMTPUTF8")
        message = outgoing(sender="", smtpUtf8=False)
        self.assertIs(message.reversePath, NULL_PATH)
        self.assertEqual(hop.offer(message), "MAIL FROM:<>\r\n")
