"""Trial: a model run once in a child process, so that one that crashes its backend ends only the child."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from isaac_infer.core.child import main_of, python_command, python_environment
from isaac_infer.core.errors import IsaacInferError, ModelError
from isaac_infer.core.text import signal_name
from isaac_infer.engine.cache import default_folder

TIMEOUT_S = 300.0  # large models on small boards take a minute or two
HARMLESS = (signal.SIGINT, signal.SIGTERM)  # sent by people, not caused by the model


def try_model(path: Path) -> None:
    """Load and run a model in a child process; what is tried once is not tried again until the file changes.

    That is remembered in the user's cache too, because a trial takes longer than all the rest of a start.

    An ordinary error of the child says nothing here: it will come again, in words, where the model is opened.

    Raises:
        ModelError: a signal ended the child, as a crash or too little memory does, or it did not come back.
    """
    facts = path.stat()
    _try(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=64)
def _try(path: Path, size: int, changed_ns: int) -> None:
    remembered = _remembered(path, size, changed_ns)
    if os.path.exists(remembered):  # unlike Path.exists, no error where it may not be looked for
        return
    try:
        child = subprocess.run(
            python_command(main_of(__name__), str(path)),
            env=python_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f'{path}: loading it did not end within {TIMEOUT_S:g} s; export the model again'
        ) from None
    if child.returncode < 0 and -child.returncode not in HARMLESS:
        name = signal_name(-child.returncode)
        raise ModelError(
            f'{path}: a trial run was ended by {name}: the file is broken, asks for more memory than there '
            f'is, or meets a fault of the backend; export it again, or try another version of the backend'
        )
    if child.returncode == 0:
        with suppress(OSError):  # where nothing can be kept, the next start tries again
            remembered.parent.mkdir(parents=True, exist_ok=True)
            remembered.touch()


def _remembered(path: Path, size: int, changed_ns: int) -> Path:
    """The empty file that says that this model was tried with this ONNX Runtime."""
    backend = importlib.util.find_spec('onnxruntime')
    facts = [os.path.abspath(path), size, changed_ns]
    if backend and backend.origin:
        facts += [backend.origin, os.stat(backend.origin).st_mtime_ns]
    digest = hashlib.sha256(json.dumps(facts).encode('utf-8', 'surrogateescape')).hexdigest()
    return default_folder(path) / 'tried' / digest[:16]


def main() -> None:
    """Load the model named on the command line and run it on zeros; in the child."""
    signal.alarm(math.ceil(TIMEOUT_S) + 1)  # the parent gives up first, unless it was stopped
    from isaac_infer.engine.ort import OrtSession

    # What goes wrong in an orderly way is said where the model is opened.
    with suppress(IsaacInferError), OrtSession(Path(sys.argv[1])) as session:
        for spec in session.inputs:
            session.input_buffer(spec.name, tuple(max(length, 1) for length in spec.shape))
        session.run()
