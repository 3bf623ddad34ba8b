"""DevicePreparer: a picture resized, padded and normalised on the GPU by one kernel."""

from __future__ import annotations

import math
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import cv2
import numpy as np

from isaac_infer.core.errors import SessionError
from isaac_infer.core.fit import Box, Fit, Size, fit_picture
from isaac_infer.core.frame import Frame
from isaac_infer.core.prepare import Preparer, normalisation_tables
from isaac_infer.core.session import close_all
from isaac_infer.core.spec import ImageSpec
from isaac_infer.engine.cuda import Arena, Buffer, compile_kernel
from isaac_infer.engine.trt import TrtSession

BLOCK = (32, 8, 1)  # threads
MOST_SIZES = 16  # of pictures, for which tables are kept
CHUNK_BYTES = 1 << 20  # of a picture, that are sent while the next ones are gathered
TRIALS = 9  # of each way, to see which one is faster
# Where a picture is prepared: all on the CPU; resized there and normalised on the GPU; all on the GPU.
WAYS = ('cpu', 'resize', 'gpu')
AUTO = 'auto'  # whichever is fastest
COLOURS = 3  # channels of the pictures that the kernel reads

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


class _Axes(NamedTuple):
    """Which pixels of a picture make which of the network's input."""

    used: np.ndarray  # rows of the picture that are looked at, the only ones that are sent
    columns: Any  # device memory, of the picture
    rows: Any  # device memory, of the rows that are sent


class DevicePreparer:
    """Prepare pictures on the GPU, straight into a session's input; keeps its memory between frames.

    One thread at a time, that of the session.
    """

    def __init__(self, session: TrtSession, spec: ImageSpec) -> None:
        """Compile the kernel.

        Raises:
            SessionError: the input cannot be prepared there, or there is no compiler.
        """
        if spec.channels != COLOURS:
            raise SessionError(f'{spec.name}: pictures of {spec.channels} channel are prepared on the CPU')
        self.spec, self._session = spec, session
        self._gpu, self._stream = session.gpu, session.stream
        self._driver = self._gpu.driver
        session.input_buffer(spec.name, spec.shape)  # settles its shape
        self._target = session.device_address(spec.name)
        value = _CARRIERS[spec.dtype.itemsize]
        tables = normalisation_tables(spec)
        height, width = spec.size_hw
        with self._gpu.current():
            self._kernel: Any = compile_kernel(
                _SOURCE.replace('VALUE', value), 'prepare', session.path.parent, gpu=self._gpu
            )
            self._table: Any = self._sent(tables)
            self._small = Arena(self._gpu, [height * width * 3], owner=spec.name)  # for resized pictures
        self._large: Arena | None = None  # for the largest picture so far
        self._fit: Fit | None = None
        self._axes: dict[tuple[Box, Size], _Axes] = {}  # by source box and target size
        session.at_close(self._release)

    def __call__(self, frame: Frame, *, resize_first: bool = False) -> Fit:
        """Enqueue a picture's way into the network's input and return how it is fitted.

        Args:
            resize_first: on the CPU, so that less has to be sent.
        """
        if self._fit is None or self._fit.source_hw != frame.size_hw:
            spec = self.spec
            self._fit = fit_picture(frame.size_hw, spec.size_hw, resize=spec.resize, scale_up=spec.scale_up)
        fit, image = self._fit, frame.image
        swap = frame.channel_order != self.spec.channel_order
        # Memory that the GPU read for the last picture is free again: that run was waited for.
        with self._gpu.current():
            if resize_first:
                left, top, right, bottom = fit.source_box
                x0, y0, x1, y1 = fit.network_box
                staging = self._small.buffers[0]
                into = staging.view((y1 - y0, x1 - x0, 3), image.dtype)
                cv2.resize(image[top:bottom, left:right], (x1 - x0, y1 - y0), dst=into)
                self._send(staging, into, 0)
                self._launch(fit, staging, self._axes_of((0, 0, x1 - x0, y1 - y0), fit), swap=swap)
            else:
                axes = self._axes_of(fit.source_box, fit)
                staging = self._sent_rows(image, axes.used)
                self._launch(fit, staging, axes, swap=swap, pitch=3 * image.shape[1])
        return fit

    def _sent_rows(self, image: np.ndarray, rows: np.ndarray) -> Buffer:
        """Enqueue the sending of some rows: some are gathered while those before them are on their way."""
        shape = len(rows), *image.shape[1:]
        if self._large is None or self._large.buffers[0].host.nbytes < math.prod(shape):
            smaller, self._large = self._large, None
            if smaller is not None:
                smaller.close()  # first, so that both are never held at once
            self._large = Arena(self._gpu, [math.prod(shape)], owner=self.spec.name)
        staging = self._large.buffers[0]
        into = staging.view(shape, image.dtype)
        step = max(CHUNK_BYTES // into.strides[0], 1)
        image = np.ascontiguousarray(image)  # else NumPy would copy all of it for every chunk
        for begin in range(0, len(rows), step):
            chunk = into[begin : begin + step]
            # Without `clip` NumPy would gather somewhere else first.
            np.take(image, rows[begin : begin + step], axis=0, out=chunk, mode='clip')
            self._send(staging, chunk, begin * into.strides[0])
        return staging

    def _send(self, staging: Buffer, part: np.ndarray, offset: int) -> None:
        if not staging.is_mapped:
            self._driver.memcpy_htod_async(staging.address + offset, part, self._stream)

    def _launch(self, fit: Fit, picture: Buffer, axes: _Axes, *, swap: bool, pitch: int = 0) -> None:
        height, width = self.spec.size_hw
        left, top, right, bottom = fit.network_box
        arguments = (
            *(np.uintp(picture.address), pitch or 3 * (right - left), axes.columns, axes.rows),
            *(np.uintp(self._target), width, height, left, top, right, bottom),
            *(self._table, self.spec.pad_value, swap, self.spec.layout == 'nchw'),
        )
        self._kernel(
            *map(_argument, arguments),
            block=BLOCK,
            grid=(-(-width // BLOCK[0]), -(-height // BLOCK[1])),
            stream=self._stream,
        )

    def _axes_of(self, source_box: Box, fit: Fit) -> _Axes:
        """Which pixels are looked at; reckoned once for each size."""
        x0, y0, x1, y1 = fit.network_box
        target_hw = y1 - y0, x1 - x0
        if (source_box, target_hw) not in self._axes:
            if len(self._axes) == MOST_SIZES:
                self._axes.clear()
            left, top, right, bottom = source_box
            columns = _neighbours(right - left, target_hw[1], is_row=False)
            columns[:, :2] += left
            rows = _neighbours(bottom - top, target_hw[0], is_row=True)
            used, places = np.unique(rows[:, :2], return_inverse=True)
            rows[:, :2] = places.reshape(-1, 2)
            self._axes[source_box, target_hw] = _Axes(
                used.astype(np.intp) + top, self._sent(columns), self._sent(rows)
            )
        return self._axes[source_box, target_hw]

    def _sent(self, table: np.ndarray) -> Any:
        """Device memory that holds a table, once the stream gets there."""
        memory = self._driver.mem_alloc(table.nbytes)
        self._driver.memcpy_htod_async(memory, table, self._stream)
        self._stream.synchronize()  # the table may be gone after this
        return memory

    def _release(self) -> None:
        """Let go of everything on the device; called by the session, with the context current."""
        self._stream = self._kernel = self._table = None
        self._axes.clear()
        arenas = (self._small, self._large)
        close_all(arena.close for arena in arenas if arena is not None)


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
        if way == AUTO and spec.channels != COLOURS:
            self._way = 'cpu'
        elif way != 'cpu':
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
