"""Input that nobody has thought of: hypothesis against parsers, dialogue, SASL and configuration.

With ``SUBMITD_TEST_LONG=1`` there are fifty times as many examples.
"""
