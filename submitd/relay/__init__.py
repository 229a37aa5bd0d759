"""The relay: what the spool holds goes to its next hops, and reports go back (RFC 5321, RFC 3461).

``client`` is the SMTP and LMTP client without I/O, ``connection`` its Twisted skin; ``routes``
says which next hop, ``mx`` which hosts of it, ``schedule`` when, ``reports`` what the sender is
told, and ``runner`` puts them to work on a spool.
"""
