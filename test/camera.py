"""Camera: publishes pictures to a node over DDS and collects its answers."""

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from processes import wait_until
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from isaac_infer.ros.images import image_to_cdr

BEST_EFFORT = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
PICTURE = np.full((48, 64, 3), 90, np.uint8)
SECOND = 10**9


class Camera:
    """Publishes pictures to a node and collects what it says."""

    def __init__(self, peer, qos=BEST_EFFORT, answers='detections'):
        self.peer, self.answers = peer, answers
        self.publisher = peer.node.create_publisher(Image, 'image', qos)
        peer.listen(Detection2DArray, answers)
        peer.listen(DiagnosticArray, '/diagnostics')
        self.stamp_ns = SECOND

    def is_matched(self):
        """Both ends know one another."""
        return (
            self.publisher.get_subscription_count() > 0 and self.peer.node.count_publishers(self.answers) > 0
        )

    def send(self, picture=PICTURE):
        """Publish a picture; give its stamp."""
        self.stamp_ns += SECOND // 10
        self.publisher.publish(bytes(image_to_cdr(picture, stamp_ns=self.stamp_ns, frame_id='camera')))
        return self.stamp_ns

    def ask(self, picture=PICTURE):
        """Publish a picture and give the answer to it; again where the nodes do not know one another yet."""
        answers = self.peer.got[self.answers]
        assert wait_until(self.is_matched), 'the node is not there'
        for trial in range(10):  # with more patience each time: a model may take seconds
            self.send(picture)
            if wait_until(lambda: answers and stamp_of(answers[-1]) == self.stamp_ns, timeout_s=3 + trial):
                return answers[-1]
        raise AssertionError('no picture was answered')

    def beside(self, topic, answer):
        """The message of another topic, which the peer listens to, with the stamp of an answer."""
        found = []

        def came():
            found[:] = [m for m in list(self.peer.got[topic]) if stamp_of(m) == stamp_of(answer)]
            return found

        assert wait_until(came), f'{topic}: no message with the stamp of the answer'
        return found[0]

    def status(self, condition, timeout_s=20):
        """Wait for a status that meets a condition, and give it."""
        found = []

        def arrived():
            found[:] = [m.status[0] for m in self.peer.got['/diagnostics'] if condition(m.status[0])][-1:]
            return found

        wait_until(arrived, timeout_s)
        seen = [(status.level, status.message) for m in self.peer.got['/diagnostics'] for status in m.status]
        assert found, f'no such status among {seen}'
        return found[0]


def stamp_of(message):
    return message.header.stamp.sec * SECOND + message.header.stamp.nanosec


def values_of(status):
    return {pair.key: pair.value for pair in status.values}
