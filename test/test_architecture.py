"""The direction of imports: which room may import which, and where the heavy packages may be named."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / 'isaac_infer'
MODULES = sorted(PACKAGE.rglob('*.py'))

MAY_IMPORT = {
    'core': set(),
    'params': {'core'},
    'engine': {'core'},
    'jetson': {'core'},
    'deploy': {'core', 'engine', 'jetson', 'params'},
    'ros': {'core', 'deploy', 'params'},
    'nodes': {'core', 'deploy', 'engine', 'jetson', 'params', 'ros'},
    'cli': {'core', 'deploy', 'engine', 'jetson', 'params'},
}
# A package is named only in these rooms or files; every other third-party package is free outside core.
ONLY_IN = {
    'launch': {'ros/launching.py', 'ros/launching_jetson.py'},
    'launch_ros': {'ros/launching.py', 'ros/launching_jetson.py'},
    'lz4': {'core/bag.py'},
    'onnx': {'engine'},
    'onnxruntime': {'engine/ort.py', 'engine/quantise.py', 'engine/surgery.py'},
    'pycocotools': {'cli'},
    'psutil': {'jetson/pc.py'},
    'pycuda': {'engine/cuda.py'},
    'pynvml': {'jetson/pc.py'},
    'rclpy': {'nodes', 'ros'},
    'rich': {'cli'},
    'rosbags': {'core/bag.py'},
    'tensorrt': {'engine/trt.py'},
    'torch': set(),
    'tritonclient': {'engine/triton.py'},
    'ultralytics': set(),
}
CORE_HAS = {'cv2', 'numpy', *sys.stdlib_module_names}
CORE_ADDS = {  # imported when a file that needs it is read, not before
    'core/bag.py': {'lz4', 'rosbags'},
    'core/decode/document.py': {'yaml'},
}


def imported(source, package):
    """Return the dotted names that a module's import statements name, with relative ones resolved."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split('.')[: len(package.split('.')) - node.level + 1] if node.level else []
            module = '.'.join([*above, *filter(None, [node.module])])
            names += (
                [f'{module}.{alias.name}' for alias in node.names] if module == 'isaac_infer' else [module]
            )
    return names


def offences(file, source):
    """Return the imports of a module, given by its path inside the package, that its room may not have."""
    room = file.split('/')[0].removesuffix('.py')
    package = '.'.join(['isaac_infer', *file.split('/')[:-1]])
    return [name for name in imported(source, package) if not may_import(room, file, name)]


def may_import(room, file, name):
    """Tell whether a file of a room may import what has this dotted name."""
    top, _, rest = name.partition('.')
    if top == 'isaac_infer':
        other = rest.partition('.')[0]
        return other in {room, *MAY_IMPORT.get(room, ())} or other not in MAY_IMPORT
    if room == 'core' and top not in CORE_HAS | CORE_ADDS.get(file, set()):
        return False
    if top.endswith(('_msgs', '_interfaces')):
        top = 'rclpy'
    return top not in ONLY_IN or bool(ONLY_IN[top] & {room, file})


@pytest.mark.parametrize(
    ('file', 'source', 'found'),
    [
        ('core/fit.py', '', []),
        ('core/fit.py', 'import math, numpy as np\nfrom isaac_infer.core.frame import Frame', []),
        ('core/fit.py', 'from isaac_infer.engine.load import open_session', ['isaac_infer.engine.load']),
        (
            'core/fit.py',
            'from isaac_infer import engine, params',
            ['isaac_infer.engine', 'isaac_infer.params'],
        ),
        ('core/decode/resolve.py', 'from ...ros import messages', ['isaac_infer.ros']),
        ('core/decode/resolve.py', 'from ..fit import Fit', []),
        ('core/fit.py', 'def late():\n    import yaml', ['yaml']),
        ('cli/run.py', 'import rclpy.node', ['rclpy.node']),
        ('cli/run.py', 'from vision_msgs.msg import Detection2DArray', ['vision_msgs.msg']),
        ('engine/load.py', 'import onnxruntime', ['onnxruntime']),
        ('engine/ort.py', 'import onnxruntime', []),
        ('engine/ort.py', 'import tensorrt', ['tensorrt']),
        ('ros/launching.py', 'def late():\n    from launch.actions import LogInfo', []),
        ('ros/messages.py', 'import launch_ros', ['launch_ros']),
        ('ros/messages.py', 'from isaac_infer.nodes import detector_node', ['isaac_infer.nodes']),
        ('params/perception.py', 'from isaac_infer.core.errors import ParameterError', []),
        (
            'params/perception.py',
            'from isaac_infer.ros.parameters import declare',
            ['isaac_infer.ros.parameters'],
        ),
    ],
)
def test_an_import_against_the_direction_is_found(file, source, found):
    assert offences(file, source) == found


@pytest.mark.parametrize('path', MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_imports_only_what_its_room_may(path):
    assert offences(path.relative_to(PACKAGE).as_posix(), path.read_text()) == []


def test_every_room_has_its_place_in_the_picture():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix('.py') for path in MODULES}
    assert rooms - {'__init__'} <= set(MAY_IMPORT)


def test_every_folder_of_modules_is_a_package():
    # find_packages() leaves others out of an installation without a word
    assert [path for path in MODULES if not path.with_name('__init__.py').exists()] == []


IMPORT_ALL = """
import importlib, pkgutil, sys

refused, allowed, rooms = (set(argument.split()) for argument in sys.argv[1:])

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        if top in refused or allowed and top not in allowed:
            raise ModuleNotFoundError(f'{top} is refused', name=top)

sys.meta_path.insert(0, Refuse())
for room in sorted(rooms):
    module = importlib.import_module(f'isaac_infer.{room}')
    for found in pkgutil.walk_packages(getattr(module, '__path__', []), module.__name__ + '.'):
        importlib.import_module(found.name)
        print(found.name)
"""


def import_all(rooms, *, refused=(), allowed=()):
    """Import every module of the rooms in a new process that lacks some packages; return its output."""
    words = [' '.join(refused), ' '.join(allowed), ' '.join(rooms)]
    command = [sys.executable, '-c', IMPORT_ALL, *words]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_core_imports_with_numpy_and_cv2_alone():
    assert 'isaac_infer.core.frame' in import_all(['core'], allowed=['isaac_infer', *CORE_HAS])


def test_rooms_without_ros_import_where_neither_ros_nor_a_gpu_is():
    rooms = {'cli', 'core', 'deploy', 'engine', 'jetson', 'params'}
    there = [room for room in rooms if (PACKAGE / room).is_dir() or (PACKAGE / f'{room}.py').exists()]
    absent = ['ament_index_python', 'rclpy', 'sensor_msgs', 'std_msgs', 'vision_msgs']
    absent += ['psutil', 'pycocotools', 'pycuda', 'pynvml', 'tensorrt', 'torch', 'tritonclient']
    assert 'isaac_infer.engine.load' in import_all(there, refused=absent)
