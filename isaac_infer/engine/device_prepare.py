"""DevicePreparer: a picture resized, padded and normalised on the GPU by one kernel."""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any

import cv2
import numpy as np

from isaac_infer.core.errors import SessionError
from isaac_infer.core.fit import Box, Fit, Size, fit_picture
from isaac_infer.core.frame import Frame
from isaac_infer.core.prepare import Preparer, normalisation_tables
from isaac_infer.core.spec import ImageSpec
from isaac_infer.engine.cuda import Arena, compile_kernel
from isaac_infer.engine.trt import TrtSession

BLOCK = (32, 8, 1)  # threads
MOST_SIZES = 16  # of pictures, for which tables are kept
TRIALS = 9  # of each way, to see which one is faster
# Where a picture is prepared: all on the CPU; resized there and normalised on the GPU; all on the GPU.
WAYS = ('cpu', 'resize', 'gpu')
AUTO = 'auto'  # whichever is fastest

# Values are only moved, never reckoned with, so one kernel serves every dtype of the same size.
_CARRIERS = {1: 'unsigned char', 2: 'unsigned short', 4: 'unsigned int', 8: 'unsigned long long'}

# Interpolates with whole numbers exactly as cv2.resize does, and looks the value up in the same table as the
# CPU does: the network gets the same values wherever a picture was prepared.
_SOURCE = """
extern "C" __global__ void prepare(
    const unsigned char* source, int pitch, const int4* columns, const int4* rows, VALUE* network,
    int width, int height, int left, int top, int right, int bottom,
    const VALUE* table, int pad, int swap, int planar)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    int level[3] = {pad, pad, pad};
    if (x >= left && x < right && y >= top && y < bottom) {
        int4 column = columns[x - left], row = rows[y - top];
        const unsigned char* above = source + (size_t)row.x * pitch;
        const unsigned char* below = source + (size_t)row.y * pitch;
        for (int c = 0; c < 3; ++c) {
            int a = above[3 * column.x + c] * column.z + above[3 * column.y + c] * column.w;
            int b = below[3 * column.x + c] * column.z + below[3 * column.y + c] * column.w;
            level[swap ? 2 - c : c] = ((row.z * (a >> 4) >> 16) + (row.w * (b >> 4) >> 16) + 2) >> 2;
        }
    }
    for (int c = 0; c < 3; ++c) {
        size_t at = planar ? ((size_t)c * height + y) * width + x : ((size_t)y * width + x) * 3 + c;
        network[at] = table[256 * c + level[c]];
    }
}
"""


def _neighbours(source: int, target: int, *, is_row: bool) -> np.ndarray:
    """The two source pixels of each target pixel along one axis, and their weights of 2048 together.

    Pixel centres are at half-integers. As in OpenCV, a column beyond the edge takes the last one alone, a row
    beyond it keeps its weights.
    """
    place = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int32)
    share = place - first.astype(np.float32)
    if not is_row:
        is_outside = (first < 0) | (first >= source - 1)
        share[is_outside] = 0
    weights = np.rint(np.stack((1 - share, share)) * np.float32(2048)).astype(np.int32)
    pixels = np.clip(np.stack((first, first + 1)), 0, source - 1)
    return np.ascontiguousarray(np.concatenate((pixels, weights)).T, np.int32)


class DevicePreparer:
    """Prepare pictures on the GPU, straight into a session's input; keeps its memory between frames.

    One thread at a time, that of the session.
    """

    def __init__(self, session: TrtSession, spec: ImageSpec) -> None:
        """Compile the kernel.

        Raises:
            SessionError: the input cannot be prepared there, or there is no compiler.
        """
        if spec.channels != 3:
            raise SessionError(f'{spec.name}: pictures of {spec.channels} channel are prepared on the CPU')
        self.spec, self._session = spec, session
        self._gpu, self._stream = session.gpu, session.stream
        self._driver = self._gpu.driver
        session.input_buffer(spec.name, spec.shape)  # settles its shape
        self._target = session.device_address(spec.name)
        value = _CARRIERS[spec.dtype.itemsize]
        tables = normalisation_tables(spec)
        with self._gpu.current():
            self._kernel: Any = compile_kernel(
                _SOURCE.replace('VALUE', value), 'prepare', session.path.parent, gpu=self._gpu
            )
            self._table: Any = self._sent(tables)
        height, width = spec.size_hw
        with self._gpu.current():
            self._arena = Arena(self._gpu, [height * width * 3], owner=spec.name)
        (self._staging,) = self._arena.buffers  # for pictures that are resized before
        self._small = self._staging.view((0, 0, 3), np.dtype(np.uint8))
        self._picture: Any = None  # device memory of the largest picture so far
        self._size = 0
        self._fit: Fit | None = None
        self._axes: dict[tuple[Size, Size], tuple[Any, Any]] = {}  # by source and target size
        session.at_close(self._release)

    def __call__(self, frame: Frame, *, resize_first: bool = False) -> Fit:
        """Enqueue a picture's way into the network's input and return how it is fitted.

        Args:
            resize_first: on the CPU, so that less has to be sent.
        """
        fit = self._fit_for(frame.size_hw)
        image, source_box = frame.image, fit.source_box
        if resize_first:
            left, top, right, bottom = source_box
            # The stream has read the last one: a run was waited for since.
            image = cv2.resize(image[top:bottom, left:right], self._small.shape[1::-1], dst=self._small)
            source_box = 0, 0, image.shape[1], image.shape[0]
        if image.strides[1:] != (3, 1) or image.strides[0] < 0:
            image = np.ascontiguousarray(image)
        height, width = image.shape[:2]
        pitch = image.strides[0] if height > 1 else 3 * width
        flat = np.lib.stride_tricks.as_strided(
            image, (pitch * (height - 1) + 3 * width,), (1,), writeable=False
        )
        with self._gpu.current():
            if flat.nbytes > self._size:
                self._picture = None  # first, so that both are never held at once
                self._picture, self._size = self._driver.mem_alloc(flat.nbytes), flat.nbytes
            self._driver.memcpy_htod_async(self._picture, flat, self._stream)
            self._launch(fit, source_box, pitch, swap=frame.channel_order != self.spec.channel_order)
        return fit

    def _fit_for(self, source_hw: Size) -> Fit:
        if self._fit is None or self._fit.source_hw != source_hw:
            spec = self.spec
            self._fit = fit_picture(source_hw, spec.size_hw, resize=spec.resize, scale_up=spec.scale_up)
            left, top, right, bottom = self._fit.network_box
            shape = bottom - top, right - left, 3
            self._small = self._staging.view(shape, np.dtype(np.uint8))
        return self._fit

    def _launch(self, fit: Fit, source_box: Box, pitch: int, *, swap: bool) -> None:
        left, top, right, bottom = source_box
        x0, y0, x1, y1 = fit.network_box
        columns, rows = self._axes_of((bottom - top, right - left), (y1 - y0, x1 - x0))
        height, width = self.spec.size_hw
        arguments = (
            *(np.uintp(int(self._picture) + top * pitch + 3 * left), pitch, columns, rows),
            *(np.uintp(self._target), width, height, x0, y0, x1, y1),
            *(self._table, self.spec.pad_value, swap, self.spec.layout == 'nchw'),
        )
        self._kernel(
            *map(_argument, arguments),
            block=BLOCK,
            grid=(-(-width // BLOCK[0]), -(-height // BLOCK[1])),
            stream=self._stream,
        )

    def _axes_of(self, source_hw: Size, target_hw: Size) -> tuple[Any, Any]:
        """Device memory that says which pixels make which columns and rows; reckoned once for each size."""
        if (source_hw, target_hw) not in self._axes:
            if len(self._axes) == MOST_SIZES:
                self._axes.clear()
            tables = (
                _neighbours(source_hw[1], target_hw[1], is_row=False),
                _neighbours(source_hw[0], target_hw[0], is_row=True),
            )
            self._axes[source_hw, target_hw] = self._sent(tables[0]), self._sent(tables[1])
        return self._axes[source_hw, target_hw]

    def _sent(self, table: np.ndarray) -> Any:
        """Device memory that holds a table, once the stream gets there."""
        memory = self._driver.mem_alloc(table.nbytes)
        self._driver.memcpy_htod_async(memory, table, self._stream)
        self._stream.synchronize()  # the table may be gone after this
        return memory

    def _release(self) -> None:
        """Let go of everything on the device; called by the session, with the context current."""
        self._stream = self._kernel = self._table = self._picture = None
        self._axes.clear()
        self._arena.close()
        self._staging = self._small = None  # type: ignore[assignment]


def _argument(value: Any) -> Any:
    """A number of the type that the kernel takes: Python's have none."""
    return np.int32(value) if isinstance(value, (bool, int)) else value


class ChosenPreparer:
    """Prepare on the CPU or the GPU, whichever a trial with the first picture of each size finds faster."""

    def __init__(self, session: TrtSession, spec: ImageSpec, *, way: str = AUTO) -> None:
        """Take the ways that are there.

        Args:
            way: AUTO or one of WAYS.

        Raises:
            SessionError: that cannot be done here.
        """
        self.notes: tuple[str, ...] = ()
        self._session, self._spec = session, spec
        self._host = Preparer(spec)
        self._device: DevicePreparer | None = None
        self._way = way
        self._chosen: dict[Size, str] = {}
        if way != 'cpu':
            try:
                self._device = DevicePreparer(session, spec)
            except SessionError as error:
                if way != AUTO:
                    raise
                self.notes = (f'pictures are prepared on the CPU: {error}',)
                self._way = 'cpu'

    @property
    def chosen(self) -> str:
        """Where pictures are prepared, for people: by the sizes seen so far."""
        if self._way != AUTO:
            return self._way
        return ', '.join(f'{width}x{height} {way}' for (height, width), way in self._chosen.items())

    def __call__(self, frame: Frame) -> Fit:
        """Prepare a picture; the next run of the session reads it."""
        way = self._way
        if way == AUTO:
            if frame.size_hw not in self._chosen:
                self._chosen[frame.size_hw] = self._faster(frame)
            way = self._chosen[frame.size_hw]
        return self._prepare(frame, way)

    def _prepare(self, frame: Frame, way: str) -> Fit:
        self._session.feed_from_device(self._spec.name, way != 'cpu')
        if way != 'cpu':
            assert self._device is not None
            return self._device(frame, resize_first=way == 'resize')
        return self._host(frame, into=self._session.input_buffer(self._spec.name, self._spec.shape))

    def _faster(self, frame: Frame) -> str:
        """Time all ways up to the end of a run: what differs is how the picture gets in."""
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(TRIALS):
            for way, into in times.items():
                begin = perf_counter()
                self._prepare(frame, way)
                self._session.run()
                into.append(perf_counter() - begin)
        return min(times, key=lambda way: median(times[way]))
