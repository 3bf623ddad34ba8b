"""Segmentation families: the outputs that each decoder is recognised by, and how such models are fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from isaac_infer.core.decode import families
from isaac_infer.core.decode.families import NORMALISED_BY, Assumption, Family, Match, Model
from isaac_infer.core.tensor import TensorSpec

MAX_SCORED = 1 << 12  # classes that a network can score: more channels are features, not classes
MAX_STRIDE = 32  # network pixels per point of the coarsest grid
TF_STEP = 16  # DeepLab of TensorFlow takes pictures of 16 n + 1 pixels: corners meet corners
TAO_NAMES = ('argmax_1', 'softmax_1')
BESIDE = 'aux'  # in the name of a head that only training looks at


# ---- objects with masks --------------------------------------------------------------------------


def _with_prototypes(boxes: str) -> Callable[[Model], Match | None]:
    """The layout of a detection decoder, with prototypes beside it and their coefficients in its rows."""

    def match(model: Model) -> Match | None:
        channels = model.prototype_channels
        found = families.FAMILIES[boxes].match(replace(model, output_names=model.output_names[:1]))
        if not channels or not found or not _has_room(boxes, found, channels):
            return None
        (prototypes,) = (output.name for output in model.outputs if len(output.shape) == 4)
        notes = tuple(note for note in found.notes if note not in families.BOXES_ONLY)
        return found._replace(outputs=(*found.outputs, prototypes), notes=notes)

    return match


def _has_room(boxes: str, found: Match, channels: int) -> bool:
    """Whether rows are as long as box, scores and coefficients."""
    before = {'ultralytics': 4, 'yolov5': 5, 'ultralytics_end2end': 6}[boxes]
    return found.row_length == before + found.num_classes + channels


def _match_rfdetr(model: Model) -> Match | None:
    masks = _output(model, 2, 'masks', 'pred_masks')
    others = tuple(output for output in model.outputs if output is not masks)
    found = families.FAMILIES['rfdetr'].match(
        replace(model, outputs=others, output_names=model.output_names[:2])
    )
    if not found or not masks or len(masks.shape) != 4:
        return None
    return found._replace(outputs=(*found.outputs, masks.name))


def _match_mask_rcnn(model: Model) -> Match | None:
    names = model.output_names if len(model.output_names) == 4 else ()
    by_name = {output.name: output for output in model.outputs}
    found = tuple(by_name[name] for name in names) or model.named('labels', 'boxes', 'scores', 'masks')
    if not found or model.size_input or len(found[3].shape) not in (3, 4):
        return None
    background = int(not (model.names and model.names[0].strip().lower() in families.BACKGROUND_NAMES))
    return Match(tuple(output.name for output in found), first_class=background)


def _output(model: Model, place: int, *names: str) -> TensorSpec | None:
    """An output by its place among those that the user named, or else by its name."""
    if model.output_names:
        wanted = model.output_names[place : place + 1]
        return next((output for output in model.outputs if output.name in wanted), None)
    return next((found[0] for name in names if (found := model.named(name))), None)


# ---- what every pixel is -------------------------------------------------------------------------


class Pixels(NamedTuple):
    """An output that speaks of pixels."""

    name: str
    form: str  # scores, map or binary
    num_classes: int  # 0: it does not tell


def _pixels(model: Model, *forms: str) -> Pixels | None:
    """The first output of one of these forms; heads that only training looks at are left out."""
    if model.prototype_channels and not model.asked:
        if any(_can_be_boxes(model, output) for output in model.outputs):
            return None  # what looks like scores of pixels are prototypes, beside boxes
    for output in model.outputs:
        is_wanted = output.name in model.output_names[:1] if model.output_names else BESIDE not in output.name
        found = _form(model, output) if is_wanted else None
        if found and found.form in forms:
            return found
    return None


def _can_be_boxes(model: Model, output: TensorSpec) -> bool:
    shape = output.shape
    is_rows = len(shape) == 3 and min(shape) > 0 and output.dtype.kind == 'f'
    return is_rows and not _is_grid(model, *shape[1:])


def _form(model: Model, output: TensorSpec) -> Pixels | None:
    shape = output.shape
    if len(shape) not in (2, 3, 4) or (len(shape) > 2 and shape[0] not in (1, -1)):
        return None
    number = 'map' if output.dtype.kind in 'iub' else 'binary'
    if len(shape) < 4:
        return Pixels(output.name, number, 0) if _is_grid(model, *shape[-2:]) else None
    places = ((1, shape[2:]), (3, shape[1:3]))
    for axis, grid in places if model.layout == 'nchw' else places[::-1]:
        channels = shape[axis]
        if _is_grid(model, *grid) and channels == 1:
            return Pixels(output.name, number, 0)
        if _is_grid(model, *grid) and 1 < channels <= MAX_SCORED and output.dtype.kind == 'f':
            return Pixels(output.name, 'scores', channels)
    return None


def _is_grid(model: Model, rows: int, columns: int) -> bool:
    """Whether so many rows and columns can span the network input: neither finer, nor far coarser."""
    height, width = model.size_hw
    if not (0 < rows <= height and 0 < columns <= width and rows * MAX_STRIDE >= height):
        return False
    # Sides are rounded up or down; on a grid of very few cells, one more would be another grid.
    return abs(rows * width / height - columns) <= min(1, rows / 2, columns / 2)


def _match_pixels(form: str) -> Callable[[Model], Match | None]:
    def match(model: Model) -> Match | None:
        if not model.asked and (model.says.task or _is_symmetric(model)):
            return None
        forms = (
            ('map', 'binary') if model.asked and form == 'map' else (form,)
        )  # some write classes as floats
        better = _pixels(model, 'scores') if form != 'scores' and not model.asked else None
        return None if better else _as_match(_pixels(model, *forms))

    return match


def _match_symmetric(model: Model) -> Match | None:
    if model.asked or (not model.says.task and _is_symmetric(model)):
        return _as_match(_pixels(model, 'scores') or _pixels(model, 'map', 'binary'))
    return None


def _is_symmetric(model: Model) -> bool:
    by_size = all(length > TF_STEP and length % TF_STEP == 1 for length in model.size_hw)
    return by_size or any(model.named(name) for name in TAO_NAMES)


def _match_ultralytics(model: Model) -> Match | None:
    if model.asked or model.says.task == 'semantic':
        return _as_match(_pixels(model, 'scores') or _pixels(model, 'map', 'binary'))
    return None


def _as_match(found: Pixels | None) -> Match | None:
    return Match((found.name,), found.num_classes) if found else None


_LIKE_IMAGENET = (Assumption('RGB minus the mean of ImageNet', NORMALISED_BY), families.STRETCHED)
_LIKE_TENSORFLOW = (Assumption('RGB from -1 to 1', (*NORMALISED_BY, 'channel_order')), families.STRETCHED)
_IMAGENET_STRETCHED = {**families.STRETCH, **families.IMAGENET}
_SYMMETRIC = {**families.STRETCH, 'scale': 1 / 127.5, 'mean': (1.0,)}


def _boxes_of(name: str, match: Callable[[Model], Match | None]) -> Family:
    return replace(families.FAMILIES[name], match=match)


FAMILIES: dict[str, Family] = {
    'ultralytics_seg': _boxes_of('ultralytics', _with_prototypes('ultralytics')),
    'ultralytics_seg_end2end': _boxes_of('ultralytics_end2end', _with_prototypes('ultralytics_end2end')),
    'yolov5_seg': _boxes_of('yolov5', _with_prototypes('yolov5')),
    'rfdetr_seg': _boxes_of('rfdetr', _match_rfdetr),
    'mask_rcnn': Family(_match_mask_rcnn, families.STRETCH, notes=(families.BAKED_IN, families.FROM_ONE)),
    'semantic': Family(_match_pixels('scores'), _IMAGENET_STRETCHED, assumed=_LIKE_IMAGENET),
    'semantic_map': Family(_match_pixels('map'), _IMAGENET_STRETCHED, assumed=_LIKE_IMAGENET),
    'semantic_binary': Family(_match_pixels('binary'), _IMAGENET_STRETCHED, assumed=_LIKE_IMAGENET),
    'semantic_symmetric': Family(_match_symmetric, _SYMMETRIC, assumed=_LIKE_TENSORFLOW),
    'ultralytics_semantic': Family(_match_ultralytics),
}

# Told by names, these come before those told by shapes.
NAMED = ('rfdetr_seg', 'mask_rcnn')


def by_metadata(model: Model) -> tuple[str, ...]:
    """The decoders that Ultralytics' metadata leaves open; the shapes of the outputs decide between them."""
    if model.says.task == 'semantic':
        return ('ultralytics_semantic',)
    raw, final = 'ultralytics_seg', 'ultralytics_seg_end2end'
    told = model.says.end2end or model.says.embedded_nms
    for name in (final, raw) if told else (raw,):
        if FAMILIES[name].match(model):
            return (name,)
    return (final,)
