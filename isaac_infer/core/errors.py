"""Errors: one tree; a message says what, what was expected, what came, and the way out."""

import traceback

from isaac_infer.core.text import loggable


class IsaacInferError(Exception):
    """Base of every error that this package raises on purpose."""


class FrameError(IsaacInferError):
    """A picture cannot be used: wrong shape, type, encoding, step or size."""


class SourceError(IsaacInferError):
    """A file, folder, video, camera or stream of pictures cannot be read."""


class TensorError(IsaacInferError):
    """An array does not have the shape, dtype or values that its tensor asks for."""


class ScanError(IsaacInferError):
    """A laser scan cannot be used: its angles or ranges are none, or nothing in it was measured."""


class ModelError(IsaacInferError):
    """A model file cannot be loaded, or cannot be understood without help."""


class NamesError(ModelError):
    """A model is understood, but has other numbers of classes or key points than were named."""


class SessionError(IsaacInferError):
    """A loaded model failed to run, or its backend is not available."""


class ParameterError(IsaacInferError):
    """A parameter has the wrong type, is out of range, unknown, or contradicts another."""


class MessageError(IsaacInferError):
    """A message contradicts itself, or lacks what is needed of it."""


class PowerModeError(IsaacInferError):
    """A power mode is unknown, or the board cannot be brought into it."""


class RebootError(PowerModeError):
    """A power mode takes a reboot, which is for people to decide."""


def describe(error: BaseException) -> str:
    """What to tell people, fit for logs and messages: ours say it themselves, others with their type."""
    return loggable(str(error) if isinstance(error, IsaacInferError) else f'{type(error).__name__}: {error}')


def traced(error: BaseException) -> str:
    """The same for a log: of an error that nobody raised on purpose, also where it came from."""
    if isinstance(error, IsaacInferError):
        return describe(error)
    return loggable(''.join(traceback.format_exception(error)))
