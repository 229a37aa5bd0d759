"""The messages that the clients send, as the octets that must come out again."""

from __future__ import annotations

import base64
import random
from functools import cache

ATTACHMENT = 5 * 1024 * 1024
"""Octets of the attachment of :func:`full`."""

_BOUNDARY = "=_a_boundary_of_its_own"

# Lines whose dots a client must double and the service must halve, at every distance, and 8-bit.
_TEXT = """\
.
..
...
.leading dot
. dot and space
Grüße aus Köln, ¡olé!, 日本語, 🐧
.Ümlaut behind a dot

 .a space before the dot
trailing space\x20
trailing tab\t
From the beginning of a line
"""


def _header(subject: str, kind: str) -> str:
    return (
        "Date: Fri, 16 Oct 2026 12:00:00 +0000\n"
        "Message-ID: <1@example.org>\n"
        f"Subject: {subject}\n"
        "From: ada@example.org\n"
        "To: bob@example.net\n"
        "MIME-Version: 1.0\n"
        f"{kind}\n"
    )


def _wire(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("utf-8")


@cache
def full() -> bytes:
    """An 8-bit text full of dot-lines, with an attachment of 5 MB."""
    octets = random.Random(5321).randbytes(ATTACHMENT)
    head = _header("everything", f'Content-Type: multipart/mixed; boundary="{_BOUNDARY}"\n')
    text = (
        f"--{_BOUNDARY}\n"
        "Content-Type: text/plain; charset=utf-8\n"
        "Content-Transfer-Encoding: 8bit\n\n"
        f"{_TEXT * 50}{'x' * 998}\n.{'y' * 990}\n"
        f"--{_BOUNDARY}\n"
        "Content-Type: application/octet-stream\n"
        "Content-Disposition: attachment; filename=attachment.bin\n"
        "Content-Transfer-Encoding: base64\n\n"
        f"{base64.encodebytes(octets).decode('ascii')}"
        f"--{_BOUNDARY}--\n.\n"
    )
    return _wire(head + text)


@cache
def small() -> bytes:
    """The 8-bit text with its dot-lines alone."""
    kind = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
    return _wire(_header("small", kind) + _TEXT)


@cache
def utf8() -> bytes:
    """The text below a header in UTF-8 (RFC 6532)."""
    kind = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
    return _wire(_header("Grüße 日本語 🐧", kind) + _TEXT)
