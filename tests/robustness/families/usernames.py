"""User names that mean something to a directory, a query, a path or a log."""

from __future__ import annotations

import base64

from tests.robustness.checks import Family, Talk, Wrong
from tests.robustness.families.login import offering
from tests.robustness.peer import WHOLE, Answer

FAMILY = Family("user names")

NAMES = {
    "SQL quote": b"' OR '1'='1",
    "SQL comment": b"ada@example.org'--",
    "LDAP filter": b"*)(uid=*))(|(uid=*",
    "LDAP star": b"*",
    "path": b"../../etc/passwd",
    "expansion": b"%u%n%d",
    "format": b"{0.__class__}",
    "shell": b"$(id)`id`|id",
    "colon": b"ada@example.org:x",
    "log line": b"x\r\n2026-01-01 [submitd#info] login: user=root",
    "LF": b"ada@example.org\n",
    "CR": b"ada@example.org\r",
    "ANSI": b"\x1b[31mroot",
    "right to left": "ada\u202e@example.org".encode(),
    "zero width": "ada\u200b@example.org".encode(),
    "soft hyphen": "ad\u00ada@example.org".encode(),
    "Cyrillic a": "\u0430da@example.org".encode(),
    "fullwidth": "\uff41\uff44\uff41@example.org".encode(),
    "broken UTF-8": b"ada\xff@example.org",
    "surrogates": b"\xed\xa0\x80",
    "overlong": b"a" * 1025,
    "very long": b"a" * 9000,
    "space before": b" ada@example.org",
    "space behind": b"ada@example.org ",
    "hash": b"# comment",
    "nobody": b"nobody@example.org",
}


@FAMILY.inputs(NAMES)
def strange(talk: Talk, name: bytes) -> None:
    """501 or 535, in the words of every other refusal, whatever a back end makes of the name."""
    password = talk.target.password.encode() or b"secret"
    peer = offering(talk)
    answers = [
        peer.say(b"AUTH PLAIN " + base64.b64encode(b"\0" + name + b"\0" + password), "501", "535"),
    ]
    if "LOGIN" in str(peer.say(b"EHLO client.example", "250").lines):
        peer.say(b"AUTH LOGIN", "334")
        peer.send(base64.b64encode(name) + b"\r\n")
        if (answer := peer.expect("334", "501", "535")).code == 334:
            answer = peer.say(base64.b64encode(password), "501", "535")
        answers.append(answer)
    _tellNothing(answers, name)
    peer.inStep()


@FAMILY.inputs(NAMES, ways=(WHOLE,))
def strangeIdentity(talk: Talk, name: bytes) -> None:
    """As an authorization identity (RFC 4616 2) it is no login either."""
    user, password = talk.target.user.encode() or b"x", talk.target.password.encode() or b"secret"
    peer = offering(talk)
    response = base64.b64encode(name + b"\0" + user + b"\0" + password)
    _tellNothing([peer.say(b"AUTH PLAIN " + response, "501", "535")], name)
    peer.say(b"MAIL FROM:<ada@example.org>", "530")
    peer.inStep()


def _tellNothing(answers: list[Answer], name: bytes) -> None:
    for answer in map(str, answers):
        if len(name) > 3 and name.decode("latin-1") in answer:
            raise Wrong(f"the answer repeats the name: {answer}")
        if any(word in answer.lower() for word in ("sql", "ldap", "traceback", "error:", "errno")):
            raise Wrong(f"a back end speaks: {answer}")
