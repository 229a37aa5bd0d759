"""The durable queue: what was answered with 250 stays here until it is delivered or reported.

``records`` holds the values that go in and out, ``schema`` the tables and their versions,
``database`` opens SQLite or PostgreSQL, ``writer`` shares one commit among many.  ``accepting``,
``leases``, ``outcomes``, ``endings``, ``tidying`` and ``operations`` hold the statements.
``queue`` is what others are given: :class:`submitd.interfaces.ISpool` for the relay,
:class:`submitd.interfaces.ISpoolOperations` for operators.  :mod:`submitd.deliveries.spool` is the
way in.
"""
