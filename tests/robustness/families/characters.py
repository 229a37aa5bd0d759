"""NUL, 8-bit and UTF-8 where it was not asked for, or where it is broken."""

from __future__ import annotations

from tests.robustness.checks import Family, Talk, Wrong

FAMILY = Family("characters")

UTF8 = {
    "local part": "<müller@example.net>".encode(),
    "domain": "<bob@bücher.example>".encode(),
    "both": "<日本@例え.example>".encode(),
}


@FAMILY.inputs(UTF8)
def withoutAsking(talk: Talk, path: bytes) -> None:
    """UTF-8 in an address without SMTPUTF8 is refused by 553 (RFC 6531 3.5), or 501."""
    peer = talk.ready()
    peer.say(b"MAIL FROM:" + path, "501", "550", "553")
    peer.say(b"MAIL FROM:<%b>" % talk.target.sender.encode(), "250")
    peer.say(b"RCPT TO:" + path, "501", "550", "553")
    peer.inStep()


@FAMILY.inputs(UTF8)
def asked(talk: Talk, path: bytes) -> None:
    """With SMTPUTF8 the same address is taken."""
    peer = talk.offers("SMTPUTF8")
    talk.transaction(peer, b" SMTPUTF8")
    peer.say(b"RCPT TO:" + path, "250")
    peer.inStep()


BROKEN = {
    "lone continuation": b"<b\x80b@example.net>",
    "cut off": b"<b\xc3@example.net>",
    "overlong slash": b"<b\xc0\xafb@example.net>",
    "overlong at": b"<b\xc1\x80example.net@example.net>",
    "overlong LF": b"<b\xc0\x8ab@example.net>",
    "surrogate": b"<b\xed\xa0\x80b@example.net>",
    "beyond U+10FFFF": b"<b\xf4\x90\x80\x80b@example.net>",
    "five octets": b"<b\xf8\x88\x80\x80\x80b@example.net>",
    "Latin-1": b"<m\xfcller@example.net>",
    "fullwidth dot": "<bob@example\uff0enet>".encode(),
    "ideographic dot": "<bob@example\u3002net>".encode(),
    "zero width in the domain": "<bob@exam\u200bple.net>".encode(),
    "C1 control": "<b\u0085b@example.net>".encode(),
    "paragraph separator": "<b\u2029b@example.net>".encode(),
}


@FAMILY.inputs(BROKEN)
def broken(talk: Talk, path: bytes) -> None:
    """Broken UTF-8 and what could be read as another address is refused, asked for or not."""
    peer = talk.offers("SMTPUTF8")
    talk.transaction(peer, b" SMTPUTF8")
    peer.say(b"RCPT TO:" + path, "500", "501", "553")
    peer.say(b"RSET", "250")
    peer.say(b"MAIL FROM:" + path + b" SMTPUTF8", "500", "501", "553", "550")
    peer.inStep()


TEXTS = {
    "8-bit header": b"Subject: \xff\xfe\r\n\r\ntext\r\n",
    "UTF-8 header": "Subject: Grüße\r\n\r\ntext\r\n".encode(),
    "8-bit body": b"\r\n" + bytes(range(128, 256)) + b"\r\n",
    "controls": b"\r\n" + bytes(set(range(1, 32)) - {10, 13}) + b"\r\n",
    "no header": b"\r\ntext\r\n",
    "no header field": b"this is no header field\r\n\r\ntext\r\n",
    "header alone": b"Subject: x\r\n",
    "nothing": b"",
    "folded for ever": b"Subject: x\r\n" + b" y\r\n" * 2000 + b"\r\ntext\r\n",
}


@FAMILY.inputs(TEXTS)
def text(talk: Talk, octets: bytes) -> None:
    """Strange text is one message or one refusal."""
    kept = talk.keptBefore()
    peer = talk.data()
    taken = peer.send(talk.header[:-2] + octets + b".\r\n").expect("250", "5").code == 250
    peer.inStep()
    if kept() not in (-1, taken):
        raise Wrong(f"{kept()} messages were kept")


@FAMILY.inputs({"header": b"Subject: a\0b\r\n\r\ntext\r\n", "body": b"Subject: x\r\n\r\na\0b\r\n"})
def nul(talk: Talk, octets: bytes) -> None:
    """A NUL in a message is refused once (RFC 5321 2.3.8, RFC 5322 4)."""
    kept = talk.keptBefore()
    peer = talk.data()
    peer.send(octets + b".\r\n").expect("5")
    peer.inStep()
    if kept() not in (-1, 0):
        raise Wrong("a message was kept")
