"""Reserve: memory that has to stay free, before and after a model is loaded."""

import pytest

from isaac_infer.core.errors import SessionError
from isaac_infer.jetson.memory import Memory
from isaac_infer.nodes import _reserve
from isaac_infer.nodes._reserve import reserved

MB = 10**6


@pytest.fixture
def model(tmp_path):
    path = tmp_path / 'model.onnx'
    path.write_bytes(bytes(2 * MB))
    return path


@pytest.fixture
def memory(monkeypatch):
    """What is free, reading by reading."""
    readings = []
    monkeypatch.setattr(_reserve, 'read_memory', lambda root: Memory(None, readings.pop(0), None, None))
    return readings


def test_enough_is_enough(model, memory):
    memory[:] = [102 * MB, 100 * MB]
    with reserved(model, memory_mb=100, gpu_memory_mb=0):
        assert len(memory) == 1
    assert not memory


def test_too_little_before_is_refused_with_the_numbers_and_nothing_is_loaded(model, memory):
    memory[:] = [101 * MB]
    refused = pytest.raises(
        SessionError, match='model.onnx: 101 MB are free before it is loaded, its file has 2 MB'
    )
    with refused, reserved(model, memory_mb=100, gpu_memory_mb=0):
        pytest.fail('it was loaded')


def test_too_little_afterwards_is_refused(model, memory):
    memory[:] = [500 * MB, 99 * MB]
    refused = pytest.raises(
        SessionError, match='99 MB are free with it loaded, and memory_reservation_mb wants 100'
    )
    with refused, reserved(model, memory_mb=100, gpu_memory_mb=0):
        pass


def test_what_cannot_be_read_is_said_and_not_taken_for_enough(model, memory):
    memory[:] = [None]
    refused = pytest.raises(SessionError, match='cannot be read; set it to 0')
    with refused, reserved(model, memory_mb=100, gpu_memory_mb=0):
        pass


def test_without_a_reservation_nothing_is_looked_at(model, memory):
    with reserved(model, memory_mb=0, gpu_memory_mb=0):
        pass
