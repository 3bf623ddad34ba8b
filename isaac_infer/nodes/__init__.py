"""One short file per executable: wiring only."""

import os

# No node multiplies matrices: NumPy need not start a thread per core for it, which costs time and memory.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
