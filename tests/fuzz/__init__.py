"""Input that nobody has thought of: parsers, dialogue, SASL, relay and configuration.

In each run of the tests every target has its corpus and a few examples, always the same; with
``SUBMITD_TEST_LONG=1`` fifty times as many, new ones each time.  The long form is a program:
``python -m tests.fuzz --seconds 600``, or ``make fuzz``.  README.rst says more.
"""
