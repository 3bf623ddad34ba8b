"""What is generated from the parameter declarations is up to date and works."""

import subprocess
import sys
from pathlib import Path

import yaml

from isaac_infer.params import DetectorParams, ImageSourceParams

ROOT = Path(__file__).parents[2]


def test_yaml_files_and_readme_tables_are_what_the_declarations_say():
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'write_params.py', '--check'],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_yaml_files_hold_the_defaults():
    for name, kind in (('detector', DetectorParams), ('image_source', ImageSourceParams)):
        content = yaml.safe_load((ROOT / 'config' / f'{name}.yaml').read_text())
        assert kind(**content['/**']['ros__parameters']) == kind()


def test_the_nodes_start_with_their_yaml_files(start):
    detector = start('detector_node', '--ros-args', '--params-file', ROOT / 'config' / 'detector.yaml')
    source = start('image_source', '--ros-args', '--params-file', ROOT / 'config' / 'image_source.yaml')
    detector.wait_for('no model given: --ros-args -p model_file_path:=FILE')  # the only thing that is missing
    assert source.is_alive
    assert (detector.stop(), source.stop()) == (0, 0)
