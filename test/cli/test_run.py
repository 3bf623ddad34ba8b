import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from full_disk import full_disk
from onnx import TensorProto, helper

from isaac_infer.cli.main import main
from isaac_infer.cli.run import MOST_TABLES
from models import (
    save_colour_detector,
    save_constant_detector,
    save_model,
    ultralytics_metadata,
    ultralytics_output,
)

COLOURS_BGR = {'blue': (255, 0, 0), 'green': (0, 255, 0), 'red': (0, 0, 255)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_colour_detector(tmp_path / 'colours.onnx')


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with blue.png, green.png and red.png, 32 wide and 16 high."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for name, colour in COLOURS_BGR.items():
        assert cv2.imwrite(str(folder / f'{name}.png'), np.full((16, 32, 3), colour, np.uint8))
    return folder


def save_blue_hating_detector(path: Path) -> Path:
    """Write a model that answers NaN where the picture has no red or green, else finds nothing."""
    output = ultralytics_output([], classes=3)
    return save_model(
        path,
        [
            helper.make_node('ReduceMean', ['images'], ['mean'], axes=[2, 3], keepdims=0),
            helper.make_node('Slice', ['mean', 'first', 'third', 'axis'], ['red_green']),
            helper.make_node('ReduceMax', ['red_green'], ['most'], keepdims=0),
            helper.make_node('Div', ['most', 'most'], ['one_or_nan']),
            helper.make_node('Mul', ['output', 'one_or_nan'], ['output0']),
        ],
        {'images': (TensorProto.FLOAT, (1, 3, 64, 64))},
        {'output0': (TensorProto.FLOAT, output.shape)},
        constants={
            'output': output,
            'first': np.array([0]),
            'third': np.array([2]),
            'axis': np.array([1]),
        },
        metadata=ultralytics_metadata('abc'),
    )


def run(*arguments: object) -> int:
    return main(['run', *map(str, arguments)])


def test_the_report_has_exactly_what_it_promises(model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / 'new' / 'folder' / 'out.json'
    picture = pictures / 'blue.png'
    assert run('--model', model, '--source', picture, '--json', out) == 0
    report = json.loads(out.read_text())
    assert list(report) == ['model', 'backend', 'task', 'decoder', 'images', 'times_ms']
    assert list(report['times_ms']) == ['prepare', 'run', 'decode']
    assert all(0 < times['p50'] <= times['p95'] <= times['p99'] for times in report['times_ms'].values())
    assert report['model'] == str(model)
    assert report['backend'].endswith('CPUExecutionProvider')
    assert report['decoder'] == 'ultralytics'
    (image,) = report['images']
    assert image['source'] == str(picture)
    assert image['size_wh'] == [32, 16]
    (found,) = image['detections']
    assert list(found) == ['class_id', 'class_name', 'score', 'box_xyxy']
    assert (found['class_id'], found['class_name']) == (2, 'blue')
    assert found['score'] == pytest.approx(0.7235, abs=0.01)  # half of the input is border of 114
    assert found['box_xyxy'] == [14, 6, 18, 10]


def test_nothing_found_is_an_empty_list(model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out.json'
    assert run('--model', model, '--source', pictures, '--json', out, '--confidence-threshold', 0.99) == 0
    assert [image['detections'] for image in json.loads(out.read_text())['images']] == [[], [], []]


def test_json_on_standard_output_stands_there_alone(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run('--model', model, '--source', pictures, '--json', '-') == 0
    printed = capsys.readouterr()
    names = [image['detections'][0]['class_name'] for image in json.loads(printed.out)['images']]
    assert names == ['blue', 'green', 'red']
    assert 'prepare' in printed.err


def test_a_precision_that_nobody_uses_is_said(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = '--model', model, '--source', pictures, '--backend', 'onnxruntime'
    said = 'note: precision bf16 concerns TensorRT and was not used'
    assert run(*usual, '--precision', 'bf16') == 0
    assert said in capsys.readouterr().out
    assert run(*usual, '--precision', 'bf16', '--json', '-') == 0
    printed = capsys.readouterr()
    assert said in printed.err and json.loads(printed.out)
    assert run(*usual) == 0
    assert 'note: precision' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('classes', 'options', 'is_said'),
    [(3, (), True), (3, ('--class-names', 'a,b,c'), False), (1, (), False)],
)
def test_a_model_that_does_not_name_its_classes_is_told_with_how_to_name_them(
    classes: int,
    options: tuple[str, ...],
    is_said: bool,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = ultralytics_output([], classes=classes)
    model = save_constant_detector(tmp_path / 'unnamed.onnx', {'output0': output})
    assert run(model, '--source', pictures, '--decoder', 'ultralytics', *options) == 0
    said = 'note: the model does not name its classes, which are shown by their numbers; name them with'
    assert capsys.readouterr().out.count(said) == is_said


def test_people_get_tables_of_what_was_found_and_how_long_it_took(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run('--model', model, '--source', pictures) == 0
    shown = capsys.readouterr().out
    for text in ('ultralytics', 'CPUExecutionProvider', 'note: ', 'blue', '3 pictures', 'p99', 'decode'):
        assert text in shown


def test_annotated_pictures_are_saved_under_their_own_names(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'saved'
    assert run('--model', model, '--source', pictures, '--save', folder) == 0
    assert sorted(path.name for path in folder.iterdir()) == ['blue.png', 'green.png', 'red.png']
    assert cv2.imread(str(folder / 'blue.png')).shape == (16, 32, 3)
    assert (cv2.imread(str(folder / 'blue.png')) != cv2.imread(str(pictures / 'blue.png'))).any()


def test_the_source_itself_is_never_overwritten(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (pictures / 'blue.png').read_bytes()
    assert run('--model', model, '--source', pictures, '--save', pictures) == 2
    assert 'would overwrite' in capsys.readouterr().err
    assert (pictures / 'blue.png').read_bytes() == before


def test_no_source_is_overwritten_through_a_flattened_name_or_a_link(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / 'green.png').rename(pictures / 'b c.png')
    (pictures / 'red.png').rename(pictures / 'b_c.png')
    linked = tmp_path / 'linked'
    linked.mkdir()
    os.link(pictures / 'b_c.png', linked / 'b_c-2.png')
    before = {path: path.read_bytes() for path in pictures.iterdir()}
    for folder in (pictures, linked):
        assert run('--model', model, '--source', pictures, '--save', folder) == 2
        assert 'would overwrite' in capsys.readouterr().err
    assert {path: path.read_bytes() for path in pictures.iterdir()} == before
    assert [path.name for path in linked.iterdir()] == ['b_c-2.png']


@pytest.mark.parametrize('is_one_file', [False, True])
def test_nothing_is_written_into_a_recording_that_is_read(
    is_one_file: bool, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bags = pytest.importorskip('bags', reason='without rosbags there are no recordings')
    bag = bags.save_bag(tmp_path / 'bag', {'/image': [bags.image(np.zeros((16, 32, 3), np.uint8))]})
    (tmp_path / 'link').symlink_to(bag)
    before = set(bag.iterdir())
    source = bags.stored_file(bag) if is_one_file else f'{bag}::/image'
    for folder in (bag, tmp_path / 'link'):
        assert run('--model', model, '--source', source, '--save', folder) == 2
        assert 'is the folder that is read' in capsys.readouterr().err
    assert set(bag.iterdir()) == before
    assert run('--model', model, '--source', source, '--save', tmp_path) == 0


def test_nothing_is_written_into_a_folder_that_is_read(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'pictures'
    folder.mkdir()
    assert cv2.imwrite(str(folder / 'a.bmp'), np.zeros((16, 32, 3), np.uint8))
    assert run('--model', model, '--source', folder, '--save', folder) == 2
    assert 'is the folder that is read' in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ['a.bmp']


@pytest.mark.parametrize('name', ['one.png', 'one.JPG'])
def test_a_picture_s_name_is_no_folder_to_save_into_unless_it_is_one(
    name: str, model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / name
    assert run(model, '--source', pictures / 'blue.png', '--save', place) == 2
    assert f'--save {place}: expected a folder, got the name of a picture' in capsys.readouterr().err
    assert not place.exists()
    place.mkdir()
    assert run(model, '--source', pictures / 'blue.png', '--save', place) == 0
    assert (place / 'blue.png').is_file()


def test_a_file_is_no_folder_to_save_into(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / 'notes.txt'
    place.write_text('mine')
    assert run(model, '--source', pictures / 'blue.png', '--save', place) == 2
    assert f'--save {place}: expected a folder, got a file' in capsys.readouterr().err
    assert place.read_text() == 'mine'


def test_a_report_that_cannot_be_written_leaves_the_old_one(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'reports' / 'out.json'
    out.parent.mkdir()
    out.write_text('{"model": "old"}')
    with full_disk():
        assert run('--model', model, '--source', pictures, '--json', out) == 2
    assert f'--json {out}: cannot be written: File too large' in capsys.readouterr().err
    assert out.read_text() == '{"model": "old"}'
    assert [path.name for path in out.parent.iterdir()] == ['out.json']


def test_a_report_keeps_the_mode_and_the_link_of_the_one_it_replaces(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    old, link = tmp_path / 'old.json', tmp_path / 'link.json'
    old.write_text('{"model": "old"}')
    old.chmod(0o640)
    link.symlink_to(old)
    assert run('--model', model, '--source', pictures, '--json', link) == 0
    assert len(json.loads(old.read_text())['images']) == 3
    assert link.is_symlink() and stat.S_IMODE(old.stat().st_mode) == 0o640
    new = tmp_path / 'new.json'
    assert run('--model', model, '--source', pictures, '--json', new) == 0
    (tmp_path / 'usual').touch()
    assert new.stat().st_mode == (tmp_path / 'usual').stat().st_mode


def test_a_report_goes_into_a_pipe(model: Path, pictures: Path, tmp_path: Path) -> None:
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    reader = subprocess.Popen(['cat', pipe], stdout=subprocess.PIPE)
    assert run('--model', model, '--source', pictures, '--json', pipe) == 0
    assert len(json.loads(reader.communicate(timeout=10)[0])['images']) == 3
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_pictures_whose_names_look_alike_are_all_saved(model: Path, tmp_path: Path) -> None:
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    colours = {'a b.png': 10, 'a_b.png': 20, 'a_b-2.png': 30, 'x.tif': 40, 'x.tif.png': 50, '\udcff.png': 60}
    for name, value in colours.items():
        encoded = cv2.imencode(Path(name).suffix, np.full((16, 32, 3), value, np.uint8))[1]
        (pictures / name).write_bytes(encoded.tobytes())
    folder = tmp_path / 'saved\udcff'
    assert run('--model', model, '--source', pictures, '--save', folder, '--confidence-threshold', 0.99) == 0
    saved = [cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) for path in folder.iterdir()]
    assert sorted(int(image[0, 0, 0]) for image in saved) == sorted(colours.values())


def test_a_picture_and_its_maps_have_one_number(tmp_path: Path) -> None:
    pictures, folder = tmp_path / 'pictures', tmp_path / 'saved'
    pictures.mkdir()
    names = ('a.bmp', 'a.instances.png', 'a.jpg', 'a.png')
    for name in names:
        assert cv2.imwrite(str(pictures / name), np.zeros((16, 16, 3), np.uint8))
    logits = np.zeros((1, 16, 64, 64), np.float32)
    model = save_constant_detector(tmp_path / 'maps.onnx', {'mask_logits': logits})
    out = tmp_path / 'out.json'
    assert run('--model', model, '--source', pictures, '--save', folder, '--json', out) == 0
    images = json.loads(out.read_text())['images']
    maps = [[Path(image[key]).name for key in ('label_map', 'instance_masks')] for image in images]
    stems = ['a.bmp', 'a.instances', 'a-2', 'a-3']
    assert [Path(image['annotated']).stem for image in images] == stems
    assert maps == [[f'{stem}.labels.png', f'{stem}.instances.png'] for stem in stems]
    drawn = {'a.bmp.png', 'a.instances.png', 'a-2.jpg', 'a-3.png'}
    assert {path.name for path in folder.iterdir()} == drawn.union(*maps)


def test_nothing_is_written_through_a_link_in_the_folder(model: Path, pictures: Path, tmp_path: Path) -> None:
    own, folder = tmp_path / 'own.png', tmp_path / 'saved'
    own.write_bytes(b'my own')
    folder.mkdir()
    (folder / 'blue.png').symlink_to(own)
    (folder / 'red.png').symlink_to(tmp_path / 'nowhere.png')
    assert run('--model', model, '--source', pictures, '--save', folder) == 0
    assert own.read_bytes() == b'my own' and not (tmp_path / 'nowhere.png').exists()
    assert all(path.is_file() and not path.is_symlink() for path in folder.iterdir())


@pytest.mark.parametrize(
    ('report', 'complaint'),
    [
        ('pictures', 'expected a file, got a folder'),
        ('colours.onnx', 'would overwrite'),
        ('pictures/blue.png', 'would overwrite'),
        ('names.txt', 'would overwrite'),
        ('weights.data', 'exists and is no report'),
        ('colours.json', 'would be read as facts about colours.onnx'),
        ('colours.yaml', 'would be read as facts about colours.onnx'),
    ],
)
def test_a_report_harms_nothing_that_is_read(
    report: str,
    complaint: str,
    model: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'names.txt').write_text('r\ng\nb\n')
    (tmp_path / 'weights.data').write_bytes(bytes(100))  # of a model, say
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    arguments = ('--class-names', tmp_path / 'names.txt', '--json', tmp_path / report)
    assert run('--model', model, '--source', pictures, *arguments) == 2
    assert complaint in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before


def test_a_picture_that_the_network_fails_on_is_named_and_the_others_are_answered(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_blue_hating_detector(tmp_path / 'log.onnx')
    out = tmp_path / 'out.json'
    assert run('--model', model, '--source', pictures, '--resize', 'stretch', '--json', out) == 1
    assert f'error: {pictures / "blue.png"}: ' in capsys.readouterr().err
    names = [Path(image['source']).name for image in json.loads(out.read_text())['images']]
    assert names == ['green.png', 'red.png']


def test_pictures_that_fail_count_among_the_most_that_are_read(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / 'a.png').write_bytes(b'no picture')
    assert run('--model', model, '--source', pictures, '--frames', 2, '--json', '-') == 1
    assert len(json.loads(capsys.readouterr().out)['images']) == 1


def test_a_picture_that_cannot_be_saved_is_named_and_still_answered(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / 'saved', tmp_path / 'out.json'
    (folder / 'blue.png').mkdir(parents=True)
    assert run('--model', model, '--source', pictures, '--save', folder, '--json', out) == 1
    assert f'{pictures / "blue.png"}: cannot be saved: ' in capsys.readouterr().err
    report = json.loads(out.read_text())
    assert (len(report['images']), len(report['errors'])) == (3, 1)
    assert (folder / 'red.png').is_file()


def test_a_picture_too_wide_for_its_format_is_named_and_still_answered(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = pictures / 'a.jpg'  # what it holds is told by its content
    wide.write_bytes(cv2.imencode('.png', np.zeros((2, 66000, 3), np.uint8))[1].tobytes())
    folder, out = tmp_path / 'saved', tmp_path / 'out.json'
    assert run('--model', model, '--source', pictures, '--save', folder, '--json', out) == 1
    assert f'{wide}: cannot be saved: ' in capsys.readouterr().err
    assert len(json.loads(out.read_text())['images']) == 4
    assert sorted(path.name for path in folder.iterdir()) == ['blue.png', 'green.png', 'red.png']


def test_on_a_full_disk_no_part_of_a_picture_stays_and_nothing_is_said_to_be_written(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'saved'
    folder.mkdir()
    before = (pictures / 'red.png').read_bytes() + bytes(300)
    (folder / 'red.png').write_bytes(before)
    run('--model', model, '--source', pictures / 'red.png')  # so that it is not tried on the full disk
    with full_disk():
        assert run('--model', model, '--source', pictures, '--save', folder) == 1
    printed = capsys.readouterr()
    assert 'red.png: cannot be saved: ' in printed.err and 'written' not in printed.out
    assert os.listdir(folder) == ['red.png'] and (folder / 'red.png').read_bytes() == before


def test_a_broken_picture_is_reported_and_the_others_are_answered(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / 'broken.png').write_bytes(b'no picture')
    out = tmp_path / 'out.json'
    assert run('--model', model, '--source', pictures, '--json', out) == 1
    printed = capsys.readouterr()
    assert '3 pictures, 3 objects, 1 failed' in printed.out
    report = json.loads(out.read_text())
    assert list(report)[-2:] == ['times_ms', 'errors']
    assert [f'isaac-infer: error: {error}' for error in report['errors']] == printed.err.splitlines()
    assert 'broken.png: expected a picture' in report['errors'][0]
    names = [Path(image['source']).name for image in report['images']]
    assert names == ['blue.png', 'green.png', 'red.png']


def test_endless_sources_stop_after_so_many_pictures(model: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out.json'
    assert run('--model', model, '--source', 'synthetic', '--seed', 5, '--frames', 2, '--json', out) == 0
    assert [image['source'] for image in json.loads(out.read_text())['images']] == [
        'synthetic 5',
        'synthetic 6',
    ]


def test_a_fallback_is_said(model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    providers = ('CUDAExecutionProvider', 'CPUExecutionProvider')
    assert run('--model', model, '--source', pictures / 'red.png', '--providers', *providers) == 0
    printed = capsys.readouterr()
    if 'CUDAExecutionProvider' not in printed.out.splitlines()[0]:
        assert 'isaac-infer: warning: CUDAExecutionProvider' in printed.err


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--channel-order', 'bgr'], ['red']),
        (['--class-names', 'r,g,b'], ['b']),
        (['--class-filter', 'red', '1'], []),
        (['--class-filter', 'blue'], ['blue']),
        (['--resize', 'stretch', '--scale', '1', '--mean', '0', '--std', '255'], ['blue']),
        (['--mean', '0.9', '0.9', '-1e-9'], ['blue']),
        (['--max-detections', '1'], ['blue']),
    ],
)
def test_options_reach_the_pipeline(
    options: list[str], expected: list[str], model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        '--model',
        model,
        '--source',
        pictures / 'blue.png',
        '--json',
        '-',
        '--confidence-threshold',
        '0.5',
    ]
    assert run(*arguments, *options) == 0
    (image,) = json.loads(capsys.readouterr().out)['images']
    assert [found['class_name'] for found in image['detections']] == expected


@pytest.mark.parametrize(
    ('options', 'code', 'expected'),
    [
        (['--class-filter', 'car'], 2, 'class_filter: expected classes of the model (red, green, blue)'),
        (['--class-names', 'a,b'], 1, 'expected 3 class names, as the model has classes, got 2'),
        (['--class-names', 'nowhere.txt'], 1, 'nowhere.txt'),
        (['--decoder', 'yolov99'], 2, "there is no decoder 'yolov99'"),
        (['--backend', 'tensorrt'], 1, 'TensorRT cannot be used'),
        (['--frames', '-1'], 2, 'frames: expected from 0 to'),
        (['--frames', '99999999999999999999'], 2, 'frames: expected from 0 to'),
        (['--seed', '99999999999999999999'], 2, 'seed: expected from 0 to'),
        (['--source', 'nowhere.png'], 1, "'nowhere.png': no such file"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_words(
    options: list[str],
    code: int,
    expected: str,
    model: Path,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run('--model', model, '--source', pictures / 'blue.png', *options) == code
    assert expected in capsys.readouterr().err


def test_a_network_that_turns_bad_half_way_is_an_error(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = ultralytics_output([], classes=3) + np.nan
    model = save_constant_detector(
        tmp_path / 'nan.onnx', {'output0': nothing}, metadata=ultralytics_metadata('abc')
    )
    assert run('--model', model, '--source', pictures) == 1
    assert 'expected finite numbers' in capsys.readouterr().err


def test_an_interruption_writes_what_was_found_until_then(model: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out.json'
    arguments = ['--model', str(model), '--source', 'synthetic', '--seed', '1', '--json', str(out)]
    child = subprocess.Popen(
        [
            sys.executable,
            '-u',
            '-m',
            'isaac_infer.cli.main',
            'run',
            *arguments,
            '--save',
            str(tmp_path / 'saved'),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    saved = tmp_path / 'saved' / 'synthetic_1.png'
    while not saved.exists():
        assert child.poll() is None, child.stderr.read()
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert 'Traceback' not in errors
    assert len(json.loads(out.read_text())['images']) >= 1


def test_a_model_is_inspected_for_people_and_for_programs(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['inspect', str(model)]) == 0
    shown = capsys.readouterr().out
    for text in (
        'float32[1, 3, 64, 64]',
        'float32[1, 7, 84]',
        'ultralytics',
        'red, green, blue',
        '64x64, rgb',
    ):
        assert text in shown
    assert main(['inspect', '--model', str(model), '--json', '-']) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts['outputs'] == [{'name': 'output0', 'shape': [1, 7, 84], 'dtype': 'float32'}]
    assert facts['spec']['decoder'] == 'ultralytics'
    assert facts['sha256']


def test_a_model_that_is_not_understood_still_shows_its_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_constant_detector(tmp_path / 'odd.onnx', {'logits': np.zeros((1, 5, 7, 9), np.float32)})
    assert main(['inspect', str(model)]) == 1
    printed = capsys.readouterr()
    assert 'float32[1, 5, 7, 9]' in printed.out
    assert 'no decoder fits' in printed.err
    assert main(['inspect', str(model), '--json', '-']) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts['outputs'] == [{'name': 'logits', 'shape': [1, 5, 7, 9], 'dtype': 'float32'}]
    assert 'no decoder fits' in facts['failure']


def test_what_a_model_says_does_not_command_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = {'description': 'a\x1b]0;owned\x07b', 'task': 'detect', 'names': "{0: 'r', 1: 'g', 2: 'b'}"}
    model = save_colour_detector(tmp_path / 'colours.onnx', metadata=evil)
    assert main(['inspect', str(model)]) == 0
    shown = capsys.readouterr().out
    assert 'owned' in shown
    assert '\x1b]' not in shown and '\x07' not in shown


def test_a_picture_s_name_does_not_command_the_terminal(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / 'a\x1b[31m.png', tmp_path / 'b\x1b[31m.png'
    good.write_bytes(cv2.imencode('.png', np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    bad.write_bytes(b'none')
    assert run('--model', model, '--source', tmp_path) == 1
    printed = capsys.readouterr()
    assert 'b\ufffd[31m.png: expected a picture' in printed.err
    assert 'a\ufffd[31m.png' in printed.out
    assert '\x1b[31m' not in printed.out + printed.err


def test_two_models_to_inspect_are_one_too_many(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['inspect', str(model), '--model', 'other.onnx']) == 2
    assert f'got two models: {model}' in capsys.readouterr().err


def test_pictures_that_are_given_as_models_are_told_where_they_go(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (pictures, pictures / 'blue.png'):
        assert run(model, wrong) == 2
        assert capsys.readouterr().err.endswith(f'{model}, {wrong}; pictures go after --source\n')
    assert run(model, model) == 2
    assert main(['inspect', str(model), str(pictures)]) == 2  # it takes no pictures
    assert 'pictures go' not in capsys.readouterr().err


def test_a_model_whose_name_is_of_another_encoding_is_refused_in_words(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = model.rename(model.with_name('\udcff.onnx'))
    assert main(['inspect', str(other)]) == 1
    assert 'expected a name that is UTF-8 text; rename it' in capsys.readouterr().err


def test_a_report_may_not_take_the_place_of_an_annotated_picture(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'saved'
    place = folder / 'red.png'
    assert run('--model', model, '--source', pictures / 'red.png', '--save', folder, '--json', place) == 2
    assert 'is a name of pictures' in capsys.readouterr().err


def test_several_pictures_are_answered_in_their_order(model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out.json'
    names = [str(pictures / name) for name in ('red.png', 'blue.png')]
    assert run('--model', model, '--source', *names, '--json', out) == 0
    assert [image['source'] for image in json.loads(out.read_text())['images']] == names
    assert run('--model', model, '--source', names[1], '--source', names[0], '--json', out) == 0
    assert [image['source'] for image in json.loads(out.read_text())['images']] == names[::-1]


def test_frames_of_videos_of_one_name_do_not_replace_one_another(model: Path, tmp_path: Path) -> None:
    videos = [tmp_path / name / 'v.avi' for name in 'ab']
    for video in videos:
        video.parent.mkdir()
        writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 64))
        for _ in range(3):
            writer.write(np.zeros((64, 64, 3), np.uint8))
        writer.release()
    assert run('--model', model, '--source', *videos, '--save', tmp_path / 'saved') == 0
    assert len(list((tmp_path / 'saved').iterdir())) == 6


def test_a_notebook_is_not_overwritten_by_a_report(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = tmp_path / 'work.ipynb'
    notebook.write_text('{"cells": []}')
    assert run('--model', model, '--source', pictures, '--json', notebook) == 2
    assert 'exists and is no report' in capsys.readouterr().err
    assert notebook.read_text() == '{"cells": []}'


@pytest.fixture
def heatmaps(tmp_path: Path) -> Path:
    """A pose model of one person that finds every key point in the middle of the crop."""
    maps = np.zeros((1, 16, 16, 16), np.float32)
    maps[0, :, 8, 8] = 0.9
    return save_constant_detector(tmp_path / 'pose.onnx', {'heatmaps': maps})


def test_key_points_without_names_and_an_input_higher_than_wide_are_told_as_such(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = np.zeros((1, 5, 64, 48), np.float32)
    model = save_constant_detector(tmp_path / 'five.onnx', {'heatmaps': maps}, image_shape=(1, 3, 256, 192))
    assert run(model, '--source', pictures / 'blue.png', '--task', 'pose') == 0
    first, *notes = capsys.readouterr().out.splitlines()
    assert first.startswith('heatmaps, 5 key points, input 192 wide, 256 high, onnxruntime')
    assert 'note: 5 key points, unnamed; set keypoints to name them' in notes
    (note,) = [note for note in notes if 'who should fill the picture' in note]
    assert 'person_model_file_path (--person-model-file-path), or persons_topic of pose_node' in note
    assert main(['inspect', str(model), '--task', 'pose']) == 0
    shown = capsys.readouterr().out
    assert '5: not named' in shown and '192 wide, 256 high, rgb nchw' in shown


@pytest.fixture
def finder(tmp_path: Path) -> Path:
    """A detector that finds a person and a dog."""
    boxes = ultralytics_output([(16, 32, 16, 24, 1, 0.9), (44, 32, 16, 24, 0, 0.9)], classes=2)
    return save_constant_detector(
        tmp_path / 'finder.onnx', {'output0': boxes}, metadata=ultralytics_metadata(['dog', 'person'])
    )


def test_persons_of_one_model_get_key_points_of_another(
    heatmaps: Path, finder: Path, tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out.json'
    picture = pictures / 'blue.png'  # 32 x 16: half the size of the network
    options = ['--person-model-file-path', finder, '--json', out, '--save', tmp_path / 'saved']
    assert run('--model', heatmaps, '--source', picture, *options) == 0
    (person,) = json.loads(out.read_text())['images'][0]['detections']
    assert person['class_name'] == 'person' and len(person['keypoints']) == 16
    assert np.abs(np.array(person['keypoints'])[:, :2] - (8, 8)).max() < 1
    assert (tmp_path / 'saved' / 'blue.png').is_file()
    shown = ''.join(capsys.readouterr().out.split())
    assert f'note:personsarefoundby{finder},onnxruntime' in shown
    assert 'whoshouldfillthepicture' not in shown
    assert json.loads(out.read_text())['person_model'] == str(finder)


def test_a_person_detector_that_does_not_know_the_class_is_named(
    heatmaps: Path, finder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ['--person-model-file-path', finder, '--person-classes', 'persn']
    assert run(heatmaps, '--source', pictures, *options) == 2
    told = (
        f"person_classes: expected classes of {finder}, which finds the persons, (dog, person), got 'persn'"
    )
    assert told in capsys.readouterr().err


def test_a_person_detector_that_is_none_is_named(
    heatmaps: Path, tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = save_constant_detector(tmp_path / 'maps.onnx', {'logits': np.zeros((1, 5, 16, 16), np.float32)})
    assert run(heatmaps, '--source', pictures, '--person-model-file-path', maps) == 1
    said = capsys.readouterr().err
    assert 'person_model_file_path: expected the detector that finds the persons' in said
    assert 'maps.onnx: no decoder fits' in said


def test_of_many_pictures_the_later_ones_are_told_in_a_line_each(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(MOST_TABLES + 2):
        assert cv2.imwrite(str(tmp_path / f'{number:02}.png'), np.full((16, 32, 3), (255, 0, 0), np.uint8))
    assert run('--model', model, '--source', tmp_path, '--json', '') == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if '.png' in line]
    assert lines[MOST_TABLES - 1].endswith(f'{MOST_TABLES - 1:02}.png  32x16')
    assert lines[MOST_TABLES:] == [f'{tmp_path}/{number}.png: 1 blue' for number in (20, 21)]


@pytest.mark.parametrize('is_drawn', [True, False])
def test_models_of_drawn_scenes_say_so_before_other_pictures(tmp_path, capsys, is_drawn):
    picture = tmp_path / 'picture.png'
    cv2.imwrite(str(picture), np.zeros((48, 64, 3), np.uint8))
    source = ['synthetic', '--frames', '1'] if is_drawn else [str(picture)]
    assert main(['run', 'tabletop_instances.onnx', '--source', *source]) == 0
    assert ('knows drawn scenes only' in capsys.readouterr().out) != is_drawn
