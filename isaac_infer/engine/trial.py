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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from isaac_infer.core.child import main_of, python_command, python_environment
from isaac_infer.core.errors import IsaacInferError, ModelError, SessionError
from isaac_infer.core.text import signal_name
from isaac_infer.engine.cache import default_folder, model_digest

TIMEOUT_S = 300.0  # large models on small boards take a minute or two
POLL_S = 0.2
MOST_REMEMBERED = 1000  # models that were tried, on disk
HARMLESS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # sent by people, not the model

_tried_here: set[Path] = set()  # in this process, also what cannot be remembered on disk


def try_model(path: Path, *, is_cancelled: Callable[[], bool] = lambda: False) -> None:
    """Load and run a model in a child process; what is tried once is not tried again until it changes.

    That is remembered in the user's cache too, because a trial takes longer than all the rest of a start.
    Weights in files of their own are a part of the model.

    An ordinary error of the child says nothing here: it will come again, in words, where the model is opened.

    Args:
        is_cancelled: asked several times a second.

    Raises:
        ModelError: a signal ended the child, as a crash or too little memory does, or it did not come back.
        SessionError: cancelled.
    """
    remembered = _remembered(path)
    if remembered in _tried_here:
        return
    # Unlike Path.exists, no error where it may not be looked for.
    if not (remembered and os.path.exists(remembered)):
        code = _run_child(path, is_cancelled)
        if code < 0 and -code not in HARMLESS:
            raise ModelError(
                f'{path}: a trial run was ended by {signal_name(-code)}: the file is broken, asks for more '
                'memory than there is, or meets a fault of the backend; export it again, or try another '
                'version of the backend'
            )
        if code == 0 and remembered:
            _remember(remembered)
    if remembered:
        _tried_here.add(remembered)


def _run_child(path: Path, is_cancelled: Callable[[], bool]) -> int:
    """Give the child's exit code, negative where a signal ended it."""
    command, environment = python_command(main_of(__name__), str(path)), python_environment()
    pipes = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    end = monotonic() + TIMEOUT_S
    with subprocess.Popen(command, env=environment, **pipes) as child:  # type: ignore[call-overload]
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    child.communicate(timeout=POLL_S)
                    return int(child.returncode)
                if is_cancelled():
                    raise SessionError(f'{path}: its trial run was cancelled')
                if monotonic() > end:
                    raise ModelError(
                        f'{path}: loading it did not end within {TIMEOUT_S:g} s; export the model again'
                    )
        finally:
            child.kill()


def _remembered(path: Path) -> Path | None:
    """The empty file that says that this model was tried with this ONNX Runtime, wherever it lies.

    None where nobody knows when the model changes: it is none, lacks its weights, or they cannot be found.
    """
    backend = importlib.util.find_spec('onnxruntime')
    try:
        facts: list[Any] = [model_digest(path)]
    except IsaacInferError:
        return None
    if backend and backend.origin:
        facts += [backend.origin, os.stat(backend.origin).st_mtime_ns]
    digest = hashlib.sha256(json.dumps(facts).encode('utf-8', 'surrogateescape')).hexdigest()
    return default_folder(path) / 'tried' / digest[:16]


def _remember(place: Path) -> None:
    with suppress(OSError):  # where nothing can be kept, the next start tries again
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        others = sorted(place.parent.iterdir(), key=lambda other: other.stat().st_mtime_ns)
        for other in others[:-MOST_REMEMBERED]:
            other.unlink()


def main() -> None:
    """Load the model named on the command line and run it on zeros; in the child."""
    signal.alarm(math.ceil(TIMEOUT_S) + 1)  # the parent gives up first, unless it was stopped
    from isaac_infer.engine.ort import OrtSession

    # What goes wrong in an orderly way is said where the model is opened.
    with suppress(IsaacInferError), OrtSession(Path(sys.argv[1])) as session:
        for spec in session.inputs:
            session.input_buffer(spec.name, tuple(max(length, 1) for length in spec.shape))
        session.run()
