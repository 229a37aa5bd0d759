"""What stands in the places of addresses: the files of policy rewrite.

A line is a pattern and what addresses of it become: ``ADDRESS NEW``.  A pattern is an address, a
domain ``@DOMAIN``, all domains below one ``@*.DOMAIN``, or a name alone, for those that have no
domain.  What is new is an address, or ``@NEWDOMAIN``, which keeps the local part.  The most exact
pattern wins, wherever it stands.

Senders have one new address, and what is new is not looked up again.  Aliases have one or more, and
each of them may be an alias in its turn; an address among its own new ones stays.  A line by which
an alias would come back to itself in any other way is broken, and is found when the file is read.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from submitd.equality import sameAddress, sameLocalPart
from submitd.policies.addresses import Addresses, Pattern, Problem, WatchedFile, readPattern
from submitd.wire.address import Mailbox, readMailbox

# A whole address, or a new domain.
New = Mailbox | str

# Stands for any local part and any name of a domain where loops are looked for; in no address.
_ANY = "\0"


@attrs.define(eq=False)
class Rule:
    """One line.

    :param line: its number.
    :param news: what addresses of its pattern become; nothing for what they are.
    """

    line: int
    news: tuple[New, ...]


Rules = Addresses[Rule]


def readSender(words: list[bytes], rules: Rules) -> None:
    """Take a line of the file of senders.

    :raise ValueError: when it is broken; says why.
    """
    if len(words) > 2:
        raise ValueError("more than one new address")
    readAlias(words, rules)


def readAlias(words: list[bytes], rules: Rules) -> None:
    """Take a line of the file of aliases.

    :raise ValueError: when it is broken; says why.
    """
    pattern = _readKey(words[0])
    if len(words) < 2:
        raise ValueError("no new address behind it")
    before = rules.get(pattern)
    if before is not None:
        raise ValueError(f"line {before.line} is for the same addresses")
    rules.set(pattern, Rule(rules.line, tuple(map(_readNew, words[1:]))))


def _readKey(word: bytes) -> Pattern:
    if b"@" in word:
        return readPattern(word)
    return sameLocalPart(readMailbox(word + b"@any.example").localPart), ""


def _readNew(word: bytes) -> New:
    if word.startswith(b"@"):
        return readMailbox(b"x" + word).domain
    mailbox = readMailbox(word)
    if not mailbox.domain:
        raise ValueError("a new address without a domain")
    return mailbox


class AliasFile(WatchedFile[Rule]):
    """A file of aliases, without the lines that close a loop."""

    def _read(self, octets: bytes) -> tuple[Rules, list[Problem]]:
        rules, problems = super()._read(octets)
        return rules, sorted([*problems, *_cutLoops(rules)])


def newAddress(rules: Rules, mailbox: Mailbox) -> Mailbox:
    """What the most exact line makes of a sender; itself where there is none."""
    for new in _news(rules, mailbox):
        return new
    return mailbox


def expand(rules: Rules, mailbox: Mailbox, most: int = 0) -> list[Mailbox]:
    """Whom mail to an address goes to, each once, in the order of the lines.

    :param most: no more than one above this are looked for; 0 for all.
    """
    found: dict[Pattern, Mailbox] = {}
    seen: set[Pattern] = set()
    waiting = [mailbox]
    while waiting and not 0 < most < len(found):
        each = waiting.pop()
        same = sameAddress(each)
        if same not in seen:
            seen.add(same)
            news = _news(rules, each)
            if not news or any(sameAddress(new) == same for new in news):
                found[same] = each
            waiting += reversed(news)
    return list(found.values())


def follow(rules: Rules, mailbox: Mailbox) -> Mailbox:
    """What an address is called where it is shown: an alias of several keeps its own name."""
    seen = {sameAddress(mailbox)}
    while len(news := _news(rules, mailbox)) == 1 and sameAddress(news[0]) not in seen:
        [mailbox] = news
        seen.add(sameAddress(mailbox))
    return mailbox


def _news(rules: Rules, mailbox: Mailbox) -> list[Mailbox]:
    for rule in rules.find(mailbox):
        return [
            new if isinstance(new, Mailbox) else Mailbox(mailbox.localPart, new)
            for new in rule.news
        ]
    return []


def _cutLoops(rules: Rules) -> Iterator[Problem]:
    """Take out the lines that close a loop, each named.

    An address stands for each pattern.  That is enough: where a loop goes through a whole new
    address, that address is gone to from its own line's, and a loop that keeps the local part is
    the same for all that have no line of their own.
    """
    ended: set[Pattern] = set()
    for pattern, _ in rules.items():
        yield from _cutLoopsFrom(rules, _example(pattern), ended)


def _example(pattern: Pattern) -> Mailbox:
    local, domain = pattern
    return Mailbox(
        _ANY if local is None else local, _ANY + domain if domain.startswith(".") else domain
    )


def _cutLoopsFrom(rules: Rules, start: Mailbox, ended: set[Pattern]) -> Iterator[Problem]:
    same = sameAddress(start)
    # The addresses on the way, and what is still to be looked at behind each.
    way = {same: (start, iter(_news(rules, start)))} if same not in ended else {}
    while way:
        same, (mailbox, rest) = next(reversed(way.items()))
        new = next(rest, None)
        if new is None:
            del way[same]
            ended.add(same)
            continue
        other = sameAddress(new)
        if other in way and other != same:
            rule = next(rules.find(mailbox))
            yield rule.line, f"by {_shown(new)} it comes back to itself"
            rule.news = ()
            del way[same]
            ended.add(same)
        elif other not in ended and other != same:
            way[other] = (new, iter(_news(rules, new)))


def _shown(mailbox: Mailbox) -> str:
    text = f"@{mailbox.domain}" if mailbox.localPart == _ANY else str(mailbox)
    return text if text.isprintable() else ascii(text)[1:-1]
