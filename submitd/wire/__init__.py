"""SMTP on the wire, without I/O: grammar, commands, replies and message framing.

Nothing here knows Twisted, sockets or the dialogue.  Every parser takes bytes and gives a value, or
raises :class:`submitd.wire.errors.Refused` with the reply that tells the client what was wrong.
"""
