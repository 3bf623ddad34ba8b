"""Families: the outputs that each pose decoder is recognised by, and how models of its family are fed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from isaac_infer.core.decode import paf
from isaac_infer.core.decode.families import (
    BAKED_IN,
    NO_NMS,
    NORMALISED_BY,
    Assumption,
    Family,
    Match,
    Model,
)
from isaac_infer.core.decode.heatmaps import cell_of
from isaac_infer.core.skeleton import SKELETONS
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.core.text import counted

MAX_KEYPOINTS = 1024  # a face has 468
MOVENET_ROWS = 6, 56  # persons, and numbers per person
# What usually has so many key points, where the model does not name them.
_USUAL = {16: 'mpii16', 17: 'coco17', 18: 'coco18', 21: 'hand21', 25: 'body25'}


# ---- key points ----------------------------------------------------------------------------------


def usual_names(count: int, skeleton: str = '') -> tuple[str, ...]:
    """Names of so many key points: the skeleton's, or the usual ones, or numbers."""
    known = skeleton or _USUAL.get(count, '')
    return SKELETONS[known].keypoints if known else tuple(map(str, range(count)))


def _note(names: tuple[str, ...], model: Model) -> tuple[str, ...]:
    return () if model.says.keypoints else (note_names(names),)


def note_names(names: tuple[str, ...]) -> str:
    """Say of key points that nobody has named what they are taken for."""
    known = [skeleton.name for skeleton in SKELETONS.values() if skeleton.keypoints == names]
    told = f'taken for those of {known[0]}; set keypoints if they are others' if known else UNNAMED
    return f'{counted(len(names), "key point")}, {told}'


def _keypoint_shape(model: Model, values: int) -> tuple[int, int]:
    """How many key points of how many numbers so many values are; 0, 0 where that is not clear."""
    count, each = model.says.keypoint_shape
    if count:
        return (count, each) if count * each == values and each in (2, 3) else (0, 0)
    shapes = [(values // each, each) for each in (3, 2) if values > 0 and values % each == 0]
    named = [shape for shape in shapes if shape[0] == len(model.says.keypoints)]
    usual = [shape for shape in shapes if shape[0] in _USUAL]
    for fitting in (named, usual, shapes if model.asked else []):
        if len(fitting) == 1 or (fitting and model.asked):
            return fitting[0]
    return 0, 0


# ---- the layouts, in the order of the decoders ---------------------------------------------------


def _tensors(model: Model, dimensions: int) -> list[TensorSpec]:
    """The outputs of real numbers with so many axes, of those that the user names."""
    return [
        output
        for output in model.outputs
        if len(output.shape) == dimensions
        and output.dtype.kind == 'f'
        and output.name in (model.output_names or (output.name,))
    ]


def _match_ultralytics(model: Model) -> Match | None:
    """[1, 4 + classes + K * d, boxes], one row per cell of the grid."""
    classes = len(model.names) or 1
    for output in _tensors(model, 3):
        _, second, third = output.shape
        for row, count in ((second, third), (third, second)):
            strides = model.strides_of(count)
            keypoints, each = _keypoint_shape(model, row - 4 - classes)
            if keypoints and (strides or (model.asked and count > row)):
                names = usual_names(keypoints)
                return Match(
                    (output.name,), classes, row, strides, notes=_note(names, model), keypoints=names,
                    keypoint_values=each,
                )  # fmt: skip
    return None


def _match_end2end(model: Model) -> Match | None:
    """[1, N, 6 + K * d]."""
    for output in _tensors(model, 3):
        _, count, row = output.shape
        keypoints, each = _keypoint_shape(model, row - 6)
        told = model.says.end2end or model.says.embedded_nms or model.asked
        others = model.strides_of(count) or (count, row) == MOVENET_ROWS
        if keypoints and (told or not others):
            names = usual_names(keypoints)
            nms = BAKED_IN if model.says.embedded_nms else NO_NMS
            return Match(
                (output.name,), row_length=row, notes=(nms, *_note(names, model)), keypoints=names,
                keypoint_values=each,
            )  # fmt: skip
    return None


def _match_movenet(model: Model) -> Match | None:
    for output in _tensors(model, 4):
        _, one, count, each = output.shape
        if one == 1 and each == 3 and (count == 17 or (model.asked and 0 < count <= MAX_KEYPOINTS)):
            return Match((output.name,), keypoints=usual_names(count), keypoint_values=3)
    return None


def _match_movenet_multi(model: Model) -> Match | None:
    for output in _tensors(model, 3):
        _, count, row = output.shape
        if (count, row) == MOVENET_ROWS or (model.asked and row == MOVENET_ROWS[1]):
            return Match((output.name,), row_length=row, keypoints=usual_names(17), keypoint_values=3)
    return None


def _match_heatmaps(model: Model) -> Match | None:
    for output in _tensors(model, 4):
        for channels, cell in _cells(model, output):
            if not 2 <= channels <= MAX_KEYPOINTS:
                continue
            # EfficientPose enlarges its maps to the size of its input, and has an order of its own.
            names = usual_names(channels, 'efficientpose16' if (channels, cell) == (16, 1) else '')
            return Match(
                (output.name,), row_length=channels, notes=(ONE_PERSON, *_note(names, model)),
                keypoints=names, keypoint_values=3, keypoint_refinement='none' if cell == 1 else 'quarter',
            )  # fmt: skip
    return None


def _cells(model: Model, output: TensorSpec) -> Iterator[tuple[int, int]]:
    """How an output can be maps of the picture: channels, network pixels per cell."""
    _, second, third, fourth = output.shape
    orders = [(second, (third, fourth)), (fourth, (second, third))]
    for channels, grid_hw in orders if model.layout == 'nchw' else orders[::-1]:
        if min(channels, *grid_hw) > 0 and (cell := cell_of(model.size_hw, grid_hw)):
            yield channels, cell


def _match_simcc(model: Model) -> Match | None:
    """Two tensors [1, K, bins] with equally many bins per pixel of width and of height."""
    found = model.named('simcc_x', 'simcc_y')
    if not found and len(model.output_names) == 2:
        by_name = {output.name: output for output in model.outputs}
        found = tuple(by_name[name] for name in model.output_names)
    if not found:
        tensors = _tensors(model, 3)
        square = model.size_hw[0] == model.size_hw[1]  # then both have one shape, and names or order tell
        if len(tensors) == 2 and (model.asked or not square):
            found = tuple(tensors)
            if _is_simcc(model, found[1], found[0]) and not square:
                found = (found[1], found[0])
    if not found or not _is_simcc(model, *found):
        return None
    names = usual_names(found[0].shape[1])
    return Match(
        tuple(output.name for output in found), notes=(ONE_PERSON, *_note(names, model)), keypoints=names,
        keypoint_values=3,
    )  # fmt: skip


def _is_simcc(model: Model, along_x: TensorSpec, along_y: TensorSpec) -> bool:
    shapes = along_x.shape, along_y.shape
    if any(len(shape) != 3 or min(shape[1:]) < 1 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        return False
    (height, width), (bins_x, bins_y) = model.size_hw, (shapes[0][2], shapes[1][2])
    return bins_x >= width and bins_x * height == bins_y * width and 2 <= shapes[0][1] <= MAX_KEYPOINTS


def _match_fields(
    topology: paf.Topology, skeleton: str, *, background: bool
) -> Callable[[Model], Match | None]:
    """Heat maps and part affinity fields of one size, in one tensor or in two."""
    names = SKELETONS[skeleton].keypoints
    parts, fields = len(names) + background, 2 * len(topology.links)

    def match(model: Model) -> Match | None:
        by_channels = {
            wanted: [
                output
                for output in _tensors(model, 4)
                if any(channels == wanted for channels, _ in _cells(model, output))
            ]
            for wanted in (parts + fields, parts, fields)
        }
        whole, heat, field = by_channels.values()
        if background and len(whole) == 1:
            return Match((whole[0].name,), row_length=parts + fields, keypoints=names, keypoint_values=3)
        if len(heat) == len(field) == 1:
            found = (heat[0].name, field[0].name)
            return Match(found, row_length=parts, keypoints=names, keypoint_values=3)
        return None

    return match


_IMAGENET: dict[str, Any] = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225), 'pad_value': 0}
_BYTES: dict[str, Any] = {'scale': 1.0, 'pad_value': 0}
_OPENPOSE: dict[str, Any] = {
    'scale': 1 / 256, 'mean': (0.5,), 'channel_order': 'bgr', 'resize': 'letterbox_top_left', 'pad_value': 0,
}  # fmt: skip
ONE_PERSON = (
    'it finds the key points of one person, who should fill the picture; a detector finds several: '
    'person_model_file_path (--person-model-file-path), or persons_topic of pose_node'
)
UNNAMED = 'unnamed; set keypoints to name them'
_LIKE_IMAGENET = Assumption('RGB in 0..1 with mean and std of ImageNet', NORMALISED_BY)
_LIKE_OPENPOSE = Assumption('BGR / 256 - 0.5, as OpenPose', ('channel_order', *NORMALISED_BY))

FAMILIES: dict[str, Family] = {
    'ultralytics_pose': Family(_match_ultralytics),
    'ultralytics_pose_end2end': Family(_match_end2end),
    'movenet': Family(_match_movenet, _BYTES, 'normalised', (ONE_PERSON,)),
    'movenet_multi': Family(_match_movenet_multi, _BYTES, 'normalised', (NO_NMS,)),
    'heatmaps': Family(_match_heatmaps, _IMAGENET, assumed=(_LIKE_IMAGENET,)),
    'simcc': Family(_match_simcc, _IMAGENET, assumed=(_LIKE_IMAGENET,)),
    'trt_pose': Family(
        _match_fields(paf.TRT_POSE, 'coco17_neck', background=False), _IMAGENET, assumed=(_LIKE_IMAGENET,)
    ),
    'openpose_coco': Family(
        _match_fields(paf.OPENPOSE_COCO, 'coco18', background=True), _OPENPOSE, assumed=(_LIKE_OPENPOSE,)
    ),
    'openpose_body25': Family(
        _match_fields(paf.OPENPOSE_BODY_25, 'body25', background=True), _OPENPOSE, assumed=(_LIKE_OPENPOSE,)
    ),
}

# Told by more than a number of channels, these come before heat maps, of which any number may be.
NAMED = (
    'ultralytics_pose', 'ultralytics_pose_end2end', 'movenet', 'movenet_multi', 'simcc', 'trt_pose',
    'openpose_coco', 'openpose_body25',
)  # fmt: skip


def by_metadata(model: Model) -> tuple[str, ...]:
    """The decoders that Ultralytics' metadata leaves open; the shapes of the outputs decide between them."""
    raw, final = 'ultralytics_pose', 'ultralytics_pose_end2end'
    told = model.says.end2end or model.says.embedded_nms
    for name in (final, raw) if told else (raw, final):
        if FAMILIES[name].match(model):
            return (name,)
    return raw, final
