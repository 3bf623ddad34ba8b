"""image_source: publishes a picture, folder, video, camera, stream or drawn scenes at a steady rate."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections.abc import Callable
from itertools import cycle
from time import monotonic, sleep
from typing import NamedTuple

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image

from isaac_infer.core.errors import ParameterError, SourceError, describe
from isaac_infer.core.source import DRAWN, Source, open_source
from isaac_infer.core.text import counted, listed
from isaac_infer.params import ImageSourceParams
from isaac_infer.ros.diagnostics import (
    ERROR,
    OK,
    WARN,
    clock_problem,
    diagnostics_msg,
    wait_until_heard,
)
from isaac_infer.ros.graph import subscribers_of
from isaac_infer.ros.images import image_to_cdr, publish_cdr, stamp_cdr
from isaac_infer.ros.parameters import NodeParameters
from isaac_infer.ros.process import run_node
from isaac_infer.ros.reminders import Reminders
from isaac_infer.ros.transport import OWN_SOURCE, warning_of_size

NAME = OWN_SOURCE
READ_AHEAD = 4  # pictures
RING_BYTES, RING_LENGTH = 128 << 20, 40  # of drawn scenes, at most: to draw them takes a second or two
CLOSE_TIMEOUT_S = 5.0  # for a picture that is being read at Ctrl-C
LINGER_S = 0.5  # after the last picture
SETTLE_S = 0.3  # between the discovery of the last subscriber and the first picture
MOST_NAMES = 5  # of subscribers, in one message
MOST_SAID = 1000  # errors that are remembered, to be said once however often the source is repeated
# From BGR, which is what sources give.
CONVERSIONS = {'bgr8': None, 'rgb8': cv2.COLOR_BGR2RGB, 'mono8': cv2.COLOR_BGR2GRAY}


class Shot(NamedTuple):
    """A picture to be published, serialised by who reads ahead, so that it leaves at once when it is due."""

    cdr: bytearray
    taken_ns: int  # when a camera gave it; 0: it is stamped when it is published


class ImageSource(Node):
    """Publishes `image`. One thread reads ahead, one publishes on time."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """Open the source and begin; `stop` is called at its end.

        Raises:
            SourceError: it cannot be opened.
            ParameterError: a parameter is wrong.
        """
        super().__init__(NAME)
        self.exit_code = 0
        self._stop = stop
        self._closing = threading.Event()
        self._sent = self._late = self._unreadable = 0
        self._drawing = self._last_error = ''
        self._said: set[str] = set()
        self._reminders = Reminders()
        try:
            self._params = NodeParameters(
                self,
                ImageSourceParams,
                refusal=lambda: 'while it publishes; start it again',
                apply=lambda _: None,
            ).value
            self._source = self._open()
        except (ParameterError, SourceError):
            self.destroy_node()
            raise
        reliability = {
            'reliable': QoSReliabilityPolicy.RELIABLE,
            'best_effort': QoSReliabilityPolicy.BEST_EFFORT,
        }[self._params.reliability]
        # Of what comes at its own pace only the newest is kept: what waits grows old.
        ahead = 1 if self._source.is_live else READ_AHEAD
        self._pictures: queue.Queue[Shot | None] = queue.Queue(ahead)
        self._publisher = self.create_publisher(Image, 'image', QoSProfile(depth=1, reliability=reliability))
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_timer(1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._read, self._publish)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop both threads, let go of the source and say how many pictures it gave; safe to call twice.

        Raises:
            TimeoutError: a camera or stream that is being read does not answer.
        """
        self._closing.set()
        for thread in self._threads:
            thread.join(CLOSE_TIMEOUT_S)
            if thread.is_alive():
                raise TimeoutError(f'{self._params.source} does not answer; leaving without it')
        self._source.close()
        self._publish_diagnostics()
        wait_until_heard(self._diagnostics)

    def _open(self) -> Source:
        params = self._params
        return open_source(
            params.source, loop=params.loop, size_hw=(params.height, params.width), seed=params.seed
        )

    # --- reading -------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read ahead; None is the end, whatever it came of."""
        try:
            if self._params.source in DRAWN:
                self._draw()
            else:
                self._read_on()
        except Exception as error:  # also what libraries raise, such as for want of memory
            self._fail(error)
        finally:
            self._put(None)

    def _read_on(self) -> None:
        failed: set[str] = set()  # since the last picture that could be read
        while not self._closing.is_set():
            try:
                picture = self._source.read()
            except SourceError as error:
                if str(error) in failed:
                    return  # once around the folder, and nothing could be read
                failed.add(str(error))
                self._unreadable += 1
                self._fail(error)
                continue
            failed.clear()
            if picture is None or not self._put(self._shot(picture.image)):
                return

    def _draw(self) -> None:
        """Draw scenes beforehand and repeat them: drawing all the time would take what others should have."""
        params = self._params
        length = max(1, min(RING_LENGTH, RING_BYTES // (params.height * params.width * 3)))
        length = min(length, params.frames or length)
        self._drawing = f'drawing {counted(length, "scene")}'
        self.get_logger().info(self._drawing)
        ring: list[Shot] = []
        while len(ring) < length and not self._closing.is_set():
            picture = self._source.read()
            assert picture is not None  # scenes never end
            ring.append(self._shot(picture.image))
        self._drawing = ''
        for shot in cycle(ring):
            if not self._put(shot):
                return

    def _shot(self, image_bgr: np.ndarray) -> Shot:
        conversion = CONVERSIONS[self._params.encoding]
        taken_ns = self.get_clock().now().nanoseconds if self._source.is_live else 0
        image = image_bgr if conversion is None else cv2.cvtColor(image_bgr, conversion)
        params = self._params
        return Shot(image_to_cdr(image, frame_id=params.frame_id, encoding=params.encoding), taken_ns)

    def _put(self, shot: Shot | None) -> bool:
        """Hand a picture over; False where nobody will take it."""
        while not self._closing.is_set():
            try:
                self._pictures.put(shot, timeout=0 if self._source.is_live else 0.1)
                return True
            except queue.Full:
                if self._source.is_live:
                    with contextlib.suppress(queue.Empty):
                        self._pictures.get_nowait()
        return False

    def _fail(self, error: Exception) -> None:
        self.exit_code = 1
        text = self._last_error = describe(error)
        if text in self._said:
            return
        if len(self._said) < MOST_SAID:
            self._said.add(text)
            self.get_logger().error(text)
        elif self._reminders.is_due(text):
            self.get_logger().error(text)

    # --- publishing ----------------------------------------------------------------------------------------

    def _publish(self) -> None:
        """Publish until the end of the source, and end the process."""
        try:
            try:
                self._publish_on_time()
            except Exception as error:
                self._fail(error)
            self._publish_diagnostics()
            if self._sent:
                # A reader takes the last one out of this process' shared memory, and needs a moment.
                sleep(LINGER_S)
        finally:
            self._stop()

    def _publish_on_time(self) -> None:
        params = self._params
        if not self._wait_for_subscribers():
            return
        shot = self._take()
        warned_bytes = 0
        self.get_logger().info(f'{params.source} on {self._publisher.topic_name} at {params.rate:g} Hz')
        start = due = monotonic()
        while shot is not None:
            if self._closing.wait(max(due - monotonic(), 0)):
                break
            if self._source.is_live and not self._pictures.empty():
                shot = self._take()  # a newer one
                if shot is None:
                    break
            if len(shot.cdr) > warned_bytes:
                warned_bytes = len(shot.cdr)
                if warning := warning_of_size(warned_bytes):
                    self.get_logger().warning(warning)
            stamp_cdr(shot.cdr, shot.taken_ns or self.get_clock().now().nanoseconds)
            publish_cdr(self._publisher, shot.cdr)
            self._sent += 1
            if self._sent == params.frames:
                break
            shot = self._take()
            # Due times lie on a grid, so that small delays do not add up; after a large one it begins anew.
            due += 1 / params.rate
            if monotonic() > due:
                self._late += 1
            if monotonic() > due + 1 / params.rate:
                due = monotonic()
                if self._reminders.is_due('rate'):
                    self.get_logger().warning(f'{params.source} does not keep up with {params.rate:g} Hz')
        seconds = max(monotonic() - start, 1e-6)
        rate = f', {(self._sent - 1) / seconds:.1f} per second' if self._sent > 1 else ''
        self.get_logger().info(
            f'{counted(self._sent, "picture")} in {seconds:.1f} s{rate}, {self._late} late'
        )

    def _publish_diagnostics(self) -> None:
        counts = {'sent': self._sent, 'late': self._late, 'unreadable': self._unreadable}
        values = {'source': self._params.source, **{name: str(count) for name, count in counts.items()}}
        name = f'{self.get_fully_qualified_name().lstrip("/")}: image'
        level, text = OK, self._drawing or self._waiting() or f'{counted(self._sent, "picture")} sent'
        if self._sent and not self._publisher.get_subscription_count() and not self._closing.is_set():
            nobody = f'nobody subscribes to {self._publisher.topic_name}'
            if self._reminders.is_due(nobody):
                self.get_logger().info(nobody)
        if problem := clock_problem(self.get_clock()):
            if self._reminders.is_due(problem):
                self.get_logger().warning(problem)
            level, text = WARN, problem
        if self._last_error:
            level, text = ERROR, self._last_error
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics_msg(name, level, text, values, stamp=stamp))

    def _wait_for_subscribers(self) -> bool:
        """Wait until those that are wanted are there; False where it is ended before."""
        while (waiting := self._waiting()) and not self._closing.wait(0.05):
            if self._reminders.is_due(waiting):
                self.get_logger().info(waiting)
        # They are known here a moment before they know this publisher, and would miss the first picture.
        if self._params.wait_for_subscribers and self._closing.wait(SETTLE_S):
            self.get_logger().info(f'ended before the first picture, {waiting or "all subscribers there"}')
            return False
        return True

    def _waiting(self) -> str:
        """Say who is missing; empty where all are there, or were when it began."""
        wanted, there = self._params.wait_for_subscribers, self._publisher.get_subscription_count()
        if self._sent or there >= wanted:
            return ''
        topic = self._publisher.topic_name
        names = listed(sorted(set(subscribers_of(self, topic))), most=MOST_NAMES)
        whose = f' ({names})' if there else ''
        return f'waiting for {counted(wanted, "subscriber")} on {topic}, {there} there{whose}'

    def _take(self) -> Shot | None:
        while not self._closing.is_set():
            try:
                return self._pictures.get(timeout=0.1)
            except queue.Empty:
                continue
        return None


def main(args: list[str] | None = None) -> int:
    """Publish until the end of the source or Ctrl-C; the exit code is 1 where a picture could not be read."""
    return run_node(NAME, ImageSourceParams, ImageSource, args)


if __name__ == '__main__':
    sys.exit(main())
