"""The configuration with any octets: settings, or all mistakes, each in a line of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from submitd import config
from submitd.typed import Finding
from tests.fuzz.target import Target

SAMPLE = Path(__file__).parents[2] / "etc" / "submitd.toml"


def configuration(data: bytes) -> None:
    """Settings or a list of typed mistakes, never a traceback; nothing is written."""
    with tempfile.TemporaryDirectory(prefix="submitd-fuzz-") as name:
        file = Path(name) / "submitd.toml"
        file.write_bytes(data)
        try:
            findings = config.load(file).warnings
            assert all(finding.isWarning for finding in findings)
        except config.ConfigurationError as error:
            findings = error.findings
            assert not all(finding.isWarning for finding in findings)
            assert len(str(error).split("\n")) == len(findings)
        for finding in findings:
            assert isinstance(finding, Finding) and finding.sentence
            assert str(finding).isprintable(), str(finding)
        assert [each.name for each in Path(name).iterdir()] == ["submitd.toml"]


def _lines() -> list[bytes]:
    """The sample, key by key, as it is and without its comment signs."""
    lines = []
    for line in SAMPLE.read_bytes().splitlines(keepends=True):
        bare = line.removeprefix(b"# ").removeprefix(b"#")
        lines += [bare] if b" = " in bare or bare.startswith(b"[") else []
    return lines


VALUES = [
    b"0",
    b"-1",
    b"1e400",
    b"nan",
    b"inf",
    b"true",
    b'""',
    b'"x"',
    b"[]",
    b"{}",
    b"[[]]",
    b"[1]",
]
VALUES += [b"1979-05-27", b"9999999999999999999999", b"0x7fffffffffffffff", b'"\\u0000"', b'"\\n"']
VALUES += [b'"tcp:587"', b'"tcp:99999999"', b'"unix:/x"', b'"../../x"', b'"htpasswd:x"', b'"::::"']
VALUES += [
    b'"a:b:c"',
    b'"\\u2028"',
    b'"\\uFFFF"',
    b'"100/hour"',
    b'"0/hour"',
    b'"1e9 GiB"',
    b'"5 min"',
]
VALUES += [b"{a = 1}", b'[{a = "b"}]', b'"os:nothing"', b'"submitd.policies:nothing"', b'"x.y:Z"']
KEYS = [
    b"hostname",
    b"listener",
    b"tls",
    b"auth",
    b"limits",
    b"policy",
    b"delivery",
    b"relay",
    b"log",
]
KEYS += [
    b"use",
    b"path",
    b"endpoint",
    b"checkers",
    b"mechanisms",
    b'"a\\nb"',
    b'"\\u0000"',
    b'"\\u202e"',
]
KEYS += [
    b'""',
    b"tls.sni",
    b'tls.sni."x"',
    b"relay.timeouts",
    b"relay.route",
    b"smtp",
    b"dns",
    b"networks",
]

CONFIG = Target(
    "config",
    configuration,
    [SAMPLE.read_bytes()]
    + _lines()
    + [key + b" = " + value + b"\n" for at, key in enumerate(KEYS) for value in VALUES[at % 3 :: 3]]
    + [b"[" + key + b"]\n" for key in KEYS]
    + [b"[[" + key + b"]]\n" for key in KEYS],
    60,
    16,
)

ConfigTests = CONFIG.tests(__name__)
