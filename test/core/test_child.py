"""A Python child imports what its parent would, nothing that merely lies around, and ends with its parent."""

import subprocess
import sys
from pathlib import Path

import pytest

from isaac_infer.core.child import main_of, python_command, python_environment

HOME = Path(__file__).parents[2]


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        python_command(program, *arguments),
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def strange_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module that has the name of one of Python's."""
    folder = tmp_path / 'strange'
    folder.mkdir()
    for name in ('random', 'ctypes', 'runpy'):
        (folder / f'{name}.py').write_text('raise SystemExit("of somebody else")')
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize('safe_path', [None, '', '1'])
def test_modules_of_the_working_directory_are_not_imported_whatever_the_environment_says(
    safe_path: str | None, strange_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv('PYTHONSAFEPATH', raising=False)
    if safe_path is not None:
        monkeypatch.setenv('PYTHONSAFEPATH', safe_path)
    found = run('import random, isaac_infer; print(random.__file__, isaac_infer.__file__, sys.path)')
    assert str(strange_folder) not in found and str(HOME / 'isaac_infer') in found


def test_a_child_finds_what_its_parent_finds_in_the_same_order(
    tmp_path: Path, strange_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'mine.py').write_text('def main():\n    print("mine", __name__)\n    return 0\n')
    monkeypatch.syspath_prepend('')  # as `python -c` has it
    monkeypatch.syspath_prepend(tmp_path)
    assert run(main_of('mine')) == 'mine mine'
    paths = list(dict.fromkeys(filter(None, sys.path)))
    assert run('print(os.linesep.join(sys.path))').splitlines()[: len(paths)] == paths


def test_a_program_has_its_arguments_as_they_are() -> None:
    arguments = ['--ros-args', '-c', '', "it's {x}\n"]
    assert run('print(sys.argv[1:])', *arguments) == str(arguments)


ORPHAN = """
import os, subprocess, sys
from isaac_infer.core.child import python_command, python_environment
subprocess.Popen(python_command('print("ran")'), env=python_environment())
os._exit(0)
"""


def test_a_child_whose_parent_is_gone_before_it_begins_does_nothing() -> None:
    # Its end is that of its output, which the child inherits.
    done = subprocess.run(
        [sys.executable, '-c', ORPHAN], cwd=HOME, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, ''), done.stderr


WATCHFUL = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: os.write(2, b'ended by SIGTERM') and os._exit(0))
print('ready', flush=True)
time.sleep(20)
"""
PARENT = """
import os, signal, subprocess, sys
from isaac_infer.core.child import python_command, python_environment
command = python_command(sys.argv[1], at_parents_end=signal.SIGTERM)
subprocess.Popen(command, env=python_environment(), stdout=subprocess.PIPE).stdout.readline()
os._exit(0)
"""


def test_a_child_ends_with_its_parent_by_the_signal_that_was_chosen() -> None:
    command = [sys.executable, '-c', PARENT, WATCHFUL]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=30)
    assert done.stderr == 'ended by SIGTERM'
