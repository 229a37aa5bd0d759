"""What a submission service meets, row by row, and where each is checked.

:data:`ROWS` names for each kind of input the checks of the families (``family: check``, or the
beginning of it), which run over real sockets and TLS by every way of cutting, and tests elsewhere
(``tests.module:Class.method``) for what no client alone can bring about.  A test holds that all of
them exist, and that no check belongs to no row.
"""

from __future__ import annotations

_RELAY = "tests.relay.test_destinations"
_CLIENT = "tests.relay.test_client"
_THROTTLE = "tests.policies.test_loginthrottle"
_GUESSED = "tests.robustness.test_passwords:PasswordTests"

ROWS: dict[str, tuple[str, ...]] = {
    "end-of-data look-alikes": ("end of data: ",),
    "look-alikes of line ends between commands": ("command lines: ",),
    "outbound: no lone CR or LF, dot-stuffed, DKIM over the bytes sent": (
        "tests.fuzz.test_relay:RelayTests.test_corpus",
        "tests.wire.test_data:DotEncoderTests.test_nothingBareLeaves",
        f"{_RELAY}:DeliveryTests.test_bodyBroken",
        "tests.policies.test_dkim:SigningTests.test_dots",
        "tests.policies.test_dkim:SigningTests.test_anyBody",
    ),
    "BDAT": ("BDAT: ",),
    "STARTTLS: what stands behind it, before it and in its place": ("STARTTLS: ",),
    "relay: a next hop that speaks before TLS": (
        f"{_CLIENT}:TLSTests.test_injection",
        f"{_CLIENT}:TLSTests.test_injectionLater",
        f"{_RELAY}:TLSTests.test_injected",
    ),
    "TLS: old versions, renegotiation, names, plaintext, HTTP": ("TLS: ",),
    "AUTH: malformed, out of order, cut off, ten thousand": ("AUTH: ",),
    "user names that mean something elsewhere; tokens": (
        "user names: ",
        "tests.checkers.test_tokens:TokensCheckerTests.test_expiry",
        "tests.checkers.test_tokens:TokensCheckerTests.test_digestIsNoToken",
        "tests.checkers.test_claims:OwnerTests.test_audience",
        "tests.checkers.test_claims:OwnerTests.test_expiry",
        "tests.checkers.test_oauth:IntrospectionTests.test_names",
        "tests.checkers.test_signedtoken:SignatureTests.test_secrets",
        "tests.checkers.test_signedtoken:SignatureTests.test_confusion",
        "tests.checkers.test_signedtoken:SignatureTests.test_ownKeys",
        "tests.checkers.test_signedtoken:ClaimTests.test_audience",
        "tests.checkers.test_signedtoken:ClaimTests.test_times",
    ),
    "a cached login, a changed password": (
        f"{_GUESSED}.test_remembered",
        "tests.checkers.test_cache:CachedCheckerTests.test_otherPassword",
        "tests.checkers.test_cache:CachedCheckerTests.test_revised",
    ),
    "known and unknown users compared": (
        "AUTH: sameAnswer",
        "AUTH: freshChallenges",
        "tests.robustness.test_timing:CountingTests.test_password",
        "tests.robustness.test_timing:CountingTests.test_digest",
        "tests.robustness.test_timing:AnswerTests.test_text",
        "tests.robustness.test_timing:AnswerTests.test_time",
    ),
    "password guessing": (
        "AUTH: guessing",
        f"{_GUESSED}.test_oneAddress",
        f"{_GUESSED}.test_oneUser",
        f"{_GUESSED}.test_network",
        f"{_GUESSED}.test_successBetween",
        f"{_THROTTLE}:OwnerTests.test_known",
    ),
    "controls in paths and parameters, encoded or not": ("addresses and parameters: bad",),
    "source routes, quoted local parts": ("addresses and parameters: strangeRecipient",),
    "EHLO names": (
        "addresses and parameters: clientName",
        "addresses and parameters: helloReset",
    ),
    "NUL, 8-bit, UTF-8 and what looks like it": (
        "characters: ",
        "tests.policies.test_senderowner:FileTests.test_internationalDomains",
        "tests.test_equality:EqualityTests.test_domains",
    ),
    "very much of everything": ("heavy input: ",),
    "PROXY headers": (
        "proxies: untrusted",
        "proxies: trusted",
        "proxies: malformed",
        "proxies: cutOff",
        "tests.proxies.test_haproxy:HAProxyTests.test_forged",
    ),
    "XCLIENT and XFORWARD": ("proxies: xclient",),
    "bounces": (
        "tests.relay.test_runner:ReportTests.test_never",
        "tests.relay.test_runner:ReportTests.test_nullSender",
        "tests.relay.test_runner:ReportTests.test_reportFails",
        "tests.relay.test_runner:DeliveryTests.test_loop",
        "tests.relay.test_reports:FormTests.test_envelope",
        "tests.relay.test_reports:FormTests.test_returnedHeader",
    ),
    "policies and deliveries that fail, full disks, killed processes": (
        "tests.robustness.test_failures:FailureTests.test_otherClients",
        "tests.robustness.test_failures:FailureTests.test_leaving",
        "tests.clients.test_fulldisk:FullDiskTests.test_noRoom",
        "tests.clients.test_fulldisk:NoInodesTests.test_noRoom",
        "tests.relay.test_runner:QueueTests.test_dataBaseGone",
        "tests.crash.test_crash:CrashTests.test_oneAtATime",
        "tests.crash.test_crash:CrashTests.test_manyAtATime",
    ),
}
