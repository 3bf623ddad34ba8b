"""What libraries know: stand-ins for NVML, and psutil with sensors of its own types."""

import sys
from types import SimpleNamespace

import psutil
import pytest

from isaac_infer.jetson.gpu import Gpu
from isaac_infer.jetson.pc import add_nvml, add_psutil
from isaac_infer.jetson.sensors import Fan, Temperature

UNKNOWN = Gpu(None, None, None, None, None, None)
MEASURED = (61.0, 16 << 30, 4 << 30)  # degrees, bytes, bytes
THOR = Gpu('gpu-gpc-0', None, 314_000_000, 314_000_000, 1_575_000_000, 'nvhost_podgov')


class NVMLError(Exception):
    """As pynvml has it: the base of all that NVML refuses."""


def refuse(*arguments):
    raise NVMLError


@pytest.fixture
def nvml(monkeypatch):
    """Stand in for NVML with a card that tells all; what it should not, a test takes away."""
    stand_in = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_GRAPHICS=0,
        NVML_TEMPERATURE_GPU=0,
        is_open=False,
        nvmlInit=lambda: setattr(stand_in, 'is_open', True),
        nvmlShutdown=lambda: setattr(stand_in, 'is_open', False),
        nvmlDeviceGetHandleByIndex=lambda index: 'card',
        nvmlDeviceGetUtilizationRates=lambda card: SimpleNamespace(gpu=42, memory=7),
        nvmlDeviceGetName=lambda card: b'NVIDIA Card',
        nvmlDeviceGetClockInfo=lambda card, clock: 1980,
        nvmlDeviceGetMaxClockInfo=lambda card, clock: 2100,
        nvmlDeviceGetTemperature=lambda card, sensor: 61,
        nvmlDeviceGetMemoryInfo=lambda card: SimpleNamespace(total=16 << 30, free=12 << 30, used=4 << 30),
    )
    monkeypatch.setitem(sys.modules, 'pynvml', stand_in)
    return stand_in


def test_a_card_has_what_nvml_tells_of_it(nvml):
    assert add_nvml(UNKNOWN) == Gpu('NVIDIA Card', 42.0, 1_980_000_000, None, 2_100_000_000, None, *MEASURED)
    assert not nvml.is_open


def test_of_a_thor_nvml_leaves_the_clocks_as_they_were_read(nvml):
    nvml.nvmlDeviceGetMemoryInfo = refuse  # it is that of the CPU
    clocks = (314_000_000, 314_000_000, 1_575_000_000, 'nvhost_podgov')
    assert add_nvml(THOR) == Gpu('gpu-gpc-0', 42.0, *clocks, celsius=61.0)


def test_what_a_gpu_does_not_tell_stays_unknown(nvml):
    nvml.nvmlDeviceGetUtilizationRates = nvml.nvmlDeviceGetClockInfo = refuse
    nvml.nvmlDeviceGetTemperature = nvml.nvmlDeviceGetMemoryInfo = refuse
    assert add_nvml(UNKNOWN) == Gpu('NVIDIA Card', None, None, None, 2_100_000_000, None)


@pytest.mark.parametrize('refused', ['nvmlInit', 'nvmlDeviceGetHandleByIndex'])
def test_without_a_driver_or_a_card_nothing_is_added(nvml, refused):
    setattr(nvml, refused, refuse)
    assert add_nvml(THOR) == THOR
    assert not nvml.is_open


def test_nvml_is_not_asked_where_the_load_is_known(nvml):
    nvml.nvmlInit = lambda: pytest.fail('asked')
    add_nvml(Gpu('17000000.gpu', 0.0, None, None, None, None))


def test_libraries_that_are_not_there_add_nothing(monkeypatch):
    for library in ('psutil', 'pynvml'):
        monkeypatch.setitem(sys.modules, library, None)
    assert add_nvml(THOR) == THOR
    assert add_psutil((), ()) == ((), ())


def test_sensors_of_a_pc_are_those_of_psutil_where_there_are_no_others(monkeypatch):
    heat = SimpleNamespace(label='Core 0', current=41.0, high=80.0, critical=100.0)
    fan = SimpleNamespace(label='', current=900)
    monkeypatch.setattr(psutil, 'sensors_temperatures', lambda: {'coretemp': [heat]}, raising=False)
    monkeypatch.setattr(psutil, 'sensors_fans', lambda: {'thinkpad': [fan]}, raising=False)
    assert add_psutil((), ()) == ((Temperature('coretemp Core 0', 41.0),), (Fan(None, 900),))
    zone, other = Temperature('cpu', 40.0), Fan(30.0, None)
    assert add_psutil((zone,), (other,)) == ((zone,), (other,))
