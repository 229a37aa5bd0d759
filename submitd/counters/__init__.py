"""Counters with moving windows: in memory, or in a Redis that several nodes share."""
