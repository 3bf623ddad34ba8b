"""One short file per executable: wiring only."""

import os
import signal

# No node multiplies matrices: NumPy need not start a thread per core for it, which costs time and memory.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
# Until `run_node` listens, Ctrl-C ends a node without a word, and not with a traceback out of some import.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
