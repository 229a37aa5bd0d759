"""Tests of :mod:`submitd.preflight`; a file for each of its parts."""
