#!/usr/bin/env python3
"""Set-up: makes .venv, in which the package, its tests and its demo run; `make` calls it before every target.

With a sourced ROS 2 (ROS_DISTRO is set) that ROS 2 is used, and only what it lacks is installed. Otherwise
ROS 2 Jazzy comes from PyPI wheels, into .venv itself, which then is a ROS prefix too. Runs on Python 3.6 and
later, so that an old one gets a clear sentence.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
STAMP = VENV / 'setup.json'  # written last: without it the environment is half made
LOG = VENV / 'setup.log'
STARTUP = ROOT / 'tools' / 'venv_startup.py'
VISION_MSGS = ROOT / 'tools' / 'vision_msgs'

OLDEST, NEWEST = (3, 10), (3, 14)  # the Python versions that have ROS 2 wheels
ROS_DISTRO = os.environ.get('ROS_DISTRO', '')

ROS_NAMES = (
    'rclpy rmw-fastrtps-cpp std-msgs sensor-msgs geometry-msgs diagnostic-msgs visualization-msgs std-srvs '
    # to build interface packages; some wheels do not name their own needs, so all are listed
    'ament-cmake ament-package rosidl-default-generators rosidl-core-generators '
    'ament-cmake-include-directories ament-cmake-ros ament-cmake-gmock ament-cmake-gtest ament-cmake-pytest '
    'python-cmake-module'
)
ROS_WHEELS = [f'ros-jazzy-{name}' for name in ROS_NAMES.split()]
# setuptools 80 took away what `colcon build --symlink-install` calls
BUILD = ['setuptools>=70.1,<80', 'catkin-pkg>=1,<2', 'empy==3.3.4']
RUNTIME = {  # import name: requirement
    'cv2': 'opencv-python-headless>=4.8,<5',
    'numpy': 'numpy>=1.21.6,<3',
    'onnxruntime': 'onnxruntime>=1.16,<2',
    'psutil': 'psutil>=5.9,<8',
    'rich': 'rich>=13,<16',
    'rosbags': 'rosbags>=0.11.9,<0.12',
    'yaml': 'pyyaml>=5.4,<7',
}
DEVELOPMENT = [
    'colcon-common-extensions>=0.3,<0.4',
    'hypothesis>=6.90,<7',
    'matplotlib>=3.5,<4',
    'mypy==2.4.1',
    'onnx>=1.15,<2',
    'pycocotools>=2.0.7,<3',
    'pytest>=7.4,<9',  # the launch_testing plugin of an apt ROS does not load in pytest 9
    'pytest-timeout>=2.2,<3',
    'pytest-xdist>=3.5,<4',
    'ruff==0.17.5',
    'types-PyYAML',
]
PROBE = """
import importlib.util, json, os, sys, sysconfig
from importlib.machinery import PathFinder
find = lambda name: importlib.util.find_spec(name) is not None
# A sourced ROS is on the path of every Python; only the one it was built for finds its extension.
rclpy = importlib.util.find_spec('rclpy')
rclpy = rclpy and PathFinder.find_spec('_rclpy_pybind11', rclpy.submodule_search_locations)
print(json.dumps({
    'executable': sys.executable, 'version': '.'.join(map(str, sys.version_info[:3])),
    'venv': find('venv') and find('ensurepip'), 'rclpy': bool(rclpy), 'vision_msgs': find('vision_msgs'),
    'headers': os.path.exists(os.path.join(sysconfig.get_paths()['include'], 'Python.h')),
}))
"""


class SetupError(Exception):
    """The environment cannot be made; the message says why and what to do."""


def main():
    with alone():
        asked = os.environ.get('PYTHON')
        if is_ready(asked):
            return
        base = choose_python(asked)
        kind = describe(base['version'])
        began = time.monotonic()
        say(f'Setting up .venv: Python {base["version"]}, ROS 2 {ROS_DISTRO or "Jazzy from PyPI"}')
        if read_stamp().get('kind') == kind:
            STAMP.unlink()
        else:
            with step('environment'):
                make_venv(base['executable'])
        fill_venv()
        STAMP.write_text(json.dumps({'kind': kind, 'requirements': hash_requirements()}))
        say(f'  ready after {time.monotonic() - began:.0f} s')


@contextlib.contextmanager
def alone():
    """Hold this file's lock; children hold it too, so the orphans of a killed set-up are waited for."""
    with open(__file__) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('Waiting for another set-up of .venv to end ...')
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)
        yield


def is_ready(asked):
    """Tell whether .venv is whole, made for these requirements and this ROS, and its Python still starts."""
    stamp = read_stamp()
    if not stamp or stamp['requirements'] != hash_requirements():
        return False
    kind = stamp['kind']
    if kind != describe(kind['python']):
        return False
    pythons = [str(VENV / 'bin' / 'python')] + ([asked] if asked else [])
    if not all(ask_version(python) == kind['python'] for python in pythons):
        return False
    # Less may be sourced than when .venv was made: the overlay that has vision_msgs, say, is missing here.
    return not ROS_DISTRO or all(imports(name) for name in ('rclpy', 'vision_msgs'))


def describe(version):
    """Say what an environment is made for: where one of these changed, a new one is needed, not only pip."""
    # Its place too: scripts in it, and the link to this package, name the folder that they were made in.
    return {
        'python': version,
        'ros': ROS_DISTRO or 'wheels',
        'vision_msgs': hash_vision_msgs(),
        'folder': str(VENV),
    }


def ask_version(python):
    code = 'import sys; print(".".join(map(str, sys.version_info[:3])))'
    try:
        return subprocess.check_output([python, '-S', '-c', code]).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return ''


def read_stamp():
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def hash_requirements():
    said = [ROS_WHEELS, BUILD, RUNTIME, DEVELOPMENT]
    return hash_of([said, *(path.read_bytes() for path in (ROOT / 'setup.py', ROOT / 'setup.cfg', STARTUP))])


def hash_vision_msgs():
    return hash_of([(path.name, path.read_bytes()) for path in sorted(VISION_MSGS.rglob('*.*'))])


def hash_of(content):
    return hashlib.sha256(repr(content).encode()).hexdigest()


def choose_python(asked):
    """Return what PROBE says of the first Python that can carry the environment: python3, else the newest."""
    versions = range(NEWEST[1], OLDEST[1] - 1, -1)
    reasons = {}
    for name in [asked] if asked else ['python3'] + [f'python3.{minor}' for minor in versions]:
        try:
            said = subprocess.check_output([name, '-c', PROBE], stderr=subprocess.DEVNULL)
            found = json.loads(said.decode())
        except (OSError, subprocess.CalledProcessError, ValueError):
            continue  # it is not there, or is one of pyenv's empty stubs
        reason = objection(found)
        if reason is None:
            return found
        reasons.setdefault(found['version'], f'{name} (Python {found["version"]}) {reason}')
    raise SetupError('\n        '.join(reasons.values()) or f'{asked or "python3"} does not start')


def objection(found):
    """Return why a Python cannot carry the environment, or None."""
    minor = tuple(int(part) for part in found['version'].split('.')[:2])
    if not OLDEST <= minor <= NEWEST:
        return f'does not fit: 3.{OLDEST[1]} to 3.{NEWEST[1]} does, and PYTHON=/path/to/python3 names it'
    if not found['venv']:
        return 'has no venv module ("sudo apt install python3-venv" brings it)'
    if ROS_DISTRO and not found['rclpy']:
        return (
            f'cannot import rclpy although ROS_DISTRO is {ROS_DISTRO}: source that ROS 2 '
            f'("source /opt/ros/{ROS_DISTRO}/setup.bash"), or unset ROS_DISTRO to take ROS 2 from PyPI'
        )
    if not (ROS_DISTRO and found['vision_msgs']):
        if not found['headers']:
            return 'has no headers to build vision_msgs with ("sudo apt install python3-dev" brings them)'
        if not any(shutil.which(name) for name in (os.environ.get('CXX'), 'c++', 'g++') if name):
            return 'fits, but vision_msgs needs a C++ compiler ("sudo apt install g++" brings one)'
    return None


def make_venv(python):
    if VENV.exists():
        say('(anew: the old one was half made, or for another Python or ROS) ', end='')
        shutil.rmtree(VENV)
    VENV.mkdir()
    (VENV / 'COLCON_IGNORE').touch()  # .venv may lie in a robot's workspace
    run([python, '-m', 'venv', *(['--system-site-packages'] if ROS_DISTRO else []), str(VENV)])


def fill_venv():
    site = next((VENV / 'lib').glob('python3.*/site-packages'))
    shutil.copy(str(STARTUP), str(site / 'isaac_infer_startup.py'))
    (site / '_isaac_infer_startup.pth').write_text('import isaac_infer_startup\n')
    index = VENV / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True, exist_ok=True)

    limits = VENV / 'constraints.txt'
    limits.write_text('numpy<2\n' if ROS_DISTRO and version_of('numpy', default='2') < '2' else '')
    pip = [str(VENV / 'bin' / 'python'), '-m', 'pip', '--disable-pip-version-check', '--no-input', 'install']
    pip += ['--constraint', str(limits)]

    with step('ROS 2 and build tools'):
        cmake = [] if shutil.which('cmake') else ['cmake>=3.22,<5']
        numpy = [] if imports('numpy') else [RUNTIME['numpy']]
        run(pip + BUILD + numpy + cmake + ([] if ROS_DISTRO else ROS_WHEELS))
        patch_cmake_files(site)

    with step('Python packages' + ('' if imports('vision_msgs') else ' and vision_msgs')):
        missing = [requirement for name, requirement in RUNTIME.items() if not (ROS_DISTRO and imports(name))]
        build = None if imports('vision_msgs') else start(build_vision_msgs_command())
        run(pip + missing + DEVELOPMENT)
        if build is not None:
            finish(build)

    with step('isaac_infer'):
        run(pip + ['--no-deps', '--no-build-isolation', '--editable', str(ROOT)])
        # The same places as after `colcon build`, so that code finds its shared files in one way.
        (index / 'isaac_infer').touch()
        share = VENV / 'share' / 'isaac_infer'
        share.mkdir(exist_ok=True)
        for name in ('package.xml', 'config', 'launch', 'models'):
            if not (share / name).is_symlink():
                (share / name).symlink_to(ROOT / name)


def patch_cmake_files(site):
    """Let the wheels' CMake files name this Python instead of the one on the machine that built them."""
    include = ask_python('import sysconfig; print(sysconfig.get_paths()["include"])')
    for path in (VENV / 'share').rglob('*.cmake'):
        text = path.read_text()
        ours = re.sub(r'/opt/python/cp\d+-cp\d+/include/python[\d.]+', include, text)
        ours = re.sub(r'/opt/python/cp\d+-cp\d+/lib/python[\d.]+/site-packages', str(site), ours)
        if ours != text:
            path.write_text(ours)


def build_vision_msgs_command():
    build = VENV / 'build' / 'vision_msgs'
    cmake = shutil.which('cmake') or str(VENV / 'bin' / 'cmake')
    configure = [cmake, '-S', VISION_MSGS, '-B', build, '-DCMAKE_BUILD_TYPE=Release', '-DBUILD_TESTING=OFF']
    configure += [f'-DCMAKE_INSTALL_PREFIX={VENV}', f'-DPython3_EXECUTABLE={VENV}/bin/python']
    make = [cmake, '--build', build, '--parallel', os.cpu_count(), '--target', 'install']
    both = [' '.join(shlex.quote(str(word)) for word in words) for words in (configure, make)]
    return ['sh', '-c', ' && '.join(both)]


def imports(name):
    code = f'import importlib.util; print(importlib.util.find_spec({name!r}) is not None)'
    return ask_python(code) == 'True'


def version_of(name, default):
    return ask_python(f'import {name}; print({name}.__version__)') if imports(name) else default


def ask_python(code):
    return subprocess.check_output([str(VENV / 'bin' / 'python'), '-c', code]).decode().strip()


@contextlib.contextmanager
def step(name):
    began = time.monotonic()
    say(f'  {name} ... ', end='')
    yield
    say(f'{time.monotonic() - began:.0f} s')


def say(text, end='\n'):
    print(text, end=end, flush=True)


def start(command):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(('MAKE', 'MFLAGS'))}
    environment['PATH'] = f'{VENV}/bin:{environment.get("PATH", "")}'
    for name in ('AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH'):
        environment[name] = os.pathsep.join(filter(None, [str(VENV), environment.get(name)]))
    with LOG.open('a') as log:
        log.write(f'\n$ {" ".join(command)}\n')
        log.flush()
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, close_fds=False
        )


def finish(process):
    if process.wait():
        say('failed')
        for line in LOG.read_text(errors='replace').splitlines()[-8:]:
            print(f'    {line}', file=sys.stderr)
        raise SetupError(what_failed(process.args))


def what_failed(command):
    if 'pip' in command:
        text = 'pip could not install a package; the lines above say which. Is the network or its proxy down?'
        if not ROS_DISTRO and platform.machine() != 'x86_64':
            text += f' PyPI has ROS 2 for x86-64 only, this is {platform.machine()}: source a ROS 2 first.'
    elif 'venv' in command:
        text = 'the virtual environment could not be made ("sudo apt install python3-venv" may help).'
    else:
        text = 'vision_msgs could not be built.'
    return f'{text} The whole log is in {LOG.relative_to(ROOT)}; make tries again.'


def run(command):
    finish(start(command))


if __name__ == '__main__':
    try:
        main()
    except SetupError as error:
        print(f'\nset-up: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('\nset-up: interrupted; the next call makes .venv anew', file=sys.stderr)
        sys.exit(130)
