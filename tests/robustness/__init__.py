"""The robustness suite: malformed, unusual and heavy input, and the right answer.

Over real sockets and real TLS, against a started service; and a program that checks any server on
this machine and prints a table::

    python -m tests.robustness --port 2525 --implicit-port 2465 --user ada --password secret

Each input goes out whole, octet by octet, and cut over TCP segments and TLS records.  With
``SUBMITD_TEST_LONG=1`` in the environment it is cut in many more ways.
"""
