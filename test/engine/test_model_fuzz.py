"""Mutated ONNX files end in an error that says what is wrong, or in a model that runs; in nothing else."""

import json
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models import save_colour_detector

FILES = 10_000
PROCESSES = 2
WORST_BYTES = (b'\xff' * 8, b'\x00' * 8, b'\x80' * 9, b'\x7f')


def mutate(original: bytes, *, seed: int) -> bytes:
    """Change, remove, insert and repeat bytes at random places."""
    dice = random.Random(seed)
    data = bytearray(original)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        place = dice.randrange(max(len(data), 1))
        length = dice.randrange(1, 20)
        change = dice.randrange(6)
        if change == 0:
            data[place : place + 1] = dice.randbytes(1)
        elif change == 1:
            data[place : place + 1] = bytes(byte ^ 1 << dice.randrange(8) for byte in data[place : place + 1])
        elif change == 2:
            del data[place : place + length]
        elif change == 3:
            data[place:place] = dice.randbytes(length)
        elif change == 4:
            data[place : place + length] = dice.choice(WORST_BYTES)
        else:
            source = dice.randrange(max(len(data), 1))
            data[place:place] = data[source : source + 3 * length]
    return bytes(data[: dice.randrange(len(data) + 1)] if dice.random() < 0.05 else data)


def open_mutations(original: Path, first: int, last: int) -> Counter[str]:
    """Open every mutation and count how it ended; what nobody foresaw is raised with its seed."""
    from isaac_infer.core.errors import IsaacInferError
    from isaac_infer.engine.load import find_spec
    from isaac_infer.engine.ort import OrtSession

    ends: Counter[str] = Counter()
    mutation = original.parent / f'mutation_{first}.onnx'
    for seed in range(first, last):
        mutation.write_bytes(mutate(original.read_bytes(), seed=seed))
        try:
            with OrtSession(mutation) as session:
                find_spec(session, mutation)
            ends['opened'] += 1
        except IsaacInferError as error:
            ends[type(error).__name__ if mutation.name in str(error) else f'{seed}: {error}'] += 1
        except Exception as error:
            raise AssertionError(f'seed {seed}') from error
    return ends


@pytest.mark.timeout(180)
def test_ten_thousand_mutated_models_open_or_give_an_error_and_crash_nothing(tmp_path: Path) -> None:
    original = save_colour_detector(tmp_path / 'original.onnx')
    share = FILES // PROCESSES

    def run(first: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, __file__, str(original), str(first), str(first + share)]
        environment = {'PYTHONPATH': ':'.join(sys.path)}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    with ThreadPoolExecutor(PROCESSES) as pool:
        children = list(pool.map(run, range(0, FILES, share)))
    for child in children:
        assert child.returncode == 0, child.stderr[-3000:]
    ends = sum((Counter(json.loads(child.stdout)) for child in children), Counter())
    assert set(ends) <= {'opened', 'ModelError', 'SessionError', 'TensorError'}
    assert sum(ends.values()) == FILES
    assert ends['opened'] > 0, 'no mutation was harmless: the original is broken'
    assert ends['ModelError'] > FILES / 2, 'hardly a mutation was noticed'


if __name__ == '__main__':
    print(json.dumps(open_mutations(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
