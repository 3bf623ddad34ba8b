import sys
from pathlib import Path

import pytest

from isaac_infer.core.errors import ModelError
from isaac_infer.engine import trial
from models import save_colour_detector


def replace_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Let the child be a program that does something else than run a model."""
    program = tmp_path / 'child'
    program.write_text(f'#!{sys.executable}\n{body}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(program))


def test_a_model_that_ends_its_process_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_colour_detector(tmp_path / 'model.onnx')
    replace_child(monkeypatch, tmp_path, 'import os; os.abort()')
    with pytest.raises(ModelError, match=r'model.onnx: a trial run was ended by SIGABRT'):
        trial.try_model(model)


def test_a_model_that_never_comes_back_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_colour_detector(tmp_path / 'model.onnx')
    replace_child(monkeypatch, tmp_path, 'import time; time.sleep(60)')
    monkeypatch.setattr(trial, 'TIMEOUT_S', 0.2)
    with pytest.raises(ModelError, match='did not end within 0.2 s'):
        trial.try_model(model)


def test_a_model_is_tried_again_only_when_its_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_colour_detector(tmp_path / 'model.onnx')
    log = tmp_path / 'log'
    replace_child(monkeypatch, tmp_path, f'print("tried", file=open({str(log)!r}, "a"))')
    trial.try_model(model)
    trial.try_model(model)
    assert log.read_text().count('tried') == 1
    model.write_bytes(model.read_bytes() + b'\x00')
    trial.try_model(model)
    assert log.read_text().count('tried') == 2


def test_the_real_child_runs_a_good_model_and_keeps_quiet_about_a_bad_one(tmp_path: Path) -> None:
    trial.try_model(save_colour_detector(tmp_path / 'good.onnx'))
    bad = tmp_path / 'bad.onnx'
    bad.write_bytes(b'no model')
    trial.try_model(bad)
