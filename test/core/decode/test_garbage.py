"""Whatever a network answers, whatever a model looks like: sound detections, or one of our errors."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from core.decode.layouts import LAYOUTS, SOURCE_HW, Found, fit_for
from hypothesis import given, settings
from hypothesis import strategies as st
from spoiling import spoil

from isaac_infer.core.decode.detection import DECODERS
from isaac_infer.core.decode.probe import probe
from isaac_infer.core.decode.resolve import resolve_spec
from isaac_infer.core.errors import IsaacInferError, ModelError
from isaac_infer.core.results import Detections
from isaac_infer.core.spec import Limits
from isaac_infer.core.tensor import TensorSpec

OBJECTS = (Found((30, 20, 61, 42), 0.9, 1), Found((5, 8, 21, 40), 0.7, 0))
MAX_VALUES = 50_000  # of one tensor: larger ones teach nothing more


def assert_sound(found: Detections) -> None:
    height, width = SOURCE_HW
    assert np.isfinite(found.xyxy).all() and np.isfinite(found.score).all()
    left, top, right, bottom = found.xyxy.T
    assert ((left >= 0) & (top >= 0) & (right <= width) & (bottom <= height)).all()
    assert ((right > left) & (bottom > top)).all()
    assert ((found.score > 0) & (found.score <= 1)).all() and (np.diff(found.score) <= 0).all()
    assert (found.class_id >= 0).all()


@pytest.mark.parametrize('name', sorted(DECODERS))
@given(data=st.data())
@settings(max_examples=15)
def test_any_answer_gives_sound_detections_or_one_of_our_errors(name, data):
    layout = LAYOUTS[name]
    spec = probe(layout.encode(OBJECTS), layout.spec(OBJECTS))
    outputs = layout.encode(OBJECTS)
    spoil(outputs, data)
    limits = Limits(
        confidence_threshold=data.draw(st.sampled_from([0.0, 0.25, 1.0])),
        class_agnostic_nms=data.draw(st.booleans()),
    )
    with contextlib.suppress(IsaacInferError):
        assert_sound(DECODERS[spec.decoder](outputs, fit_for(spec), spec, limits))


_LENGTHS = st.sampled_from([-1, 1, 2, 3, 4, 5, 6, 7, 8, 20, 38, 57, 84, 85, 100, 126, 300, 378, 12, 24, 96])
_TENSORS = st.builds(
    TensorSpec,
    st.sampled_from(
        [
            'output0',
            'output',
            'boxes',
            'scores',
            'labels',
            'dets',
            'logits',
            'pred_boxes',
            'num_dets',
            'det_boxes',
            'x',
        ]
    ),
    st.lists(_LENGTHS, max_size=5).map(tuple),
    st.sampled_from([np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.int64)]),
).filter(lambda output: abs(math.prod(output.shape)) < MAX_VALUES)
_INPUT = (TensorSpec('images', (1, 3, 64, 96), np.dtype(np.float32)),)


@given(
    st.lists(_TENSORS, max_size=4, unique_by=lambda output: output.name),
    st.sampled_from(
        [{}, *({'decoder': name} for name in DECODERS), {'task': 'detect', 'names': "['a', 'b']"}]
    ),
    st.integers(0, 99),
)
@settings(max_examples=300)
def test_any_shapes_are_understood_or_refused(outputs, metadata, seed):
    try:
        spec = resolve_spec(_INPUT, outputs, metadata)
    except ModelError as error:
        message = str(error)
    else:
        message = ''
        random = np.random.default_rng(seed)
        answers = {
            output.name: random.uniform(-1, 2, [abs(length) for length in output.shape]).astype(output.dtype)
            for output in outputs
        }
        with contextlib.suppress(IsaacInferError):
            spec = probe(answers, spec)
            assert_sound(DECODERS[spec.decoder](answers, fit_for(spec), spec, Limits()))
    assert all(str(output) in message for output in outputs if 'decoders:' in message)
