import json
import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from compare_command import compare, report_of
from full_disk import full_disk
from onnx import TensorProto, helper, numpy_helper

from isaac_infer.cli.main import main
from isaac_infer.cli.truth import read_truth
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.scenes import draw_scene
from isaac_infer.core.seeds import FIRST_HELD_OUT_SEED
from isaac_infer.core.shapes import CLASS_NAMES
from isaac_infer.engine.cuda import device_problem
from models import (
    save_colour_detector,
    save_constant_detector,
    save_model,
    ultralytics_metadata,
    ultralytics_output,
)

MODEL = Path(__file__).resolve().parents[2] / 'models' / 'tabletop_detector.onnx'
FEW = 3  # pictures


def save_perturbed(path: Path, *, noise: float) -> Path:
    """Write the shipped detector with every weight of its convolutions off by this share."""
    rng = np.random.default_rng(0)
    model = onnx.load(MODEL)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            wrong = values * (1 + noise * rng.standard_normal(values.shape))
            tensor.CopyFrom(numpy_helper.from_array(wrong.astype(np.float32), tensor.name))
    onnx.save(model, path)
    return path


def save_nan_where_bright(path: Path) -> Path:
    """Write a model of one class that finds nothing in dark pictures and answers NaN to white ones."""
    output = ultralytics_output([], classes=1)
    return save_model(
        path,
        [
            helper.make_node('ReduceMean', ['images'], ['mean'], axes=[1, 2, 3], keepdims=0),
            helper.make_node('Sub', ['limit', 'mean'], ['room']),
            helper.make_node('Sqrt', ['room'], ['number']),  # NaN of what is below 0
            helper.make_node('Mul', ['number', 'value'], ['output0']),
        ],
        {'images': (TensorProto.FLOAT, (1, 3, 64, 64))},
        {'output0': (TensorProto.FLOAT, output.shape)},
        constants={'limit': np.array([0.6], np.float32), 'value': output},
        metadata=ultralytics_metadata(['thing']),
    )


@pytest.fixture(scope='module')
def near(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_perturbed(tmp_path_factory.mktemp('near') / 'near.onnx', noise=0.001)


@pytest.fixture(scope='module')
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_perturbed(tmp_path_factory.mktemp('broken') / 'broken.onnx', noise=0.5)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn scenes, and truth.json beside it in COCO's form, with gaps in the numbers."""
    place = tmp_path_factory.mktemp('scenes')
    folder = place / 'pictures'
    folder.mkdir()
    images, annotations = [], []
    for number in range(FEW):
        scene = draw_scene(FIRST_HELD_OUT_SEED + number)
        name = f'{number}.png'
        assert cv2.imwrite(str(folder / name), scene.image)
        images.append({'id': 100 + number, 'file_name': f'val/{name}'})
        for class_id, (left, top, right, bottom) in zip(
            scene.class_id.tolist(), scene.boxes_xyxy.tolist(), strict=True
        ):
            box = [left, top, right - left, bottom - top]
            annotations.append({'image_id': 100 + number, 'category_id': 7 + 2 * class_id, 'bbox': box})
    categories = [{'id': 7 + 2 * number, 'name': name} for number, name in enumerate(CLASS_NAMES)]
    truth = {'images': images, 'annotations': annotations, 'categories': categories[::-1]}
    (place / 'truth.json').write_text(json.dumps(truth))
    return folder


@pytest.fixture
def dark_and_white(tmp_path: Path) -> Path:
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for name, value in (('dark', 0), ('white', 255)):
        assert cv2.imwrite(str(folder / f'{name}.png'), np.full((64, 64, 3), value, np.uint8))
    return folder


def test_a_model_agrees_with_itself_perfectly(scenes: Path, tmp_path: Path) -> None:
    report = report_of(
        0, tmp_path, MODEL, MODEL, '--source', scenes, '--min-iou', 1, '--max-score-difference', 0
    )
    assert (report['pictures'], report['holds'], report['truth']) == (FEW, True, None)
    for variant in report['variants']:
        agreed = variant['agreement']
        assert agreed['expected'] == agreed['found'] > 0
        assert (agreed['extra'], agreed['share'], agreed['worst_iou']) == (0, 1, 1)
        assert agreed['worst_score_difference'] == 0
        assert variant['run_ms']['count'] == variant['picture_ms']['count'] == FEW
        assert variant['score'] is None
    assert report['variants'][0]['speed_up'] == 1


def test_a_near_variant_holds_and_a_broken_one_does_not(
    near: Path, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_of(1, tmp_path, MODEL, near, broken, '--source', 'synthetic', '--scenes', FEW)
    missed = {check['model'] for check in report['checks'] if not check['holds']}
    assert missed == {'broken.onnx'}
    assert {check['model'] for check in report['checks']} == {'near.onnx', 'broken.onnx'}
    usual, close, wrong = (variant['score']['ap50_95'] for variant in report['variants'])
    assert usual > 0.85 and close > 0.85 and wrong < 0.5
    shown = capsys.readouterr().out
    for text in ('mAP50-95', 'missed', 'verdict', 'thresholds missed'):
        assert text in shown


def test_several_sources_are_compared_one_after_the_other(scenes: Path, tmp_path: Path) -> None:
    pictures = [scenes / f'{number}.png' for number in range(FEW)]
    truth = '--truth', scenes.parent / 'truth.json'
    sources = '--source', pictures[2], pictures[0], '--source', pictures[1]
    several, whole = (
        report_of(0, tmp_path, MODEL, *source, *truth) for source in (sources, ('--source', scenes))
    )
    assert several['pictures'] == several['pictures_with_truth'] == FEW
    assert several['variants'][0]['score'] == pytest.approx(whole['variants'][0]['score'])
    assert several['source'] == f'{pictures[2]}, {pictures[0]}, {pictures[1]}'


def test_what_is_special_about_a_model_is_a_note(dark_and_white: Path, tmp_path: Path) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx')
    model.with_suffix('.yaml').write_text('channel_order: bgr')
    notes = report_of(0, tmp_path, model, model, '--source', dark_and_white, '--min-agreement', 0)['notes']
    assert len([note for note in notes if 'colours.yaml' in note and 'channel_order' in note]) == 1


def test_pictures_of_one_name_are_refused_where_truth_goes_by_names(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copy(scenes / '1.png', tmp_path)
    assert compare(MODEL, '--source', scenes, other, '--truth', scenes.parent / 'truth.json') == 2
    assert 'expected pictures of different names, got one of them twice' in capsys.readouterr().err


def test_a_near_variant_alone_holds(near: Path, scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(MODEL, near, '--source', scenes) == 0
    assert 'verdict: all thresholds hold' in capsys.readouterr().out


def test_truth_of_a_file_is_the_truth_of_the_scenes_it_was_made_of(scenes: Path, tmp_path: Path) -> None:
    of_file = report_of(0, tmp_path, MODEL, '--source', scenes, '--truth', scenes.parent / 'truth.json')
    drawn = report_of(0, tmp_path, MODEL, '--source', 'synthetic', '--scenes', FEW)
    assert of_file['pictures_with_truth'] == drawn['pictures_with_truth'] == FEW
    assert of_file['variants'][0]['score'] == pytest.approx(drawn['variants'][0]['score'])
    assert of_file['variants'][0]['score']['ap50'] > 0.9


def test_the_metric_is_evaluate_s(tmp_path: Path) -> None:
    evaluated = tmp_path / 'evaluate.json'
    assert main(['evaluate', '--model', str(MODEL), '--scenes', str(FEW), '--json', str(evaluated)]) == 0
    score = report_of(0, tmp_path, MODEL, '--source', 'synthetic', '--scenes', FEW)['variants'][0]['score']
    wanted = json.loads(evaluated.read_text())
    assert score == pytest.approx({name: wanted[name] for name in ('ap50', 'ap50_95')})


@pytest.mark.parametrize(
    'threshold',
    [('--min-iou', 0.9999), ('--min-mean-iou', 1), ('--max-score-difference', 0), ('--min-speed-up', 1000)],
)
def test_a_threshold_that_is_asked_for_is_checked(
    threshold: tuple[str, float], near: Path, scenes: Path, tmp_path: Path
) -> None:
    report = report_of(1, tmp_path, MODEL, near, '--source', scenes, *threshold)
    (missed,) = (check for check in report['checks'] if not check['holds'])
    assert missed['model'] == 'near.onnx'
    assert missed['wanted'].endswith(f' {threshold[1]:g}')


def test_a_reference_that_finds_nothing_proves_nothing(scenes: Path) -> None:
    blind = '--source', scenes, '--confidence-threshold', 1
    assert compare(MODEL, MODEL, *blind) == 1


def test_a_variant_that_does_not_open_fails_and_the_others_are_compared(
    near: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / 'cut.onnx'
    cut.write_bytes(MODEL.read_bytes()[:1000])
    report = report_of(1, tmp_path, MODEL, cut, near, '--source', scenes)
    assert [bool(variant['failure']) for variant in report['variants']] == [False, True, False]
    assert [check['model'] for check in report['checks'] if not check['holds']] == ['cut.onnx']
    assert capsys.readouterr().err.count('cut.onnx') == 1


def test_a_variant_that_fails_in_the_middle_is_out(dark_and_white: Path, tmp_path: Path) -> None:
    fine = save_constant_detector(
        tmp_path / 'fine.onnx',
        {'output0': ultralytics_output([(32, 32, 8, 8, 0, 0.9)], classes=1)},
        metadata=ultralytics_metadata(['thing']),
    )
    fragile = save_nan_where_bright(tmp_path / 'fragile.onnx')
    report = report_of(1, tmp_path, fine, fragile, '--source', dark_and_white)
    assert 'white.png' in report['variants'][1]['failure']
    assert report['variants'][1]['run_ms'] is None
    assert report['variants'][0]['agreement']['found'] == 2
    assert compare(fragile, fine, '--source', dark_and_white) == 1  # nothing to compare with


def test_a_picture_that_cannot_be_read_is_said_and_the_others_are_compared(
    dark_and_white: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dark_and_white / 'no.png').write_bytes(b'not a picture')
    model = save_colour_detector(tmp_path / 'colours.onnx')
    report = report_of(1, tmp_path, model, model, '--source', dark_and_white)
    assert (report['pictures'], report['unread'], report['holds']) == (2, 1, True)
    assert 'no.png' in capsys.readouterr().err


def test_the_plot_is_a_picture_with_a_dot_for_each_variant(near: Path, scenes: Path, tmp_path: Path) -> None:
    one, two = tmp_path / 'new' / 'one.png', tmp_path / 'two.png'
    assert compare(MODEL, '--source', scenes, '--plot', one) == 0
    assert compare(MODEL, near, '--source', scenes, '--plot', two) == 0
    coloured = [int((np.ptp(cv2.imread(str(path)), axis=2) > 60).sum()) for path in (one, two)]
    assert 0 < coloured[0] < coloured[1]


def texts_of_legend(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What every legend shows from now on."""
    figure = pytest.importorskip('matplotlib.figure')
    shown: list[str] = []
    legend = figure.Figure.legend

    def noted(*arguments: Any, **options: Any) -> Any:
        made = legend(*arguments, **options)
        shown.extend(text.get_text() for text in made.get_texts())
        return made

    monkeypatch.setattr(figure.Figure, 'legend', noted)
    return shown


def test_the_plot_has_a_title_ends_at_the_best_and_names_what_failed(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = pytest.importorskip('matplotlib.figure')
    saved: list[Any] = []
    save = figure.Figure.savefig

    def kept(drawn: Any, *arguments: Any, **options: Any) -> None:
        saved.append(drawn)
        save(drawn, *arguments, **options)

    monkeypatch.setattr(figure.Figure, 'savefig', kept)
    cut = tmp_path / 'cut.onnx'
    cut.write_bytes(MODEL.read_bytes()[:1000])
    plot = '--plot', tmp_path / 'plot.png'
    assert compare(MODEL, cut, '--source', scenes, *plot) == 1
    truth = '--truth', scenes.parent / 'truth.json'
    assert compare(MODEL, '--source', scenes, *truth, *plot) == 0
    agreement, scores = (each.axes[0] for each in saved)
    assert (agreement.get_title(), scores.get_title()) == (
        '2 models, 3 pictures',
        f'{MODEL.name}, 3 pictures',
    )
    assert (agreement.get_ylim()[1], scores.get_ylim()[1] <= 1) == (100, True)
    (legend,) = saved[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [MODEL.name, 'cut.onnx: failed']


def test_every_name_of_a_model_is_in_the_legend_and_none_makes_noise(
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = texts_of_legend(monkeypatch)
    names = ['_hidden.onnx', '日本.onnx', 'm$x^_{.onnx', 'a' * 100 + 'b' * 95 + '.onnx']
    models = [shutil.copy(MODEL, tmp_path / name) for name in names]
    assert compare(*models, '--source', scenes, '--plot', tmp_path / 'plot.png') == 0
    labels = [text.strip().replace('\\$', '$') for text in shown]
    assert labels == [*names[:3], 'a' * 20 + '...' + 'b' * 15 + '.onnx']
    assert not [warning for warning in recwarn if 'matplotlib' in warning.filename or 'Glyph' in str(warning)]
    assert 'Warning' not in capsys.readouterr().err


def test_a_plot_replaces_a_plot_and_no_other_picture(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot, photo = tmp_path / 'plot.png', tmp_path / 'photo.png'
    assert cv2.imwrite(str(photo), np.zeros((50, 50, 3), np.uint8))
    before = photo.read_bytes()
    plot.touch()
    for _ in range(2):
        assert compare(MODEL, '--source', scenes, '--plot', plot) == 0
    assert cv2.imread(str(plot)) is not None
    capsys.readouterr()
    assert compare(MODEL, '--source', scenes, '--plot', photo) == 2
    assert f'--plot {photo}: exists and is no such plot; give another file' in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_the_plot_is_not_written_over_the_report(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'link').symlink_to(tmp_path)
    report = tmp_path / 'x.PNG'
    for plot in (report, tmp_path / 'link' / 'x.PNG'):
        assert compare(MODEL, '--source', scenes, '--json', report, '--plot', plot) == 2
        assert f'--plot {plot}: is the file of --json, too' in capsys.readouterr().err
    assert not report.exists()


@pytest.mark.parametrize('is_there', [False, True])
def test_a_plot_that_cannot_be_written_is_named_and_leaves_the_old_one(
    is_there: bool,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plot = tmp_path / 'plots' / 'plot.png'
    if is_there:
        assert compare(MODEL, '--source', scenes, '--plot', plot) == 0
    before = plot.read_bytes() if is_there else None
    with full_disk():
        assert compare(MODEL, '--source', scenes, '--plot', plot) == 2
    assert f'--plot {plot}: cannot be written: File too large' in capsys.readouterr().err
    assert [path.read_bytes() for path in plot.parent.iterdir()] == ([before] if is_there else [])


def test_json_on_standard_output_stands_there_alone(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(MODEL, '--source', scenes, '--json', '-') == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)['pictures'] == FEW
    assert printed.err.startswith('note: nothing to compare with: give a second model')  # before it runs


def test_one_model_is_measured_by_the_truth_and_lacks_nothing(
    scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(MODEL, '--source', scenes, '--truth', scenes.parent / 'truth.json') == 0
    printed = capsys.readouterr().out
    assert printed.endswith('verdict: one model, measured by the truth\n')
    assert 'give a second model' not in printed


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        (['--source', 'synthetic', '--scenes', '0'], 'scenes: expected at least 1, got 0'),
        (['--source', 'synthetic', '--iou', '0'], 'iou: expected more than 0'),
        (['--source', 'synthetic', '--iou', '1.5'], 'iou: expected 0 to 1, got 1.5'),
        (['--source', 'synthetic', '--min-agreement', 'nan'], 'min-agreement: expected 0 to 1, got nan'),
        (['--source', 'synthetic', '--min-speed-up', '-1'], 'min-speed-up: expected a number of at least 0'),
        (['--source', 'synthetic', '--truth', 'x.json'], 'truth: drawn scenes bring their own'),
        (
            ['--source', 'synthetic', '--class-filter', 'mug'],
            'class_filter: expected none where truth is known',
        ),
        ([], 'source: expected pictures, got none'),
        (['--source', 'synthetic:humanoids'], 'got synthetic:humanoids; give synthetic alone'),
        (
            ['--precisions', 'fp32,fp61', '--source', 'synthetic'],
            'precisions: expected some of fp32, fp16, bf16',
        ),
        (['--backends', 'triton', '--source', 'synthetic'], 'backends: expected some of auto, onnxruntime'),
        (['--source', 'synthetic', '--plot', 'x.jpg'], '--plot x.jpg: expected a name that ends in .png'),
        (['--source', 'synthetic', '--json', '/'], '--json /: expected a file, got a folder'),
    ],
)
def test_a_bad_option_is_refused_in_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(MODEL, *arguments) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count('\n') == 1


@pytest.mark.parametrize(
    ('text', 'complaint'),
    [
        (None, 'cannot be read: No such file'),
        ('no json', 'expected JSON with lists of images, annotations, categories'),
        ('[]', 'expected JSON with lists of images, annotations, categories'),
        ('{"images": []}', 'expected JSON with lists of images, annotations, categories'),
        ('{"images": [], "annotations": {}, "categories": []}', 'expected a list of annotations'),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', 'expected entries as COCO has them'),
        (
            '{"images": [], "annotations": [{"image_id": 9, "bbox": [0, 0, 1, 1]}], "categories": []}',
            'expected entries as COCO has them',
        ),
        (
            json.dumps(
                {
                    'images': [{'id': 1, 'file_name': 'a/x.png'}, {'id': 2, 'file_name': 'b/x.png'}],
                    'annotations': [],
                    'categories': [],
                }
            ),
            'expected different file names',
        ),
        (
            '{"images": [{"id": 1, "file_name": "other.png"}], "annotations": [], "categories": []}',
            'names none of the pictures',
        ),
    ],
)
def test_truth_that_is_none_is_refused_in_one_line(
    text: str | None, complaint: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / 'truth.json'
    if text is not None:
        truth.write_text(text)
    assert compare(MODEL, '--source', scenes, '--truth', truth) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count('\n') == 1


BUS, PERSON = {'id': 7, 'name': 'bus'}, {'id': 1, 'name': 'person'}


@pytest.mark.parametrize(
    ('changed', 'complaint'),
    [
        ({'bbox': []}, 'annotation 1: expected bbox [left, top, width, height] and area, finite'),
        ({'bbox': '1234'}, 'got bbox "1234"'),
        ({'bbox': ['1', '2', '3', '4']}, 'got bbox ["1", "2", "3", "4"]'),
        ({'bbox': [0, 0, True, 1]}, 'got bbox [0, 0, true, 1]'),
        ({'bbox': [0, 0, -5, 5]}, 'got bbox [0, 0, -5, 5]'),
        ({'bbox': [0, 0, 5, -5]}, 'got bbox [0, 0, 5, -5]'),
        ({'bbox': [1e308, 0, 1e308, 1]}, 'got bbox [1e+308, 0, 1e+308, 1]'),
        ({'bbox': [0, 1e308, 1, 1e308]}, 'got bbox [0, 1e+308, 1, 1e+308]'),
        ({'bbox': [0, 0, 1e200, 1e200]}, 'got bbox [0, 0, 1e+200, 1e+200]'),
        ({'bbox': [0, 0, 1, math.inf]}, 'got bbox [0, 0, 1, Infinity]'),
        ({'bbox': [0] * 9999}, 'got bbox [0, 0, 0, '),
        ({'area': math.inf}, 'area Infinity'),
        ({'area': math.nan}, 'area NaN'),
        ({'area': -1}, 'area -1'),
        ({'area': '4'}, 'area "4"'),
        ({'iscrowd': 2}, 'iscrowd 2'),
        ({'category_id': 99}, 'annotation 1: expected category_id as one of the ids there, got 99'),
        ({'image_id': 99}, 'annotation 1: expected image_id as one of the ids there, got 99'),
        ({'categories': [BUS, PERSON, {**BUS, 'id': 9}]}, 'expected different names of categories'),
        ({'categories': [BUS, PERSON, {**BUS, 'name': 'x'}]}, 'expected different ids of categories'),
        (
            {'images': [{'id': 1, 'file_name': 'a.png'}, {'id': 1, 'file_name': 'b.png'}]},
            'expected different ids of images',
        ),
    ],
)
def test_truth_that_would_give_wrong_numbers_is_refused(
    changed: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    truth = {'images': [{'id': 1, 'file_name': 'a.png'}], 'categories': [BUS, PERSON]}
    annotation = {'image_id': 1, 'category_id': 7, 'bbox': [0, 0, 4, 0.5]}
    place = tmp_path / 'truth.json'
    place.write_text(json.dumps({**truth, 'annotations': [annotation]}))
    (known,) = read_truth(place).objects['a.png']
    assert known == {'category_id': 1, 'bbox': [0, 0, 4, 0.5], 'area': 2, 'iscrowd': 0}
    for key, value in changed.items():
        (truth if key in truth else annotation)[key] = value
    place.write_text(json.dumps({**truth, 'annotations': [annotation]}))
    with pytest.raises(ParameterError) as raised:
        read_truth(place)
    assert complaint in str(raised.value)
    assert len(str(raised.value)) < 500


def test_truth_of_other_classes_is_refused(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_colour_detector(tmp_path / 'colours.onnx')
    assert compare(model, '--source', scenes, '--truth', scenes.parent / 'truth.json') == 2
    assert 'got red, green, blue' in capsys.readouterr().err
    unnamed = save_colour_detector(tmp_path / 'unnamed.onnx', metadata={'task': 'detect'})
    assert compare(unnamed, '--source', scenes, '--truth', scenes.parent / 'truth.json') == 2
    assert 'got 3 classes without names; name them, or say by --task' in capsys.readouterr().err


def test_neither_model_nor_picture_nor_truth_is_overwritten(scenes: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(scenes.parent, tmp_path / 'copy'))
    model = Path(shutil.copy(MODEL, place / 'copy.onnx'))
    before = {path: path.read_bytes() for path in place.rglob('*') if path.is_file()}
    usual = model, '--source', place / 'pictures', '--truth', place / 'truth.json'
    for option, file in (
        ('--json', model),
        ('--json', place / 'copy.json'),  # the model's sidecar
        ('--json', place / 'truth.json'),
        ('--json', place / 'pictures' / '0.png'),
        ('--plot', place / 'pictures' / '0.png'),
        ('--plot', place / 'pictures' / 'new.png'),
    ):
        assert compare(*usual, option, file) == 2
    assert {path: path.read_bytes() for path in place.rglob('*') if path.is_file()} == before


def test_a_model_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(MODEL, 'nowhere.onnx', '--source', 'synthetic') == 1
    assert 'nowhere.onnx: no such model file' in capsys.readouterr().err


def labels(report: dict[str, Any]) -> list[tuple[str, str]]:
    return [(row['precision'], row['backend'].split()[0]) for row in report['variants']]


def test_one_model_is_compared_in_several_precisions_with_itself_in_fp32(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = '--precisions', 'fp16', '--backends', 'onnxruntime'
    report = report_of(0, tmp_path, MODEL, *several, '--source', scenes)
    assert labels(report) == [('fp32', 'onnxruntime'), ('fp16', 'onnxruntime')]
    usual, half = (row['agreement'] for row in report['variants'])
    assert (usual['share'], usual['mean_iou']) == (1, 1)
    assert half['share'] == 1 and 0.9 < half['mean_iou'] < 1  # rounded, so it is another network
    assert {check['model'] for check in report['checks']} == {'fp16 onnxruntime'}
    shown = capsys.readouterr().out
    assert 'fp16 onnxruntime' in shown and f'model: {MODEL}\n' in shown


def test_a_model_has_no_needless_steps_up_in_its_path(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'here').mkdir()
    shutil.copy(MODEL, tmp_path / 'm.onnx')
    monkeypatch.chdir(tmp_path / 'here')
    (row,) = report_of(0, tmp_path, '../m.onnx', '--source', scenes)['variants']
    assert row['model'] == str(tmp_path / 'm.onnx')


def test_a_step_up_from_behind_a_link_is_left_as_it_is(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'far' / 'away').mkdir(parents=True)
    shutil.copy(MODEL, tmp_path / 'far' / 'm.onnx')
    (tmp_path / 'link').symlink_to(tmp_path / 'far' / 'away')
    monkeypatch.chdir(tmp_path)
    (row,) = report_of(0, tmp_path, 'link/../m.onnx', '--source', scenes)['variants']
    assert Path(row['model']).samefile(tmp_path / 'far' / 'm.onnx')


# Whether INT8 is good enough is not what these tests ask.
IN_INT8 = '--precisions', 'int8', '--backends', 'onnxruntime', '--min-agreement', 0, '--max-extra', 1000


def test_int8_is_calibrated_on_pictures_and_what_flatters_it_is_said(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = '--calibration-path', scenes, '--calibration', 'entropy'
    report = report_of(0, tmp_path, MODEL, *IN_INT8, '--source', scenes, *other)
    assert not report['variants'][1]['failure']
    assert report['variants'][1]['agreement']['mean_iou'] < 1
    notes = '\n'.join(report['notes'])
    assert f'calibrated on {FEW} of the {FEW} files of {scenes}' in notes
    assert 'calibration entropy is one of TensorRT' in notes
    assert f'calibrating on {FEW} pictures; some hundred are wanted' in capsys.readouterr().err


def test_int8_that_is_calibrated_on_other_pictures_is_not_flattered(scenes: Path, tmp_path: Path) -> None:
    other = tmp_path / 'other'
    other.mkdir()
    shutil.copy(scenes / '1.png', other)
    report = report_of(0, tmp_path, MODEL, *IN_INT8, '--source', scenes, '--calibration-path', other)
    assert not any('calibrat' in note for note in report['notes'])


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        (('--precisions', 'fp16,int8'), 'int8 needs'),
        (('--precisions', 'int8', '--calibration-path', 'nowhere'), "got 'nowhere'"),
        (('--precisions', 'fp32,bf16'), 'expected some of fp32, fp16, int8 on ONNX Runtime, got bf16'),
        (
            ('--precisions', 'int8', '--calibration-path', 'broken'),
            'got 2 that cannot be read; first: broken/',
        ),
        (
            ('--precisions', 'int8', '--backends', 'tensorrt', '--calibration-path', 'broken'),
            'got 2 that cannot be read; first: broken/',
        ),
        (('--precisions', 'fp8', '--backends', 'tensorrt,onnxruntime'), 'on ONNX Runtime, got fp8'),
        (('--precisions', 'int8', '--backends', 'tensorrt'), 'int8 needs'),
    ],
)
def test_a_precision_that_cannot_be_had_is_refused_before_any_picture_is_looked_at(
    arguments: tuple[str, ...],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'broken').mkdir()
    for name in ('a.png', 'b.png'):
        (tmp_path / 'broken' / name).write_text('no picture')
    monkeypatch.chdir(tmp_path)
    backend = () if '--backends' in arguments else ('--backends', 'onnxruntime')
    assert compare(MODEL, *arguments, *backend, '--source', 'nowhere') == 2
    said = capsys.readouterr()
    assert complaint in said.err and not said.out


@pytest.mark.skipif(not device_problem(), reason='there is a GPU')
def test_what_cannot_be_built_here_fails_with_its_reason_and_the_rest_is_compared(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = '--precisions', 'fp32,fp16', '--backends', 'onnxruntime,tensorrt'
    report = report_of(1, tmp_path, MODEL, *several, '--source', scenes)
    assert labels(report) == [
        ('fp32', 'onnxruntime'),
        ('fp16', 'onnxruntime'),
        ('fp32', 'tensorrt'),
        ('fp16', 'tensorrt'),
    ]
    assert [bool(row['failure']) for row in report['variants']] == [False, False, True, True]
    assert 'cannot be used' in report['variants'][2]['failure']
    missed = {check['model'] for check in report['checks'] if not check['holds']}
    assert missed == {'fp32 tensorrt', 'fp16 tensorrt'}
    told = capsys.readouterr()
    assert f'{MODEL} fp16 tensorrt: TensorRT cannot be used' in told.err
    assert (told.out + told.err).count('backend: onnxruntime') == 1  # what helps, in full


def test_a_precision_that_nobody_uses_is_said(scenes: Path, tmp_path: Path) -> None:
    usual = MODEL, '--backend', 'onnxruntime', '--source', scenes
    (note,) = (
        note for note in report_of(0, tmp_path, *usual, '--precision', 'int8')['notes'] if 'int8' in note
    )
    assert note.startswith('precision int8 concerns TensorRT and was not used')
    assert not any('was not used' in note for note in report_of(0, tmp_path, *usual)['notes'])


def test_facts_beside_a_model_count_for_its_other_precisions(scenes: Path, tmp_path: Path) -> None:
    model = onnx.load(MODEL)
    names = next(entry.value for entry in model.metadata_props if entry.key == 'names')
    del model.metadata_props[:]
    bare = tmp_path / 'models' / 'bare.onnx'
    bare.parent.mkdir()
    onnx.save(model, bare)
    facts = {'decoder': 'ultralytics', 'names': names}
    bare.with_suffix('.json').write_text(json.dumps(facts))
    several = '--precisions', 'fp32,fp16', '--backends', 'onnxruntime'
    report = report_of(0, tmp_path, bare, *several, '--source', scenes)
    assert labels(report) == [('fp32', 'onnxruntime'), ('fp16', 'onnxruntime')]


def test_an_engine_has_no_other_precisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = tmp_path / 'a.engine'
    engine.write_bytes(b'ftrt')
    assert compare(engine, '--precisions', 'fp16', '--source', 'synthetic') == 2
    assert 'expected an ONNX model first' in capsys.readouterr().err


def test_build_only_compares_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(MODEL, '--build-only', '--backend', 'onnxruntime') == 0
    assert 'nothing to build' in capsys.readouterr().out


@pytest.mark.skipif(not device_problem(), reason='there is a GPU')
def test_build_only_builds_what_would_be_compared_and_says_what_it_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = '--precisions', 'fp32,fp16', '--backends', 'onnxruntime,tensorrt'
    report = report_of(1, tmp_path, MODEL, *several, '--build-only')
    assert len(report['opened']) == 2
    assert all('cannot be used' in each['failure'] for each in report['opened'])


@pytest.mark.skipif(not device_problem(), reason='there is a GPU')
@pytest.mark.parametrize(
    ('asked', 'code'),
    [
        ((), 1),
        (('--backends', 'auto'), 1),
        (('--backends', 'onnxruntime'), 0),
        (('--backend', 'onnxruntime'), 0),
    ],
)
def test_build_only_of_precisions_fails_where_onnx_runtime_takes_them_unasked(
    asked: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    report = report_of(code, tmp_path, MODEL, '--precisions', 'fp16', *asked, '--build-only')
    (opened,) = report['opened']
    assert ('no engine was built: TensorRT cannot be used' in opened.get('failure', '')) == bool(code)
