"""Surgery: ONNX in, ONNX out: uint8 pictures, class map, half precision."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from isaac_infer.core.errors import ModelError
from isaac_infer.core.frame import Frame
from isaac_infer.core.prepare import Preparer
from isaac_infer.core.spec import SCALE_UP, ImageSpec
from isaac_infer.engine.files import replace_file, working_folder

SURGERY_KEY = 'isaac_infer_surgery'  # in a model's metadata: what was done to it, separated by commas
OLDEST_OPSET = 7  # the first in which arithmetic broadcasts as NumPy does
_PREFIX = 'isaac_infer'  # of the names of nodes and tensors that are added here
_FLOATS: dict[int, np.dtype] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
}


@dataclass(frozen=True)
class Agreement:
    """How far the answers of two models are apart, over all outputs and pictures."""

    max_abs: float = 0.0  # largest difference of two values
    max_rel: float = 0.0  # largest difference over 1 + |value|: absolute for scores, relative for pixels
    mean_abs: float = 0.0  # mean difference, of the output and picture where it is largest
    mean_rel: float = 0.0  # the same of differences over 1 + |value|


class Tolerance(NamedTuple):
    """How far two models may be apart; see `Agreement`."""

    max_rel: float
    mean_rel: float


EXACT = Tolerance(1e-4, 1e-5)  # for changes that only move work: float32 rounding through a deep network
# For half precision: single values near a steep activation move far, the mass of them must not.
HALF = Tolerance(0.3, 1e-2)


class Feed(NamedTuple):
    """One picture, as each of two models wants it: arrays by input name."""

    original: Mapping[str, np.ndarray]
    changed: Mapping[str, np.ndarray]


class Checked(NamedTuple):
    """A changed model that was found to answer as the original does, and how it is fed."""

    model: onnx.ModelProto
    image: ImageSpec
    agreement: Agreement


def checked(
    original: onnx.ModelProto,
    image: ImageSpec,
    frames: Iterable[Frame],
    *,
    uint8_input: bool = False,
    class_maps: Mapping[str, int] | None = None,
    float16: bool = False,
    tolerance: Tolerance | None = None,
    others: Mapping[str, np.ndarray] | None = None,
) -> Checked:
    """Change a model and see on pictures that it still answers the same.

    Args:
        original: stays as it is.
        image: how the original is fed.
        frames: pictures to compare on, at least one.
        uint8_input: see `take_uint8`.
        class_maps: the class axis of each output that becomes a class map; see `to_class_map`.
        float16: see `to_float16`.
        tolerance: see `check_equal`; None: EXACT, or HALF where float16.
        others: what further inputs get, by name.

    Raises:
        ModelError: it cannot be changed so, or answers differently.
    """
    changed, changed_image = original, image
    if uint8_input:
        changed, changed_image = take_uint8(changed, image), uint8_spec(image)
    for output, axis in (class_maps or {}).items():
        changed = to_class_map(changed, output, axis=axis)
    if float16:
        changed = to_float16(changed)
    if tolerance is None:
        tolerance = HALF if float16 else EXACT
    feeds = list(feeds_from(frames, image, changed_image, others=others))
    agreement = check_equal(original, changed, feeds, tolerance=tolerance, class_maps=class_maps)
    return Checked(changed, changed_image, agreement)


# ---- the operations ------------------------------------------------------------------------------


def uint8_spec(image: ImageSpec) -> ImageSpec:
    """Say how a model is fed after `take_uint8`: pixels as they are."""
    return replace(image, layout='nhwc', dtype=np.dtype(np.uint8), scale=1.0, mean=(0.0,), std=(1.0,))


def take_uint8(model: onnx.ModelProto, image: ImageSpec) -> onnx.ModelProto:
    """Make a copy that takes pixels, uint8 [batch, height, width, channels], and normalises them itself.

    The input keeps its name and the order of its channels. The copy's metadata say how it is fed.

    Raises:
        ModelError: the model has no such input, or it does not take floating point numbers.
    """
    copy = _copy(model)
    graph = copy.graph
    old = _image_input(graph, image)
    dtype = old.type.tensor_type.elem_type
    dims = list(old.type.tensor_type.shape.dim)
    # Of what is left open, only the names of the lengths move.
    order = (0, 2, 3, 1) if image.layout == 'nchw' else (0, 1, 2, 3)
    kept = [dims[axis].dim_value or dims[axis].dim_param or None for axis in order]
    size_is_open = not all(isinstance(length, int) for length in kept[1:3])

    taken = _names_in(graph)
    name = _free(f'{_PREFIX}/{image.name}', taken)
    # TensorRT 8.6 takes uint8 only where a Cast to float32 follows at once. float32 even where the network
    # is in half precision: the folded factor has too few bits there.
    tensor, nodes = image.name, []

    def add(kind: str, *constants: str, **attributes: Any) -> None:
        nonlocal tensor
        result = _free(f'{name}/{kind.lower()}', taken)
        nodes.append(helper.make_node(kind, [tensor, *constants], [result], name=result, **attributes))
        tensor = result

    def constant(word: str, values: np.ndarray) -> str:
        result = _free(f'{name}/{word}', taken)
        # A node, since initializers of old models would have to be inputs as well.
        value = numpy_helper.from_array(values, result)
        nodes.append(helper.make_node('Constant', [], [result], name=result, value=value))
        return result

    add('Cast', to=TensorProto.FLOAT)
    if image.layout == 'nchw':
        add('Transpose', perm=[0, 3, 1, 2])
    factor, offset = _folded(image)
    if not (factor == 1).all():
        add('Mul', constant('factor', factor))
    if offset.any():
        add('Add', constant('offset', offset))
    if dtype != TensorProto.FLOAT:
        add('Cast', to=dtype)

    _rename(graph, image.name, tensor)
    old.CopyFrom(helper.make_tensor_value_info(image.name, TensorProto.UINT8, kept))
    _put_first(graph, nodes)
    _say(copy, _fed(uint8_spec(image), size_is_open))
    note_surgery(copy, 'uint8_input')
    return copy


def to_class_map(model: onnx.ModelProto, output: str, *, axis: int) -> onnx.ModelProto:
    """Make a copy that answers the best class of each pixel, int32 [batch, height, width], for its logits.

    Args:
        model: stays as it is.
        output: its name; the class map has the same.
        axis: the one of the classes: 1 in [batch, classes, height, width], 3 or -1 where they come last.

    Raises:
        ModelError: the model has no such output, or it does not hold logits along this axis.
    """
    copy = _copy(model)
    graph = copy.graph
    info = next((info for info in graph.output if info.name == output), None)
    if info is None:
        raise ModelError(f'{output}: the model has no such output; it has {_listed(graph.output)}')
    tensor = info.type.tensor_type
    dims = [dim.dim_value or dim.dim_param or None for dim in tensor.shape.dim]
    axis = axis + 4 if axis < 0 else axis
    if tensor.elem_type not in _FLOATS or len(dims) != 4 or axis not in (1, 3) or dims[axis] == 1:
        raise ModelError(
            f'{output}: expected logits [batch, classes, height, width] for axis 1 or [batch, height, width, '
            f'classes] for axis 3 with two classes or more, got {_listed([info])} for axis {axis}'
        )
    if not any(output in node.output for node in graph.node):
        raise ModelError(f'{output}: expected to be computed by the network, but it is an input or constant')
    taken = _names_in(graph)
    logits = _free(f'{_PREFIX}/{output}/logits', taken)
    index = _free(f'{_PREFIX}/{output}/argmax', taken)
    cast = _free(f'{_PREFIX}/{output}/class_map', taken)
    _rename(graph, output, logits)
    graph.node.extend(
        [
            helper.make_node('ArgMax', [logits], [index], name=index, axis=axis, keepdims=0),
            helper.make_node('Cast', [index], [output], name=cast, to=TensorProto.INT32),
        ]
    )
    del dims[axis]
    info.CopyFrom(helper.make_tensor_value_info(output, TensorProto.INT32, dims))
    note_surgery(copy, 'class_map')
    return copy


def can_best_class(model: onnx.ModelProto) -> bool:
    """Tell whether a model's operators are new enough for `to_best_class`."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ('', 'ai.onnx')]
    return bool(versions) and max(versions) >= 10  # Slice and TopK with their settings as inputs


def to_best_class(model: onnx.ModelProto, output: str, *, num_classes: int) -> onnx.ModelProto:
    """Make a copy that answers each box with its best class only: [1, 6, boxes] for [1, 4 + classes, boxes].

    A twentieth of the bytes leaves the network, and nobody searches them for the best class afterwards. It is
    read by the decoder `ultralytics_best`.

    Args:
        model: stays as it is.
        output: its name; the new one has the same.
        num_classes: rows after the four of the box.

    Raises:
        ModelError: the model has no such output.
    """
    copy = _copy(model)
    graph = copy.graph
    info = next((info for info in graph.output if info.name == output), None)
    dims = [dim.dim_value or dim.dim_param or None for dim in info.type.tensor_type.shape.dim] if info else []
    if info is None or len(dims) != 3 or dims[1] != 4 + num_classes:
        raise ModelError(
            f'{output}: expected an output [1, {4 + num_classes}, boxes], '
            f'the model has {_listed(graph.output)}'
        )
    taken = _names_in(graph)

    def name(word: str) -> str:
        return _free(f'{_PREFIX}/{output}/{word}', taken)

    rows, box, scores, best, index, number = map(name, ('rows', 'box', 'scores', 'best', 'index', 'number'))
    starts, middle, end, axis, one = map(name, ('start', 'middle', 'end', 'axis', 'one'))
    _rename(graph, output, rows)
    constants = {starts: [0], middle: [4], end: [4 + num_classes], axis: [1], one: [1]}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(values, np.int64), constant)
        for constant, values in constants.items()
    )
    kind = info.type.tensor_type.elem_type
    graph.node.extend(
        [
            helper.make_node('Slice', [rows, starts, middle, axis], [box], name=box),
            helper.make_node('Slice', [rows, middle, end, axis], [scores], name=scores),
            # Of one, not ArgMax and ReduceMax: their forms differ from opset to opset.
            helper.make_node('TopK', [scores, one], [best, index], name=best, axis=1),
            helper.make_node('Cast', [index], [number], name=number, to=kind),
            helper.make_node('Concat', [box, best, number], [output], name=name('concat'), axis=1),
        ]
    )
    info.CopyFrom(helper.make_tensor_value_info(output, kind, [dims[0], 6, dims[2]]))
    _say(copy, {'decoder': 'ultralytics_best'})
    note_surgery(copy, 'best_class')
    return copy


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make a copy that computes in half precision; its inputs and outputs keep their types.

    What `take_uint8` added stays in float32.

    Raises:
        ModelError: the model is in half precision already, is quantised, or cannot be converted.
    """
    # Imported here: it takes long, and the other operations do without.
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = _copy(model)
    kinds = {node.op_type for node in copy.graph.node}
    if kinds & {'QuantizeLinear', 'DequantizeLinear'}:
        raise ModelError('half precision: the model is quantised; give the one before quantisation')
    if 'float16' in surgeries(copy):
        raise ModelError('half precision: the model was converted already; give the original')
    ours = [node.name for node in copy.graph.node if node.name.startswith(f'{_PREFIX}/')]
    metadata = {entry.key: entry.value for entry in copy.metadata_props}
    try:
        half: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True, node_block_list=ours)
    except Exception as error:  # the converter's exceptions have no common base
        raise ModelError(
            f'half precision: the model cannot be converted: {error}; build it in float32'
        ) from error
    _say(half, metadata)
    note_surgery(half, 'float16')
    return half


def surgeries(model: onnx.ModelProto) -> tuple[str, ...]:
    """Tell what was done to a model here, first to last; empty where nothing was."""
    said = next((entry.value for entry in model.metadata_props if entry.key == SURGERY_KEY), '')
    return tuple(filter(None, said.split(',')))


def note_surgery(model: onnx.ModelProto, name: str) -> None:
    """Write into a model's metadata, in place, what was done to it."""
    done = surgeries(model)
    _say(model, {SURGERY_KEY: ','.join((*done, *(() if name in done else (name,))))})


# ---- the check -----------------------------------------------------------------------------------


def feeds_from(
    frames: Iterable[Frame],
    image: ImageSpec,
    changed_image: ImageSpec,
    *,
    others: Mapping[str, np.ndarray] | None = None,
) -> Iterator[Feed]:
    """Prepare each picture for the original and for the changed model; `others` goes to both."""
    others = dict(others or {})
    preparers = Preparer(image), Preparer(changed_image)
    for frame in frames:
        arrays = []
        for preparer in preparers:
            array = np.zeros(preparer.spec.shape, preparer.spec.dtype)
            preparer(frame, into=array)
            arrays.append({**others, preparer.spec.name: array})
        yield Feed(*arrays)


def check_equal(
    original: onnx.ModelProto,
    changed: onnx.ModelProto,
    feeds: Sequence[Feed],
    *,
    tolerance: Tolerance,
    class_maps: Mapping[str, int] | None = None,
) -> Agreement:
    """Run both models with ONNX Runtime and compare all their outputs.

    Args:
        original: what counts as right.
        changed: what is checked.
        feeds: the pictures, at least one; see `feeds_from`.
        tolerance: the highest differences that pass.
        class_maps: the class axis of the logits of each output that is now a class map. There the difference
            is by how much the original prefers its own class to the one that is answered.

    Raises:
        ModelError: they differ by more, or in the names or shapes of their outputs.
        SessionError: one of them fails.
    """
    if not feeds:
        raise ModelError('check of a changed model: expected at least one picture, got none')
    total = Agreement()
    wanted = _answers(original, [feed.original for feed in feeds])
    got = _answers(changed, [feed.changed for feed in feeds])
    for wants, gets in zip(wanted, got):
        if wants.keys() != gets.keys():
            raise ModelError(f'the changed model: expected outputs {", ".join(wants)}, got {", ".join(gets)}')
        for name, want in wants.items():
            found = _compare(name, want, gets[name], (class_maps or {}).get(name))
            # written so that NaN fails too
            if not (found.max_rel <= tolerance.max_rel and found.mean_rel <= tolerance.mean_rel):
                raise ModelError(
                    f'output {name} of the changed model differs from the original: expected at most '
                    f'{tolerance.max_rel:g} relative and {tolerance.mean_rel:g} in the mean, '
                    f'got {found.max_rel:.3g} and {found.mean_rel:.3g} (up to {found.max_abs:.3g} absolute)'
                )
            total = Agreement(*map(max, astuple(total), astuple(found)))
    return total


def _compare(name: str, want: np.ndarray, got: np.ndarray, class_axis: int | None) -> Agreement:
    want = want.astype(np.float64)
    if class_axis is not None:
        shape = list(want.shape)
        classes = shape.pop(class_axis)
        if (
            list(got.shape) != shape
            or got.dtype.kind != 'i'
            or got.size
            and not 0 <= got.min() <= got.max() < classes
        ):
            raise ModelError(
                f'output {name} of the changed model: expected classes 0 to {classes - 1} in {shape}, '
                f'got {got.dtype}{list(got.shape)}'
            )
        got = np.take_along_axis(want, np.expand_dims(got, class_axis), class_axis).squeeze(class_axis)
        want = want.max(axis=class_axis)
    if want.shape != got.shape:
        raise ModelError(
            f'output {name} of the changed model: expected shape {list(want.shape)}, got {list(got.shape)}'
        )
    if not want.size:
        return Agreement()
    got = got.astype(np.float64)
    # The same NaN or infinity is no difference: outputs that nobody reads may hold anything.
    is_same = (want == got) | np.isnan(want) & np.isnan(got)
    with np.errstate(invalid='ignore'):
        difference = np.where(is_same, 0, np.abs(want - got))
        relative = np.where(is_same, 0, difference / (1 + np.abs(want)))
    return Agreement(
        max_abs=float(difference.max()),
        max_rel=float(relative.max()),
        mean_abs=float(difference.mean()),
        mean_rel=float(relative.mean()),
    )


def _answers(
    model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    """Run a model with ONNX Runtime; the answers are the caller's."""
    from isaac_infer.engine.ort import OrtSession

    with working_folder('surgery') as folder:
        path = folder / 'model.onnx'
        save_model(model, path)
        with OrtSession(path) as session:
            for feed in feeds:
                for name, array in feed.items():
                    session.input_buffer(name, array.shape)[...] = array
                yield {name: array.copy() for name, array in session.run().items()}


# ---- files ---------------------------------------------------------------------------------------


def load_model(path: Path) -> onnx.ModelProto:
    """Read a model with its external weights.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return onnx.load(os.fspath(path))
    except Exception as error:  # protobuf's, onnx's and the system's have no common base
        raise ModelError(f'{path}: cannot be read as an ONNX model: {error}') from error


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model so that a reader finds the old file or the new one, never a part.

    Raises:
        ModelError: it is too large for one file, or cannot be written there.
    """
    try:
        data = model.SerializeToString()
    except Exception as error:  # protobuf's own, of another base in each version
        raise ModelError(
            f'{path}: this model cannot be written as one file (limit 2 GiB): {error}'
        ) from error
    try:
        replace_file(path, data)
    except OSError as error:
        raise ModelError(f'{path}: cannot be written: {error.strerror}') from error


# ---- the graph -----------------------------------------------------------------------------------


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    version = next((opset.version for opset in model.opset_import if opset.domain in ('', 'ai.onnx')), 0)
    if version < OLDEST_OPSET:
        raise ModelError(f'the model is of opset {version}; export it with {OLDEST_OPSET} or newer')
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _image_input(graph: onnx.GraphProto, image: ImageSpec) -> onnx.ValueInfoProto:
    constants = {tensor.name for tensor in graph.initializer}  # which old models list as inputs, too
    inputs = [info for info in graph.input if info.name not in constants]
    info: onnx.ValueInfoProto | None = next((info for info in inputs if info.name == image.name), None)
    if info is None:
        raise ModelError(f'{image.name}: the model has no such input; it has {_listed(inputs)}')
    if _FLOATS.get(info.type.tensor_type.elem_type) is None or len(info.type.tensor_type.shape.dim) != 4:
        raise ModelError(
            f'{image.name}: expected a picture of float32 or float16 numbers, got {_listed([info])}; '
            f'a model that takes pixels needs no change'
        )
    if any(info.name == image.name for info in graph.output):
        raise ModelError(f'{image.name}: expected an input, but it is an output as well')
    return info


def _folded(image: ImageSpec) -> tuple[np.ndarray, np.ndarray]:
    """Factor and offset per channel for (pixel * scale - mean) / std, to be broadcast."""
    mean, std = (
        np.broadcast_to(np.asarray(value, np.float64), (image.channels,)) for value in (image.mean, image.std)
    )
    shape = (1, image.channels, 1, 1) if image.layout == 'nchw' else (1, 1, 1, image.channels)
    # Folded in double precision, so that each constant is rounded only once.
    factor, offset = image.scale / std, -mean / std
    return factor.astype(np.float32).reshape(shape), offset.astype(np.float32).reshape(shape)


def _fed(image: ImageSpec, size_is_open: bool) -> dict[str, str]:
    """This package's own metadata keys that say how a model is fed."""
    said = {
        'scale': repr(image.scale),
        'mean': repr(list(image.mean)),
        'std': repr(list(image.std)),
        'input_layout': image.layout,
        'channel_order': image.channel_order,
        'resize': image.resize,
        'scale_up': next(word for word, value in SCALE_UP.items() if value == image.scale_up),
        'pad_value': str(image.pad_value),
    }
    return {**said, 'input_size': repr(list(image.size_hw))} if size_is_open else said


def _say(model: onnx.ModelProto, said: Mapping[str, str]) -> None:
    """Write metadata in place, over what was there under the same keys."""
    merged = {entry.key: entry.value for entry in model.metadata_props} | dict(said)
    helper.set_model_props(model, merged)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those inside its If, Loop and Scan nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _graphs(inner)


def _names_in(graph: onnx.GraphProto) -> set[str]:
    names = {tensor.name for tensor in (*graph.input, *graph.output, *graph.initializer)}
    for part in _graphs(graph):
        for node in part.node:
            names.update((node.name, *node.input, *node.output))
    return names


def _free(name: str, taken: set[str]) -> str:
    """Give a name that nothing has yet, and take it."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f'{name}_{number}'
    taken.add(free)
    return free


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a tensor wherever nodes write or read it, those of inner graphs included."""
    for part in _graphs(graph):
        for node in part.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == old:
                        names[index] = new


def _put_first(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Put nodes before all others: every reader wants them in the order of computation."""
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *others])


def _listed(infos: Iterable[onnx.ValueInfoProto]) -> str:
    def one(info: onnx.ValueInfoProto) -> str:
        tensor = info.type.tensor_type
        lengths = ', '.join(str(dim.dim_value or dim.dim_param or '?') for dim in tensor.shape.dim)
        return f'{info.name} {TensorProto.DataType.Name(tensor.elem_type).lower()}[{lengths}]'

    return ', '.join(map(one, infos)) or 'none'
