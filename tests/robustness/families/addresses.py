"""Addresses, parameters and client names with what could end a header, a log line or a command."""

from __future__ import annotations

from tests.robustness.checks import Family, Talk, Wrong

FAMILY = Family("addresses and parameters")

BAD_SENDERS = {
    "CR": b"<ada\r@example.org>",
    "LF": b"<ada\n@example.org>",
    "NUL": b"<ada\0@example.org>",
    "NUL quoted": b'<"a\0b"@example.org>',
    "escape": b"<ada\x1b@example.org>",
    "DEL": b"<ada\x7f@example.org>",
    "C1 control": "<ad\u0085a@example.org>".encode(),
    "line separator": "<ad\u2028a@example.org>".encode(),
    "no brackets": b"ada@example.org",
    "open bracket": b"<ada@example.org",
    "closed twice": b"<ada@example.org>>",
    "opened twice": b"<<ada@example.org>",
    "text behind": b"<ada@example.org>x",
    "two addresses": b"<ada@example.org> <bob@example.org>",
    "no domain": b"<ada>",
    "empty domain": b"<ada@>",
    "empty local part": b"<@example.org>",
    "two at signs": b"<ada@b@example.org>",
    "dot first": b"<.ada@example.org>",
    "two dots": b"<a..da@example.org>",
    "dot last": b"<ada.@example.org>",
    "space": b"<ada lovelace@example.org>",
    "comment": b"<ada(comment)@example.org>",
    "open quote": b'<"ada@example.org>',
    "local part too long": b"<" + b"a" * 243 + b"@example.org>",
    "label too long": b"<ada@" + b"e" * 64 + b".org>",
    "path too long": b"<ada@" + b"e.x." * 70 + b"org>",
    "hyphen first": b"<ada@-example.org>",
    "underscore": b"<ada@exam_ple.org>",
    "percent": b"<ada@exam%0aple.org>",
    "literal": b"<ada@[300.1.1.1]>",
    "literal open": b"<ada@[192.0.2.1>",
    "literal of nothing": b"<ada@[]>",
    "tag": b"<ada@[x-unknown:value]>",
    "broken UTF-8": b"<ad\xffa@example.org>",
}


@FAMILY.inputs(BAD_SENDERS)
def badSender(talk: Talk, path: bytes) -> None:
    """No address: 501 or 553 (500 for a broken line), and no transaction."""
    peer = talk.ready()
    peer.say(b"MAIL FROM:" + path, "500", "501", "553", "555")
    peer.say(b"RCPT TO:<bob@example.net>", "503")
    peer.inStep()


@FAMILY.inputs(BAD_SENDERS)
def badRecipient(talk: Talk, path: bytes) -> None:
    """No address: 501 or 553 (500 for a broken line), and no recipient."""
    peer = talk.ready()
    peer.say(b"MAIL FROM:<%b>" % talk.target.sender.encode(), "250")
    peer.say(b"RCPT TO:" + path, "500", "501", "553", "555")
    peer.say(b"DATA", "503", "554")
    peer.inStep()


PARAMETERS = {
    "unknown": b"XYZZY=1",
    "no keyword": b"=1",
    "no value": b"SIZE=",
    "control": b"SIZE=1\x01",
    "NUL": b"SIZE=1\0",
    "CR": b"SIZE=1\rX",
    "twice": b"SIZE=1 SIZE=2",
    "negative": b"SIZE=-1",
    "no number": b"SIZE=1e3",
    "21 digits": b"SIZE=100000000000000000000",
    "unknown body": b"BODY=9BITMIME",
    "body of nothing": b"BODY",
    "xtext of LF": b"AUTH=ada+0Aevil@example.org",
    "xtext of CRLF": b"AUTH=ada@example.org+0D+0AX:1",
    "xtext of NUL": b"AUTH=ada+00@example.org",
    "xtext in lower case": b"AUTH=ada+2b@example.org",
    "xtext cut off": b"AUTH=ada+2",
    "envelope id with LF": b"ENVID=a+0Ab",
    "RET of both": b"RET=FULL,HDRS",
    "a thousand": b" ".join(b"X%d=1" % number for number in range(300)),
    "very long": b"X=" + b"1" * 60000,
    "comma": b"SIZE=1,BODY=8BITMIME",
}


@FAMILY.inputs(PARAMETERS)
def badParameter(talk: Talk, parameter: bytes) -> None:
    """A parameter that is malformed, given twice or unknown is 501, 552 or 555."""
    peer = talk.ready()
    peer.say(
        b"MAIL FROM:<%b> " % talk.target.sender.encode() + parameter, "500", "501", "55", "504"
    )
    peer.say(b"RCPT TO:<bob@example.net>", "503")
    peer.inStep()


RECIPIENT_PARAMETERS = {
    "unknown": b"XYZZY",
    "of MAIL": b"SIZE=1",
    "NOTIFY of both": b"NOTIFY=NEVER,SUCCESS",
    "NOTIFY of nothing": b"NOTIFY=",
    "ORCPT without type": b"ORCPT=bob@example.net",
    "ORCPT with LF": b"ORCPT=rfc822;bob+0AX:1@example.net",
    "ORCPT twice": b"ORCPT=rfc822;a@b.example ORCPT=rfc822;a@b.example",
}


@FAMILY.inputs(RECIPIENT_PARAMETERS)
def badRecipientParameter(talk: Talk, parameter: bytes) -> None:
    """The same at RCPT, and there is no recipient."""
    peer = talk.ready()
    peer.say(b"MAIL FROM:<%b>" % talk.target.sender.encode(), "250")
    peer.say(b"RCPT TO:<bob@example.net> " + parameter, "501", "555", "504")
    peer.say(b"DATA", "503", "554")
    peer.inStep()


STRANGE = {
    "source route": b"<@one.example,@two.example:bob@example.net>",
    "quoted": b'<"bob smith"@example.net>',
    "quoted at sign": b'<"b@b"@example.net>',
    "quoted bracket": b'<"b>b"@example.net>',
    "quoted pair": b'<"b\\"b"@example.net>',
    "path": b"<../../etc/passwd@example.net>",
    "shell": b"<`id`@example.net>",
    "pipe": b"<|program@example.net>",
    "option": b"<-oQ/tmp@example.net>",
    "percent": b"<user%elsewhere.example@example.net>",
    "bang": b"<elsewhere!user@example.net>",
    "IPv6": b"<bob@[IPv6:2001:db8::1]>",
    "postmaster": b"<Postmaster>",
}


@FAMILY.inputs(STRANGE)
def strangeRecipient(talk: Talk, path: bytes) -> None:
    """What the grammar allows is taken or refused, and a message to it is one message."""
    kept = talk.keptBefore()
    peer = talk.ready()
    peer.say(b"MAIL FROM:<%b>" % talk.target.sender.encode(), "250")
    if peer.say(b"RCPT TO:" + path, "250", "5").code == 250:
        peer.say(b"DATA", "354")
        peer.say(talk.header + b"text\r\n.", "250")
        if kept() not in (-1, 1):
            raise Wrong(f"{kept()} messages were kept")
    peer.inStep()


HELLOS = {
    "64 KB": b"x" * 65536,
    "300 octets": b"x." * 150,
    "nothing": b"",
    "spaces": b"one two three",
    "comment": b"client(comment)",
    "quotes": b'"client"',
    "angle brackets": b"<script>alert(1)</script>",
    "escape": b"\x1b[2Jclient",
    "NUL": b"client\0.example",
    "CR": b"client\rRSET",
    "LF": b"client\nRSET",
    "header": b"client) by evil (x",
    "8-bit": b"cli\xe9nt.example",
    "UTF-8": "müller.example".encode(),
    "equal sign": b"user=root",
    "bad literal": b"[not an address]",
}


@FAMILY.inputs(HELLOS)
def clientName(talk: Talk, name: bytes) -> None:
    """501 (500 for a broken line), or taken; a message behind it is a message."""
    peer = talk.connect()
    peer.expect("220")
    peer.say(b"EHLO " + name, "500", "501", "250")
    peer.inStep()


@FAMILY.inputs(HELLOS)
def helloReset(talk: Talk, name: bytes) -> None:
    """The same within a transaction: no bad EHLO is a new beginning with a bad name."""
    peer = talk.transaction()
    peer.say(b"EHLO " + name, "500", "501", "250")
    peer.inStep()
