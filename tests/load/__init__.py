"""Whether a service holds a heavy load: see ``python -m tests.load --help``."""
