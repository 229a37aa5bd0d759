"""The tests, run by trial."""

import atexit
import os
import shutil
import tempfile

if "HYPOTHESIS_STORAGE_DIRECTORY" not in os.environ:
    # Else it leaves a directory in the tree.
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.mkdtemp(prefix="submitd-hypothesis-")
    atexit.register(shutil.rmtree, os.environ["HYPOTHESIS_STORAGE_DIRECTORY"], ignore_errors=True)
