"""One target driven by libFuzzer: ``python -m tests.fuzz.libfuzzer NAME [OPTION ...]``.

A process of its own, since libFuzzer ends it.  The service's modules are instrumented, so that it
sees which input reaches new code.
"""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    """Fuzz until libFuzzer ends."""
    with atheris.instrument_imports(include=["submitd"]):
        from tests.fuzz.__main__ import targets
        from tests.fuzz.target import Target
    [target] = [each for each in targets() if each.name == sys.argv[1]]
    assert isinstance(target, Target)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
