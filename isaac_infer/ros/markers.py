"""Markers: persons as RViz and Foxglove draw them: a ball for every joint, a line for every link."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from isaac_infer.core.frame import Frame
from isaac_infer.core.skeleton import Colour, Skeleton
from isaac_infer.ros.messages import header_of

LIFETIME = Duration(sec=2)  # where no picture comes any more, nobody stands any more
JOINTS, LINKS = 'joints', 'links'  # namespaces, which people switch on and off


def pose_markers(
    points: np.ndarray, skeleton: Skeleton, frame: Frame, *, ids: Sequence[int], joint_m: float
) -> MarkerArray:
    """Give persons as markers; those of the picture before are deleted first.

    Args:
        points: (N, K, 3) metres in the frame of the camera; NaN where a key point is not known.
        skeleton: of K key points.
        frame: the picture they were found in.
        ids: of the persons; those of the markers.
        joint_m: width of a joint; links have half of it.
    """
    header = header_of(frame)
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    known = np.isfinite(points).all(axis=2)
    for row, number in enumerate(ids):
        joints = np.flatnonzero(known[row]).tolist()
        links = [link for link in skeleton.links if known[row, link].all()]
        places = [Point(x=x, y=y, z=z) for x, y, z in points[row].tolist()]
        for namespace, kind, width, ends, colours in (
            (JOINTS, Marker.SPHERE_LIST, joint_m, joints, [skeleton.colour(joint) for joint in joints]),
            (
                LINKS,
                Marker.LINE_LIST,
                joint_m / 2,
                [end for link in links for end in link],
                [skeleton.link_colour(link) for link in links for _ in link],
            ),
        ):
            marker = Marker(header=header, ns=namespace, id=int(number), type=kind, action=Marker.ADD)
            marker.lifetime = LIFETIME
            marker.pose.orientation.w = 1.0
            marker.scale.x = marker.scale.y = marker.scale.z = width
            marker.color.a = 1.0
            marker.points = [places[end] for end in ends]
            marker.colors = [_colour(colour) for colour in colours]
            if ends:  # RViz warns of lists without points
                markers.append(marker)
    return MarkerArray(markers=markers)


def no_markers() -> MarkerArray:
    """Delete those that are there."""
    return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])


def _colour(colour: Colour) -> ColorRGBA:
    blue, green, red = (part / 255 for part in colour)
    return ColorRGBA(r=red, g=green, b=blue, a=1.0)
