"""The grammar: RFC 5321 4.1.2 and 4.1.3 with what RFC 6531 3.3 adds, as patterns.

Each name is a piece of a regular expression over ``str``, with the rule it stands for above it;
address.py and command.py put them together and compile them.  No pattern can match a control
character.  The branches of every repetition begin with different characters, so that no input takes
more than linear time; possessive are sets of characters alone, since Python before 3.11.5 and PyPy
get possessive groups wrong.  Where we accept more or less than the rule says, a comment says so and
why.
"""

from __future__ import annotations


def oneOrMore(characters: str) -> str:
    """As many of these characters as there are, and at least one.

    Not ``[...]++``, which PyPy 7.3.19 also finds where there is none.

    :param characters: as they stand between brackets.
    """
    return f"[{characters}][{characters}]*+"


# What no address, parameter or decoded xtext may hold (rule 7).
CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029"

# RFC 6531 3.3 adds to many rules: UTF8-non-ascii = UTF8-2 / UTF8-3 / UTF8-4
# Less than the rule: C1 controls and the line and paragraph separators, which some readers of logs
# and header fields take for line ends.  Surrogates never come out of strict UTF-8.
# A set with so many characters in it is written by those that are not, of which these are the
# first: as a set of what is in it, each took ten times as long to compile, at every start.
_BUT = rf"^{CONTROL}\ud800-\udfff"

# RFC 5322 3.2.3: atext, one of ALPHA / DIGIT / these; RFC 6531 3.3: atext =/ UTF8-non-ascii
ASCII_ATEXT = r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~"
ATEXT_AND_DOT = _BUT + r' "(),:;<>@\[\\\]'
ATEXT = ATEXT_AND_DOT + "."

# Dot-string = Atom *("."  Atom);  Atom = 1*atext
ASCII_DOT_STRING = rf"{oneOrMore(ASCII_ATEXT)}(?:\.{oneOrMore(ASCII_ATEXT)})*"
DOT_STRING = rf"{oneOrMore(ATEXT)}(?:\.{oneOrMore(ATEXT)})*"

# qtextSMTP = %d32-33 / %d35-91 / %d93-126; RFC 6531 3.3: qtextSMTP =/ UTF8-non-ascii
# quoted-pairSMTP = %d92 %d32-126
# Quoted-string = DQUOTE *QcontentSMTP DQUOTE;  QcontentSMTP = qtextSMTP / quoted-pairSMTP
_QTEXT = oneOrMore(rf'{_BUT}"\\')
QUOTED_STRING = rf'"(?:{_QTEXT}|\\[ -~])*"'

# Local-part = Dot-string / Quoted-string
LOCAL_PART = rf"(?:{DOT_STRING}|{QUOTED_STRING})"

# sub-domain = Let-dig [Ldh-str];  Ldh-str = *( ALPHA / DIGIT / "-" ) Let-dig
# RFC 1035 2.3.4: a label has 63 octets at most.
ASCII_SUB_DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# RFC 6531 3.3: sub-domain =/ U-label.  What makes a U-label is more than a pattern can say:
# address.py looks at the characters and at the length of the A-label.
_LDH = _BUT + r" -,./:-@\[-`{-~"
_LET_DIG = _LDH + r"\-"
SUB_DOMAIN = rf"[{_LET_DIG}](?:[{_LDH}]{{0,61}}[{_LET_DIG}])?"

# Domain = sub-domain *("." sub-domain)
ASCII_DOMAIN = rf"{ASCII_SUB_DOMAIN}(?:\.{ASCII_SUB_DOMAIN})*"
DOMAIN = rf"{SUB_DOMAIN}(?:\.{SUB_DOMAIN})*"

# IPv4-address-literal = Snum 3("."  Snum);  IPv6-address-literal = "IPv6:" IPv6-addr
# address-literal = "[" ( IPv4-address-literal / IPv6-address-literal / ... ) "]"
# Less than the rule: no General-address-literal, because IANA has registered no tag but IPv6.  The
# digits are checked with the ipaddress module.
ADDRESS_LITERAL = r"\[(?:(?P<ipv4>[0-9.]+)|[Ii][Pp][Vv]6:(?P<ipv6>[0-9A-Fa-f:.]+))\]"

# At-domain = "@" Domain;  A-d-l = At-domain *( "," At-domain )
# RFC 5321 4.1.2 with appendix C: source routes must be accepted, should be ignored.
SOURCE_ROUTE = rf"@{DOMAIN}(?:,@{DOMAIN})*"

# esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
ESMTP_KEYWORD = r"[A-Za-z0-9][A-Za-z0-9-]*+"

# esmtp-value = 1*(%d33-60 / %d62-126); RFC 6531 3.3: esmtp-value =/ UTF8-non-ascii
ESMTP_VALUE = oneOrMore(f"{_BUT} =")

# RFC 3461 4: xtext = *( xchar / hexchar );  hexchar = "+" 2 upper-case hexadecimal digits
# xchar = any ASCII CHAR between "!" (33) and "~" (126) inclusive, except for "+" and "="
XTEXT = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*"

# RFC 6533 3: QCHAR = %x21-2a / %x2c-3c / %x3e-5b / %x5d-7e
# utf-8-addr-xtext = 1*(QCHAR / EmbeddedUnicodeChar);  utf-8-addr-unitext takes raw UTF-8 as well
# EmbeddedUnicodeChar = "\x{" HEXPOINT "}"
# Less than the rule: HEXPOINT also spells ASCII controls; those of QCHAR's gaps are let through
# alone (space + = \), and all from U+0080 up, each in its shortest upper-case form.
HEXPOINT = (
    r"(?:20|2B|3D|5C|[89A-F][0-9A-F]|[1-9A-F][0-9A-F]{2}|[1-9A-CEF][0-9A-F]{3}"
    r"|D[0-7][0-9A-F]{2}|[1-9A-F][0-9A-F]{4}|10[0-9A-F]{4})"
)
UTF8_ADDR_UNITEXT = rf"(?:[{_BUT} +=\\]|\\x\{{{HEXPOINT}\}})+"

# More than RFC 5321 4.1.1.1 (Domain / address-literal), for what mail programs do send: names of
# one label, underscores (the names of many Windows machines), a dot at the end, addresses without
# brackets or without "IPv6:", and with a zone ("fe80::1%en0").  Neither space nor any character
# that has a meaning in a header field, a path or a log line.
HELLO = rf"{oneOrMore('A-Za-z0-9._:-')}|\[{oneOrMore('A-Za-z0-9._:%-')}\]"
