"""ROS 2 recordings made on the spot, by the writer and the serialiser of rosbags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

rosbags = pytest.importorskip('rosbags', reason='without rosbags there are no recordings')

from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402

STORAGES = {'mcap': (StoragePlugin.MCAP, 'mcap'), 'sqlite3': (StoragePlugin.SQLITE3, 'db3')}
TYPES = get_typestore(Stores.ROS2_JAZZY)
START_NS = 1_700_000_000_000_000_000
STEP_NS = 100_000_000


def header(stamp_ns: int = START_NS) -> Any:
    time = TYPES.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
    return TYPES.types['std_msgs/msg/Header'](time, 'camera')


def image(pixels: np.ndarray, encoding: str = 'bgr8', **changed: Any) -> Any:
    """A sensor_msgs/Image of these bytes, which may contradict what else it says."""
    said = {'height': pixels.shape[0], 'width': pixels.shape[1], 'step': pixels[0].nbytes, **changed}
    return TYPES.types['sensor_msgs/msg/Image'](
        header=said.get('header') or header(), height=said['height'], width=said['width'], encoding=encoding,
        is_bigendian=0, step=said['step'], data=np.frombuffer(pixels.tobytes(), np.uint8),
    )  # fmt: skip


def compressed(pixels: np.ndarray, suffix: str = 'png') -> Any:
    data = cv2.imencode(f'.{suffix}', pixels)[1].ravel()
    return TYPES.types['sensor_msgs/msg/CompressedImage'](header(), suffix, data)


def text(data: str) -> Any:
    return TYPES.types['std_msgs/msg/String'](data)


def save_bag(
    path: Path,
    topics: Mapping[str, Iterable[Any]],
    *,
    storage: str = 'mcap',
    packed: str = 'NONE',
    kinds: Mapping[str, str] | None = None,
) -> Path:
    """Record messages, or bytes in their place; `kinds` tells the type of topics that have no message."""
    writer = Writer(path, version=9, storage_plugin=STORAGES[storage][0])
    writer.set_compression(CompressionMode[packed], CompressionFormat.ZSTD)
    with writer:
        for topic, messages in topics.items():
            messages = list(messages)
            named = [message.__msgtype__ for message in messages if not isinstance(message, bytes)]
            kind = named[0] if named else (kinds or {}).get(topic, 'sensor_msgs/msg/Image')
            connection = writer.add_connection(topic, kind, typestore=TYPES)
            for number, message in enumerate(messages):
                data = message if isinstance(message, bytes) else TYPES.serialize_cdr(message, kind)
                writer.write(connection, START_NS + number * STEP_NS, bytes(data))
    return path


def stored_file(bag: Path) -> Path:
    """The one file beside metadata.yaml."""
    (found,) = (entry for entry in bag.iterdir() if entry.name != 'metadata.yaml')
    return found
