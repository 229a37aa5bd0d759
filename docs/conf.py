"""How Sphinx builds these pages: ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
# reference.py beside this file, and submitd where it is not installed.
sys.path[:0] = [str(HERE), str(HERE.parent)]

import submitd  # noqa: E402

project = "submitd"
author = "the submitd authors"
copyright = "the submitd authors, MIT License"
version = release = submitd.__version__

extensions = ["reference"]
exclude_patterns = ["_build", "examples"]
highlight_language = "none"
smartquotes = False  # they would make a dash of the two hyphens of an option
html_theme = "alabaster"
html_theme_options = {"description": "An authenticated mail submission service"}
html_copy_source = False

man_pages = [
    ("man/submitd.8", "submitd", "authenticated mail submission service", [], 8),
    ("man/submitd-dkim.1", "submitd-dkim", "make DKIM keys for submitd", [], 1),
    ("man/submitd-passwd.1", "submitd-passwd", "keep the users of submitd", [], 1),
    ("man/submitd-queue.1", "submitd-queue", "look at the queue of submitd and change it", [], 1),
    ("man/submitd-policy.1", "submitd-policy", "ask a configuration of submitd", [], 1),
    ("man/submitd-why.1", "submitd-why", "explain a refusal of submitd", [], 1),
    ("man/submitd.toml.5", "submitd.toml", "configuration of submitd", [], 5),
]
man_show_urls = True
