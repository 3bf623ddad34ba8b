"""Wake: CUDA starts in the background while Python imports the rest; imported first, it saves 0.2 s."""

import ctypes
import threading

DEVICE = 0  # that is woken
PATIENCE_S = 2.0  # with a driver that does not come up

_context = ctypes.c_void_p()  # the device's primary context, where it was retained


def _start_cuda() -> None:
    try:
        cuda = ctypes.CDLL('libcuda.so.1')
        if cuda.cuInit(0) == 0:
            cuda.cuDevicePrimaryCtxRetain(ctypes.byref(_context), DEVICE)
    except (OSError, AttributeError):
        return  # no driver, or one that is none: whoever needs a GPU says so


_thread = threading.Thread(target=_start_cuda, daemon=True)
_thread.start()  # ctypes lets go of the interpreter during the calls


def let_go() -> None:
    """Give the context back, which holds memory of the GPU: no model runs on it. Safe to call twice."""
    _thread.join(PATIENCE_S)
    if not _thread.is_alive() and _context:
        _context.value = None
        ctypes.CDLL('libcuda.so.1').cuDevicePrimaryCtxRelease_v2(DEVICE)
