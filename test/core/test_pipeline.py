"""Pipeline: its end, whatever its sessions do."""

import numpy as np
import pytest

from isaac_infer.core.errors import SessionError
from isaac_infer.core.frame import Frame
from isaac_infer.core.pipeline import Pipeline
from isaac_infer.core.spec import ImageSpec, Limits, ModelSpec
from isaac_infer.core.tensor import TensorSpec

IMAGE = ImageSpec('images', (8, 8))
SPEC = ModelSpec(
    task='detection', decoder='ultralytics', image=IMAGE, outputs=('boxes',), class_names=(), num_classes=1
)


class Session:
    """A network that answers nothing, and may not be closed in order."""

    def __init__(self, problem=''):
        self.inputs, self.outputs = (TensorSpec('images', IMAGE.shape, IMAGE.dtype),), ()
        self.metadata, self.backend, self.fallbacks = {}, 'fake', ()
        self.problem, self.closed = problem, 0

    def input_buffer(self, name, shape):
        return np.zeros(shape, np.float32)

    def run(self):
        return {}

    def close(self):
        self.closed += 1
        if self.problem:
            raise SessionError(self.problem)


@pytest.mark.parametrize(
    'problems', [('', '', ''), ('', 'first', ''), ('second', 'first', ''), ('only', '', '')]
)
def test_all_sessions_are_closed_and_the_first_error_is_told(problems):
    sessions = [Session(problem) for problem in problems]
    pipeline, *twins = (Pipeline(session, SPEC, Limits()) for session in sessions)
    pipeline.twins = tuple(twins)
    if any(problems):
        with pytest.raises(SessionError, match='first|only'):
            pipeline.close()
    else:
        pipeline.close()
    assert [session.closed for session in sessions] == [1, 1, 1]
    with pytest.raises(SessionError, match='closed'):
        pipeline(Frame(np.zeros((8, 8, 3), np.uint8)))
