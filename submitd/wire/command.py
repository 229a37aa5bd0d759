"""Commands: the line into verb and argument, and the arguments of MAIL, RCPT and BDAT.

MAIL and RCPT are read twice over: one pattern for the ordinary ``FROM:<local@domain>`` in ASCII,
and an exact way for quoted, UTF-8, routed, null and malformed ones.  Both give the same answer for
whatever both can read; a test holds that.  Everything that is wrong is raised as
:class:`submitd.wire.errors.Refused`: 500 for the line, 501 for an argument, with 5.1.7 for the
sender, 5.1.3 for a recipient and 5.5.4 for a parameter.
"""

from __future__ import annotations

import re
from functools import lru_cache

from submitd.wire import abnf
from submitd.wire.address import (
    MAX_PATH,
    NULL_PATH,
    Mailbox,
    ReversePath,
    badRecipient,
    badSender,
    readPath,
)
from submitd.wire.errors import Refused
from submitd.wire.reply import BAD_LINE, SYNTAX, UNRECOGNIZED, Reply

Parameters = dict[str, str | None]

MAIL_SYNTAX = Reply(501, "5.5.4", "Syntax: MAIL FROM:<address> [<parameter> ...]")
RCPT_SYNTAX = Reply(501, "5.5.4", "Syntax: RCPT TO:<address> [<parameter> ...]")

# RFC 5321 2.4: verbs are alphabetic, in upper or lower case.  A tab is white space.  Not ++: see
# abnf.oneOrMore.
_LINE = re.compile(rb"([A-Za-z][A-Za-z]*+)(?:[ \t][ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+))?")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_ORDINARY_MAIL, _ORDINARY_RCPT = (
    re.compile(rf"(?i:{word}):<({abnf.ASCII_DOT_STRING})@({abnf.ASCII_DOMAIN})>")
    for word in ("FROM", "TO")
)
# What is longer is no ordinary path, and is not to be remembered.
_MOST_ORDINARY = len("FROM:") + MAX_PATH
# More than RFC 5321 4.1.1.2 and 4.1.1.3: white space behind the colon.  3.3 forbids it, but mail
# programs and hand-written scripts send it all the time, and every server takes it.
_FROM = re.compile(rb"(?i:FROM):[ \t]*")
_TO = re.compile(rb"(?i:TO):[ \t]*")
# A path up to its own ">": one within quotes does not end it.
_BRACKETED = re.compile(rb'<(?:[^">]|"(?:[^"\\]|\\.)*")*>', re.DOTALL)
_PARAMETER = re.compile(rf"({abnf.ESMTP_KEYWORD})(?:=({abnf.ESMTP_VALUE}))?")

_XTEXT = re.compile(abnf.XTEXT)
_HEXCHAR = re.compile(rb"\+(..)")
_NOT_XCHAR = re.compile(rb"[^!-*,-<>-~]")
_UTF8_ADDR_UNITEXT = re.compile(abnf.UTF8_ADDR_UNITEXT)
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]+)\}")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_UNSAFE = re.compile(f"[{abnf.CONTROL}]")

# More digits than this are no size: 20 hold 2 ** 64 (RFC 1870 6), and RFC 3030 2 says only DIGIT.
_SIZE = re.compile(r"[0-9]{1,20}")
_BDAT = re.compile(rb"([0-9]{1,20})(?:[ \t]+((?i:LAST)))?")


def parseCommand(line: bytes) -> tuple[bytes, bytes]:
    """Cut a command line.

    :param line: without its CRLF.
    :return: the verb in upper case; the argument without white space around it.
    :raise Refused: 500, when it has control characters in it or does not begin with a verb.
    """
    matched = _LINE.fullmatch(line)
    if matched is None:
        raise Refused(BAD_LINE if _CONTROL.search(line) else UNRECOGNIZED)
    verb, argument = matched.groups(b"")
    return verb.upper(), argument.rstrip(b" \t")


def parseMail(argument: bytes) -> tuple[ReversePath, Parameters]:
    """Read the argument of MAIL.

    :return: the reverse-path; the parameters by upper-case keyword, ``None`` for one without value.
    :raise Refused: 501 5.1.7 for the address, 501 5.5.4 for anything else.
    """
    path, _, rest = argument.partition(b" ")
    reversePath = _ordinarySender(path) if len(path) <= _MOST_ORDINARY else None
    if reversePath is None:
        return _exactMail(argument)
    return reversePath, _parameters(rest)


def parseRcpt(argument: bytes) -> tuple[Mailbox, Parameters]:
    """Read the argument of RCPT.

    :return: the forward-path, its domain empty for ``<Postmaster>``; the parameters as in
        :func:`parseMail`.
    :raise Refused: 501 5.1.3 for the address, 501 5.5.4 for anything else.
    """
    path, _, rest = argument.partition(b" ")
    mailbox = _ordinaryRecipient(path) if len(path) <= _MOST_ORDINARY else None
    if mailbox is None:
        return _exactRcpt(argument)
    return mailbox, _parameters(rest)


def parseBdat(argument: bytes) -> tuple[int, bool]:
    """Read the argument of BDAT (RFC 3030 2).

    :return: the octets that follow; whether they are the last of the message.
    :raise Refused: 501 5.5.4.
    """
    matched = _BDAT.fullmatch(argument)
    if matched is None:
        raise Refused(SYNTAX, "BDAT wants a size and perhaps LAST")
    return int(matched[1]), matched[2] is not None


def parseSize(value: str | None) -> int:
    """Read the value of SIZE= (RFC 1870 6: 1*20DIGIT), in octets.

    :raise Refused: 501 5.5.4.
    """
    if value is None or not _SIZE.fullmatch(value):
        raise Refused(SYNTAX, "SIZE wants 1 to 20 digits")
    return int(value)


def encodeXtext(data: bytes) -> bytes:
    """Write any octets as xtext (RFC 3461 4)."""
    return _NOT_XCHAR.sub(lambda found: b"+%02X" % found[0][0], data)


def decodeXtext(text: str) -> str:
    """Read xtext (RFC 3461 4), whose octets must be UTF-8 (RFC 6531 3.4 for AUTH=).

    :raise Refused: 501 5.5.4, also when a control character comes out: it could end a line of the
        header or of the next server's dialogue.
    """
    if not _XTEXT.fullmatch(text):
        raise Refused(SYNTAX, "not xtext")
    octets = _HEXCHAR.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode("ascii"))
    try:
        return _safe(octets.decode("utf-8"))
    except UnicodeDecodeError:
        raise Refused(SYNTAX, "xtext of broken UTF-8") from None


def encodeUtf8AddrXtext(text: str) -> bytes:
    r"""Write an address of type utf-8 in ASCII, as ``\x{HEX}`` (RFC 6533 3, utf-8-addr-xtext)."""
    return _NOT_QCHAR.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", text).encode("ascii")


def decodeUtf8AddrXtext(text: str) -> str:
    """Read an address of type utf-8 (RFC 6533 3): utf-8-addr-xtext or utf-8-addr-unitext.

    Where SMTPUTF8 was not asked for, the caller refuses a text that is not ASCII.

    :raise Refused: 501 5.5.4.
    """
    if not _UTF8_ADDR_UNITEXT.fullmatch(text):
        raise Refused(SYNTAX, "not an address of type utf-8")
    return _safe(_EMBEDDED.sub(lambda found: chr(int(found[1], 16)), text))


# Whoever sends one message after another does so from one address, and often to the same ones.
@lru_cache(maxsize=1024)
def _ordinarySender(path: bytes) -> ReversePath | None:
    mailbox = _ordinary(_ORDINARY_MAIL, path)
    return None if mailbox is None else ReversePath(mailbox)


@lru_cache(maxsize=1024)
def _ordinaryRecipient(path: bytes) -> Mailbox | None:
    return _ordinary(_ORDINARY_RCPT, path)


def _ordinary(pattern: re.Pattern[str], path: bytes) -> Mailbox | None:
    matched = pattern.fullmatch(path.decode("ascii")) if path.isascii() else None
    if matched is not None:
        local, domain = matched.groups()
        if len(local) + len(domain) + 3 <= MAX_PATH:
            return Mailbox(local, domain)
    return None


def _exactMail(argument: bytes) -> tuple[ReversePath, Parameters]:
    try:
        path, rest = _pathAndRest(argument, _FROM, MAIL_SYNTAX)
        reversePath = NULL_PATH if path == b"<>" else ReversePath.parse(path)
    except ValueError as error:
        raise badSender(error) from None
    return reversePath, _exactParameters(rest, MAIL_SYNTAX)


def _exactRcpt(argument: bytes) -> tuple[Mailbox, Parameters]:
    try:
        path, rest = _pathAndRest(argument, _TO, RCPT_SYNTAX)
        mailbox = readPath(path)
    except ValueError as error:
        raise badRecipient(error) from None
    return mailbox, _exactParameters(rest, RCPT_SYNTAX)


def _pathAndRest(argument: bytes, word: re.Pattern[bytes], syntax: Reply) -> tuple[bytes, bytes]:
    matched = word.match(argument)
    if matched is None:
        raise Refused(syntax)
    bracketed = _BRACKETED.match(argument, matched.end())
    if bracketed is None:
        raise ValueError("no angle brackets around it")
    return bracketed[0], argument[bracketed.end() :]


def _exactParameters(rest: bytes, syntax: Reply) -> Parameters:
    if rest and rest[:1] not in b" \t":
        raise Refused(syntax)
    return _parameters(rest)


def _parameters(octets: bytes) -> Parameters:
    parameters: Parameters = {}
    if octets:
        try:
            text = octets.decode("utf-8")
        except UnicodeDecodeError:
            raise Refused(SYNTAX, "parameter of broken UTF-8") from None
        for word in text.replace("\t", " ").split(" "):
            if word:
                _addParameter(parameters, word)
    return parameters


def _addParameter(parameters: Parameters, word: str) -> None:
    matched = _PARAMETER.fullmatch(word)
    if matched is None:
        raise Refused(SYNTAX, "malformed parameter")
    keyword, value = matched.groups()
    keyword = keyword.upper()
    if keyword in parameters:
        raise Refused(SYNTAX, f"parameter {keyword} given twice")
    parameters[keyword] = value


def _safe(text: str) -> str:
    if _UNSAFE.search(text):
        raise Refused(SYNTAX, "control character in an encoded parameter")
    return text
