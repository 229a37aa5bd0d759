"""Tests of :mod:`submitd.workers`."""
