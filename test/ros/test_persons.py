"""Persons of a topic: whatever somebody else writes there."""

from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from isaac_infer.params import PoseNodeParams
from isaac_infer.ros.persons import LONGEST_NAME, MOST_TOLD, PersonsOfTopic


def test_names_of_others_are_told_in_one_line_of_bounded_length():
    message = Detection2DArray()
    for number in range(2 * MOST_TOLD):
        found = ObjectHypothesisWithPose()
        found.hypothesis.class_id = f'{number}\n[ERROR] [pose_node]: forged' + 'x' * 10**5
        message.detections.append(Detection2D(results=[found]))
    persons = PersonsOfTopic(PoseNodeParams(persons_topic='found'))
    persons.read(message)
    (told,) = persons.fallbacks
    assert '\n' not in told and len(told) < MOST_TOLD * (LONGEST_NAME + 2) + 200
