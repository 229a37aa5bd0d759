"""Files of aliases, and what policy rewrite makes of headers: no loop, and nothing else changed."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from submitd.envelope import Envelope
from submitd.equality import sameAddress
from submitd.message.header import Header
from submitd.message.mailboxes import readMailboxes, rewriteMailboxes
from submitd.policies import newaddresses
from submitd.policies.newaddresses import AliasFile, Rules, expand, follow, newAddress, readAlias
from submitd.policies.rewrite import SENDERS, Rewrite
from submitd.session import Session
from submitd.wire.address import NULL_PATH, Mailbox
from tests.fuzz.target import Target
from tests.fuzz.test_wire import LONG, ODD

NEW = Mailbox('new "one', "new.example")


def aliases(data: bytes) -> None:
    """Whatever a file says, every address comes to an end, and whom it goes to are no aliases."""
    rules, problems = AliasFile(Path(), readAlias)._read(data)
    lines = data.removeprefix(b"\xef\xbb\xbf").splitlines()
    assert all(0 < line <= len(lines) and text.isprintable() for line, text in problems)
    assert len(rules) + len(problems) <= 2 * len(lines)
    for pattern, rule in rules.items():
        starts = [newaddresses._example(pattern), Mailbox("a", "x.example")]
        for start in [*starts, *(new for new in rule.news if isinstance(new, Mailbox))]:
            _ends(rules, start)
    assert list(newaddresses._cutLoops(rules)) == []


def _ends(rules: Rules, start: Mailbox) -> None:
    found = expand(rules, start)
    assert found and len({sameAddress(each) for each in found}) == len(found)
    for each in found:
        news = newaddresses._news(rules, each)
        assert not news or sameAddress(each) in map(sameAddress, news)
    assert expand(rules, start, 1)[0] == found[0]
    shown = newaddresses._news(rules, follow(rules, start))
    assert len(shown) != 1 or sameAddress(shown[0]) == sameAddress(follow(rules, start))
    assert newAddress(rules, start) == (newaddresses._news(rules, start) or [start])[0]


def rewrite(data: bytes) -> None:
    """Other addresses are in the places of all, or of none; what is no address stays."""
    body = data.replace(b"\r", b"").replace(b"\n", b"\r\n ") + b"\r\n"
    try:
        made = rewriteMailboxes(body, lambda _: NEW)
    except ValueError as error:
        assert str(error).isprintable() and len(str(error)) < 80
    else:
        again = readMailboxes(re.sub(rb"\r\n(?=[ \t])", b"", made).strip())
        assert set(again) <= {NEW} and made.count(b"\r\n") <= body.count(b"\r\n")
        assert rewriteMailboxes(made, lambda each: each) == made
    _section(data)


def _section(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"@x.example @y.example\n@*.b.example new@y.example\nroot new@y.example\n")
        file.flush()
        policy, envelope = Rewrite(senders=file.name), Envelope("ID", NULL_PATH, smtpUtf8=True)
        before, header = Header(data), Header(data)
        policy.headerReceived(Session(), envelope, header)
        once = header.octets
        assert len(header.fields) == len(before.fields)
        assert header.isMalformed == before.isMalformed
        for old, new in zip(before.fields, header.fields, strict=True):
            same: Any = (new.name, new.raw == old.raw or old.name in SENDERS)
            assert same == (old.name, True)
        policy.headerReceived(Session(), envelope, header)
        assert header.octets == once


ALIASES = Target(
    "aliases",
    aliases,
    [
        b"a@x.example ",
        b"b@x.example ",
        b"b@y.example ",
        b"@x.example ",
        b"@y.example ",
        b"@*.x.example ",
        b"@a.x.example ",
        b"@*.y.example ",
        b"@b.a.x.example ",
        b"root ",
        b"\n",
        b"\n",
        b"\n",
        b"\r\n",
        b"#",
        "@bücher.example ".encode(),
        b"@xn--bcher-kva.example ",
        b"a@[192.0.2.1] ",
        *LONG[:4],
        *ODD,
    ],
    60,
    30,
)
REWRITE = Target(
    "rewrite",
    rewrite,
    [
        b"From: ",
        b"Sender: root\r\n",
        b"Reply-To: ",
        b"To: a@x.example\r\n",
        b"a@x.example",
        b"<b@a.b.example>",
        b"root",
        b"\r\n",
        b"\r\n ",
        b" ",
        b",",
        b'"q \\" q"',
        b"(c)",
        b"@",
        b"group: ",
        b";",
        "ü".encode(),
        b"=?utf-8?q?x?= ",
        *LONG[:4],
        *ODD,
    ],
    60,
    30,
)

AliasesTests = ALIASES.tests(__name__)
RewriteTests = REWRITE.tests(__name__)
