"""Pc: what libraries know where sysfs does not tell: NVML of a card, or of a Thor's GPU; psutil of a PC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from isaac_infer.jetson.gpu import Gpu
from isaac_infer.jetson.sensors import Fan, Temperature

Value = TypeVar('Value')


def add_nvml(gpu: Gpu) -> Gpu:
    """Add what NVML knows of the first GPU to what is unknown; it and its driver may be missing."""
    if gpu.load_percent is not None:
        return gpu
    try:
        import pynvml  # of nvidia-ml-py
    except ModuleNotFoundError:
        return gpu
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return gpu

    def ask(call: Callable[..., Value], *arguments: Any) -> Value | None:
        try:
            return call(*arguments)
        except pynvml.NVMLError:  # this GPU does not tell
            return None

    try:
        card = ask(pynvml.nvmlDeviceGetHandleByIndex, 0)
        if card is None:
            return gpu
        use = ask(pynvml.nvmlDeviceGetUtilizationRates, card)
        name = ask(pynvml.nvmlDeviceGetName, card)
        clock_hz = _hz(ask(pynvml.nvmlDeviceGetClockInfo, card, pynvml.NVML_CLOCK_GRAPHICS))
        max_clock_hz = _hz(ask(pynvml.nvmlDeviceGetMaxClockInfo, card, pynvml.NVML_CLOCK_GRAPHICS))
        celsius = ask(pynvml.nvmlDeviceGetTemperature, card, pynvml.NVML_TEMPERATURE_GPU)
        memory = ask(pynvml.nvmlDeviceGetMemoryInfo, card)
    finally:
        ask(pynvml.nvmlShutdown)
    return replace(
        gpu,
        name=gpu.name or _text(name),
        load_percent=None if use is None else float(use.gpu),
        clock_hz=clock_hz if gpu.clock_hz is None else gpu.clock_hz,
        max_clock_hz=max_clock_hz if gpu.max_clock_hz is None else gpu.max_clock_hz,
        celsius=None if celsius is None else float(celsius),
        memory_total_bytes=None if memory is None else memory.total,
        memory_used_bytes=None if memory is None else memory.used,
    )


def _text(name: str | bytes | None) -> str | None:
    return name.decode(errors='replace') if isinstance(name, bytes) else name  # bytes before version 12


def _hz(mhz: int | None) -> int | None:
    return None if mhz is None else mhz * 1_000_000


def add_psutil(
    temperatures: tuple[Temperature, ...], fans: tuple[Fan, ...]
) -> tuple[tuple[Temperature, ...], tuple[Fan, ...]]:
    """Give temperatures and fans of a PC where there are none yet: its sensors have no thermal zones."""
    try:
        import psutil
    except ModuleNotFoundError:
        return temperatures, fans
    measured = tuple(
        Temperature(f'{chip} {sensor.label}'.strip(), sensor.current)
        for chip, sensors in psutil.sensors_temperatures().items()
        for sensor in sensors
    )
    turning = tuple(
        Fan(speed_percent=None, rpm=fan.current) for each in psutil.sensors_fans().values() for fan in each
    )
    return temperatures or measured, fans or turning
