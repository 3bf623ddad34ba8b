"""What a node does first: it must not fail, or delay, where there is no GPU."""

import os
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize(
    'driver',
    [
        'int cuInit(unsigned flags) { sleep(60); return 0; }',  # hangs
        'int cuInit(unsigned flags) { return 100; }',  # CUDA_ERROR_NO_DEVICE
        'int other(void) { return 0; }',  # no driver at all
    ],
)
def test_a_broken_driver_does_not_keep_a_model_from_the_cpu(tmp_path, driver):
    source = tmp_path / 'driver.c'
    source.write_text(f'#include <unistd.h>\n{driver}\n')
    subprocess.run(['cc', '-shared', '-fPIC', '-o', tmp_path / 'libcuda.so.1', source], check=True)
    environment = {**os.environ, 'LD_LIBRARY_PATH': str(tmp_path)}
    program = PROGRAM.replace('assert not wake._thread.is_alive() and not wake._context\n', '')
    ended = subprocess.run(
        [sys.executable, '-c', program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (ended.stdout.strip(), ended.stderr, ended.returncode) == ('done', '', 0)
