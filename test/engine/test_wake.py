"""What a node does first: it must not fail, or delay, where there is no GPU."""

import subprocess
import sys

PROGRAM = """
import isaac_infer.engine.wake as wake
from pathlib import Path
from isaac_infer.engine.load import open_session
assert 'numpy' in __import__('sys').modules
for _ in range(2):
    open_session(Path('models/tabletop_detector.onnx'), backend='onnxruntime').close()
assert not wake._thread.is_alive() and not wake._context
wake.let_go()
print('done')
"""


def test_waking_the_gpu_comes_before_everything_else_and_hurts_nobody_without_one():
    first = 'import isaac_infer.engine.wake, sys; print("numpy" in sys.modules, "cv2" in sys.modules)'
    ended = subprocess.run([sys.executable, '-c', first], capture_output=True, text=True, timeout=60)
    assert (ended.stdout.strip(), ended.stderr) == ('False False', '')
    ended = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True, timeout=60)
    assert (ended.stdout.strip(), ended.returncode) == ('done', 0), ended.stderr
