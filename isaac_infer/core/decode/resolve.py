"""Recognition: which decoder fits a model, and how its pictures are prepared, found without running it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isaac_infer.core.decode.families import (
    ANCHORS_PER_CELL,
    COCO_KEYPOINT_VALUES,
    STRIDES,
    Family,
    Match,
    Model,
    note_assumed,
)
from isaac_infer.core.decode.metadata import Metadata, read_metadata
from isaac_infer.core.decode.names import doubts_about
from isaac_infer.core.decode.tasks import TASKS
from isaac_infer.core.errors import ModelError, NamesError
from isaac_infer.core.fit import Size, input_size_text
from isaac_infer.core.spec import MAX_BATCH, ImageSpec, ModelSpec, Overrides
from isaac_infer.core.tensor import TensorSpec
from isaac_infer.core.text import counted

MOST_NEAR = 3  # decoders that are told where none fits
UNTOLD = 'its shapes do not tell it from others'


def resolve_spec(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    metadata: Mapping[str, Any],
    overrides: Overrides = Overrides(),
    *,
    task: str = 'detection',
    file_name: str = 'model',
) -> ModelSpec:
    """Find out how to feed a model and how to read it.

    What the user says wins; then comes what the model says of itself, then the names of its outputs, then
    their shapes against the grid of its input size. What only a run can tell is settled by `probe`.

    Args:
        inputs: of the model.
        outputs: of the model, lengths that it leaves open filled in from a run on `input_shapes`.
        metadata: of the model file, over that of the sidecar.
        overrides: what the user says.
        task: what kind of answer is wanted, a key of TASKS.
        file_name: for messages.

    Raises:
        ModelError: no decoder fits, several do, or what is said contradicts what the model is.
        NamesError: classes or key points are named that are more or fewer than the model has.
    """
    says = read_metadata(metadata, file_name=file_name)
    own_keypoints = says.keypoints
    if task == 'pose':  # of others they would tell that they are pose models
        says = replace(says, keypoints=overrides.keypoints or own_keypoints)
    image, size_input = _image_input(inputs, overrides, says, file_name)
    _check_batch(image, MAX_BATCH if TASKS[task].batched else 1, file_name)
    layout = _layout(image, overrides, says, file_name)
    model = Model(
        outputs=tuple(output for output in outputs if output.dtype != object),
        image=image,
        size_hw=_size(image, layout, overrides, says, file_name),
        layout=layout,
        size_input=size_input.name if size_input else '',
        says=says,
        names=overrides.class_names or says.names,
        strides=overrides.strides or says.own.get('strides', ()),
        anchors=overrides.anchors or says.own.get('anchors', ()),
        output_names=overrides.output_names or says.own.get('output_tensor_names', ()),
        asked=False,
        left_out=tuple(output for output in outputs if output.dtype == object),  # texts, sequences, ...
    )
    _check_output_names(model, file_name)
    families = TASKS[task].families
    decoder, match, how, is_certain = _recognise(model, task, overrides, file_name)
    _check_batch(image, MAX_BATCH if decoder in TASKS[task].batched else 1, file_name)
    family = families[decoder]
    _check_twins(model, family, decoder, match, file_name)
    _check_names(model, family, match, file_name)
    box_unit = overrides.box_unit or says.own.get('box_unit', '')
    unsettled = {
        'decoder': not is_certain,
        'box_unit': not box_unit,
        'task': not (is_certain or says.purpose),
        'keypoints': bool(match.keypoint_values) and not (says.keypoints or says.keypoint_shape[0]),
    }
    notes = (
        how,
        *family.notes,
        *note_assumed(family.assumed, _said_of_pictures(model, overrides)),
        *match.notes,
        *says.notes,
        *_note_names(model, match, decoder),
        *_left_out(model),
    )
    if image.shape[0] > 1:
        notes += (f'it always takes {image.shape[0]} pictures at once: those that nobody needs are wasted',)
    keypoints = _keypoints(match, says, file_name)
    # A pose model without names: whoever has shoulders is a person, whatever the user calls them.
    named = (*keypoints, *(own_keypoints or match.keypoints))
    is_of_persons = match.num_classes < 2 and any('shoulder' in name for name in named)
    names = model.names or (('person',) if is_of_persons else ())
    return ModelSpec(
        task=task,
        decoder=decoder,
        image=_image_spec(model, family, overrides, file_name),
        outputs=match.outputs,
        class_names=names,
        num_classes=match.num_classes or len(names),
        strides=match.strides,
        anchors=match.anchors,
        row_length=match.row_length,
        first_class=match.first_class,
        box_unit=box_unit or family.box_unit,
        score_unit=overrides.score_unit or says.own.get('score_unit', ''),
        size_input=model.size_input,
        size_dtype=size_input.dtype.name if size_input else ModelSpec.size_dtype,
        keypoints=keypoints,
        keypoint_values=match.keypoint_values,
        keypoint_refinement=(
            overrides.keypoint_refinement
            or says.own.get('keypoint_refinement', '')
            or match.keypoint_refinement
        ),
        box_blend=(says.own.get('box_blend', 0.0) if overrides.box_blend is None else overrides.box_blend),
        unsettled=frozenset(name for name, is_open in unsettled.items() if is_open),
        notes=notes,
    )


def input_shapes(
    inputs: Sequence[TensorSpec],
    metadata: Mapping[str, Any],
    overrides: Overrides = Overrides(),
    *,
    file_name: str = 'model',
) -> dict[str, tuple[int, ...]]:
    """The shapes to feed a model's inputs with, by name, before its outputs are known.

    Raises:
        ModelError: the model leaves its size open and nobody says it, or its inputs are not a picture's.
    """
    says = read_metadata(metadata, file_name=file_name)
    image, size_input = _image_input(inputs, overrides, says, file_name)
    layout = _layout(image, overrides, says, file_name)
    height, width = _size(image, layout, overrides, says, file_name)
    channels = image.shape[1 if layout == 'nchw' else 3]
    channels = channels if channels > 0 else 3
    shapes: dict[str, tuple[int, ...]] = {}
    picture = (channels, height, width) if layout == 'nchw' else (height, width, channels)
    shapes[image.name] = (max(image.shape[0], 1), *picture)
    if size_input:
        shapes[size_input.name] = (1, 2)
    return shapes


# ---- the inputs ----------------------------------------------------------------------------------


def _image_input(
    inputs: Sequence[TensorSpec], overrides: Overrides, says: Metadata, file_name: str
) -> tuple[TensorSpec, TensorSpec | None]:
    """The picture's input and, where there is one, the one that wants the size of the picture."""
    by_name = {spec.name: spec for spec in inputs}
    names = overrides.input_names or says.own.get('input_tensor_names', ())
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ModelError(f'{file_name}: no input named {", ".join(unknown)}; the model has {_listed(inputs)}')
    if names:
        images = [by_name[names[0]]]
        sizes = [by_name[name] for name in names[1:]]
    else:
        images = [spec for spec in inputs if len(spec.shape) == 4]
        sizes = [spec for spec in inputs if len(spec.shape) == 2 and spec.shape[1] in (2, -1)]
    if (
        len(images) != 1
        or len(images[0].shape) != 4
        or len(sizes) > 1
        or len(images) + len(sizes) != len(inputs)
    ):
        raise ModelError(
            f'{file_name}: expected one picture as input, and at most one [1, 2] for its size, '
            f'got {_listed(inputs)}; '
            'export the model with a picture as its only input, or name them by input_tensor_names'
        )
    image = images[0]
    if (image.dtype.kind not in 'fu' and image.dtype != np.int32) or image.dtype.itemsize > 4:
        raise ModelError(
            f'{file_name}: {image.name} takes {image.dtype}, expected float32, float16, uint8 or int32; '
            'export the model with one of these as its input'
        )
    return image, sizes[0] if sizes else None


def _check_batch(image: TensorSpec, most: int, file_name: str) -> None:
    if image.shape[0] > most:
        raise ModelError(
            f'{file_name}: {image.name} takes {image.shape[0]} pictures at once, expected {most} at most; '
            'export the model with batch size 1 or with a dynamic batch'
        )


def _layout(image: TensorSpec, overrides: Overrides, says: Metadata, file_name: str) -> str:
    layout = overrides.layout or says.own.get('input_layout', '')
    _, second, _, fourth = image.shape
    if not layout:
        layout = 'nhwc' if fourth in (1, 3) and second not in (1, 3) else 'nchw'
    channels = second if layout == 'nchw' else fourth
    if channels not in (1, 3, -1):
        raise ModelError(
            f'{file_name}: {image} is not a picture: expected 1 or 3 channels, got {channels} in layout '
            f'{layout}; set input_layout if its axes are in another order'
        )
    return layout


def _size(image: TensorSpec, layout: str, overrides: Overrides, says: Metadata, file_name: str) -> Size:
    own = image.shape[2:4] if layout == 'nchw' else image.shape[1:3]
    wanted = overrides.input_size_hw
    if wanted and any(length not in (-1, want) for length, want in zip(own, wanted)):
        raise ModelError(
            f'{file_name}: {image.name} is {own[0]} high and {own[1]} wide, input_size asks for {wanted[0]} '
            f'and {wanted[1]}; leave input_size empty, or export the model in that size or with a dynamic one'
        )
    known = wanted or says.size_hw
    if -1 in own and not known:
        raise ModelError(
            f'{file_name}: {image} leaves height and width open; set input_size to height and width in '
            'pixels, as the model was trained'
        )
    height, width = (length if length > 0 else say for length, say in zip(own, known or own))
    return height, width


SET_KEYPOINTS = 'if these are its key points, set keypoints to their names; else '
PREPARED_BY = ('channel_order', 'resize', 'scale_up', 'pad_value', 'scale', 'mean', 'std')


def _said_of_pictures(model: Model, overrides: Overrides) -> dict[str, Any]:
    """How pictures are to be prepared, as far as the user or the model says it."""
    values: dict[str, Any] = {}
    if model.image.dtype.kind in 'iu':
        values.update(scale=1.0, mean=(0.0,), std=(1.0,))  # such a model normalises inside
    values.update({key: model.says.own[key] for key in PREPARED_BY if key in model.says.own})
    for key in PREPARED_BY:
        if (value := getattr(overrides, key)) not in (None, '', ()):
            values[key] = value
    return values


def _image_spec(model: Model, family: Family, overrides: Overrides, file_name: str) -> ImageSpec:
    """The family's preparation, under what the model says, under what the user says."""
    channels = model.image.shape[1 if model.layout == 'nchw' else 3]
    values: dict[str, Any] = dict(family.image)
    if channels == 1:
        values['channel_order'] = 'gray'
        for key in {'mean', 'std'} & values.keys():
            values[key] = (sum(values[key]) / len(values[key]),)
    values.update(_said_of_pictures(model, overrides))
    spec = ImageSpec(
        name=model.image.name,
        size_hw=model.size_hw,
        batch=max(model.image.shape[0], 1),
        layout=model.layout,
        dtype=model.image.dtype,
        **values,
    )
    if channels not in (-1, spec.channels):
        raise ModelError(
            f'{file_name}: {model.image} has {counted(channels, "channel")}, channel_order '
            f'{spec.channel_order!r} makes {spec.channels}'
        )
    for key, numbers in (('mean', spec.mean), ('std', spec.std)):
        if len(numbers) not in (1, spec.channels):
            raise ModelError(
                f'{file_name}: {key} has {counted(len(numbers), "value")}, expected 1 or {spec.channels}'
            )
    return spec


# ---- the outputs ---------------------------------------------------------------------------------


def _recognise(model: Model, task: str, overrides: Overrides, file_name: str) -> tuple[str, Match, str, bool]:
    """The decoder, how it fits, how it was found, and whether that is certain."""
    families, decoders = TASKS[task].families, TASKS[task].decoders
    asked = overrides.decoder or model.says.own.get('decoder', '')
    if asked:
        if asked not in families:
            others = [name for name, other in TASKS.items() if asked in other.decoders]
            raise ModelError(
                f'{file_name}: there is no decoder {asked!r} for {task}; '
                + (f'it is one for {others[0]}: {_elsewhere(others)}, or set ' if others else 'there are ')
                + ', '.join(decoders)
            )
        match = families[asked].match(replace(model, asked=True))
        if match is None:
            raise ModelError(
                f'{file_name}: its outputs do not have the layout of decoder {asked!r}\n'
                f'    ({decoders[asked].description});\n{_way_out(model, task)}'
            )
        who = 'parameter' if overrides.decoder else 'metadata'
        return asked, match, f'decoder {asked}, by {who}', True
    _refuse_other_tasks(model, task, file_name)
    matches = _matches(model, task)
    # Without an output that it lacks, a model may look like another one.
    complete = replace(model, outputs=(*model.outputs, *model.left_out), left_out=())
    if lacking := [name for name in _matches(complete, task) if name not in matches]:
        raise ModelError(
            f'{file_name}: its outputs are those of {" or ".join(lacking)}, of which one is left out; '
            f'set decoder if one of these does without.\n{_way_out(model, task)}'
        )
    if len(matches) == 1:
        ((name, match),) = matches.items()
        how = "Ultralytics' metadata" if model.says.task else 'names and shapes of its outputs'
        return name, match, f'decoder {name}, recognised by {how}', bool(model.says.task)
    if matches:
        raise ModelError(
            f'{file_name}: its outputs can be read as {" or ".join(matches)}; set decoder to the right one.\n'
            + ''.join(f'    {name} ({decoders[name].description})\n' for name in matches)
            + _way_out(model, task)
        )
    fitting = {
        name: [decoder for decoder, family in other.families.items() if family.match(model)]
        for name, other in TASKS.items()
        if name != task
    }
    if others := [name for name in fitting if fitting[name]]:
        read = ' or '.join(f'{name} ({", ".join(fitting[name])})' for name in others)
        raise ModelError(
            f'{file_name}: no decoder fits its outputs for {task}, but for {read}: '
            f'{SET_KEYPOINTS if task == "pose" else ""}{_elsewhere(others)}, or set decoder\n'
            f'  outputs: {_outputs_of(model)}'
        )
    raise ModelError(
        f'{file_name}: no decoder fits its outputs; set decoder if one of these does.\n'
        + _nearly(model, task)
        + _way_out(model, task)
    )


def _nearly(model: Model, task: str) -> str:
    """Decoders that would read the model if they were asked for, and why they are not taken.

    Those that lack nothing but the number of boxes come first.
    """
    asked, lines = replace(model, asked=True), []
    for name, family in TASKS[task].families.items():
        match = family.match(asked)
        boxes = _boxes(model, match) if match else 0
        if match and not 0 < boxes < match.row_length:  # more values than boxes: it is turned the other way
            layout = TASKS[task].decoders[name].description
            lines.append(f'    {name} ({layout}): {_why_not(model, family, match, boxes)}\n')
    lines.sort(key=lambda line: UNTOLD in line)
    return '  nearly:\n' + ''.join(lines[:MOST_NEAR]) if lines else ''


def _boxes(model: Model, match: Match) -> int:
    """How many rows of a match's length there are; 0 where its output has another form."""
    shape = next(output.shape for output in model.outputs if output.name == match.outputs[0])
    if len(shape) != 3 or match.row_length not in shape[1:]:
        return 0
    return shape[1] if shape[2] == match.row_length else shape[2]


def _why_not(model: Model, family: Family, match: Match, boxes: int) -> str:
    height, width = model.size_hw
    cells = sum(-(-height // stride) * -(-width // stride) for stride in STRIDES[0])
    for expected in (cells, ANCHORS_PER_CELL * cells) if boxes > 0 else ():
        outputs = tuple(
            replace(output, shape=tuple(expected if length == boxes else length for length in output.shape))
            for output in model.outputs
        )
        if family.match(replace(model, outputs=outputs)):
            return (
                f'it has {boxes} boxes, expected {expected} of pictures of {input_size_text(model.size_hw)}'
            )
    return UNTOLD


def _matches(model: Model, task: str) -> dict[str, Match]:
    families, named = TASKS[task].families, TASKS[task].named
    shaped = tuple(name for name in families if name not in named)
    matches: dict[str, Match] = {}
    for names in (TASKS[task].by_metadata(model),) if model.says.task else (named, shaped):
        matches = matches or {name: match for name in names if (match := families[name].match(model))}
    return matches


def _elsewhere(tasks: Iterable[str]) -> str:
    nodes = ' or '.join('detector_node' if task == 'detection' else f'{task}_node' for task in tasks)
    return f'take {nodes}; on the command line set --task {" or ".join(tasks)}'


def _way_out(model: Model, task: str) -> str:
    names = ', '.join(TASKS[task].decoders)
    return f'  outputs: {_outputs_of(model)}\n  decoders ("isaac-infer decoders" has their layouts): {names}'


def _outputs_of(model: Model) -> str:
    return '\n  '.join([_listed(model.outputs), *_left_out(model)])


def _left_out(model: Model) -> tuple[str, ...]:
    """Say which outputs nobody can read, and why; nothing where there are none."""
    if not model.left_out:
        return ()
    names = _listed(model.left_out)
    return (f'left out, no numbers that NumPy knows: {names}; if needed, export it with float32 outputs',)


def _listed(tensors: Sequence[TensorSpec]) -> str:
    return ', '.join(map(str, tensors)) or 'none'


def _refuse_other_tasks(model: Model, task: str, file_name: str) -> None:
    says, expected = model.says.task or model.says.purpose, TASKS[task].says
    if not says and (model.says.keypoints or model.says.keypoint_values):
        says = 'pose'  # nobody else has key points
    if says and says not in expected:
        tasks = reversed(tuple(TASKS))  # as `task_of` takes them
        others = [name for name in tasks if says in TASKS[name].says]
        unnamed = replace(model, names=())  # the names may be those of the task that it is not for
        others = [name for name in others if _matches(unnamed, name)] or others
        way = f', or {_elsewhere(others)}' if others else ''
        raise ModelError(
            f'{file_name}: it was made for the task {says!r}, which gives no {task}; expected a model for '
            f'{", ".join(expected)}{way}. If its metadata is wrong, set decoder'
        )


def _check_output_names(model: Model, file_name: str) -> None:
    known = {output.name for output in model.outputs}
    unknown = [name for name in model.output_names if name not in known]
    if unknown:
        raise ModelError(
            f'{file_name}: no output named {", ".join(unknown)}; those that hold numbers are '
            f'{_outputs_of(model)}'
        )


def _check_twins(model: Model, family: Family, decoder: str, match: Match, file_name: str) -> None:
    """Refuse to choose between outputs: what one decoder leaves over must not fit it as well."""
    others = tuple(output for output in model.outputs if output.name not in match.outputs)
    twin = family.match(replace(model, outputs=others)) if not model.output_names else None
    if twin and (not model.names or twin.num_classes in (0, len(model.names))):
        raise ModelError(
            f'{file_name}: both {", ".join(match.outputs)} and {", ".join(twin.outputs)} can be read by '
            f'decoder {decoder}; set output_tensor_names to the right ones'
        )


def _check_names(model: Model, family: Family, match: Match, file_name: str) -> None:
    count = match.num_classes or len(model.says.names)
    if model.names and count and len(model.names) != count:
        persons = max(count - COCO_KEYPOINT_VALUES, 0)
        as_pose = family.match(replace(model, names=('',) * persons)) if persons else None
        pose = f' (or {persons}, if it is a pose model)' if as_pose and as_pose.num_classes == persons else ''
        raise NamesError(
            f'{file_name}: expected {counted(count, "class name")}{pose}, as the model has classes, '
            f'got {len(model.names)}{doubts_about(model.names)}'
        )


def _keypoints(match: Match, says: Metadata, file_name: str) -> tuple[str, ...]:
    """Their names, as the user, the model or its family says."""
    names = says.keypoints
    if match.keypoints and (twice := sorted({name for name in names if names.count(name) > 1})):
        raise ModelError(
            f'{file_name}: expected a name of its own for every key point, got {", ".join(twice)} more than '
            'once; set keypoints'
        )
    if match.keypoints and names and len(names) != len(match.keypoints):
        raise NamesError(
            f'{file_name}: expected {counted(len(match.keypoints), "name")} of key points, as the model has '
            f'key points, got {len(names)}'
        )
    return names if match.keypoints and names else match.keypoints


def _note_names(model: Model, match: Match, decoder: str) -> tuple[str, ...]:
    is_object = len(model.names) == 1 and 'semantic' in decoder  # and what is not the object is the rest
    if not model.names or match.num_classes or model.says.names or is_object:
        return ()
    return (
        f'the model does not tell how many classes it has; {len(model.names)} are named, others go by number',
    )
