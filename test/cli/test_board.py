"""`isaac-infer board`: the table and the file of a board."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boards import FAMILIES, coolers, limits, orin_nano, plant, thor
from rich.console import Console

from isaac_infer.cli import board as module
from isaac_infer.cli.board import board_table
from isaac_infer.cli.main import main
from isaac_infer.jetson.board import BoardReader


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch):
    """Have the command run on the board of a tree."""

    def run_on(root: Path) -> None:
        monkeypatch.setattr(module, 'BoardReader', lambda: BoardReader(root))
        monkeypatch.setattr(module, 'MEASURED_S', 0.0)

    return run_on


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Give the rows of the table that was printed."""
    rows = (line.strip().partition('  ') for line in capsys.readouterr().out.splitlines())
    return {name: value.strip() for name, _, value in rows if name}


def test_the_table_has_the_state_of_the_board(tmp_path, on, capsys):
    on(orin_nano(tmp_path))
    assert main(['board']) == 0
    rows = shown(capsys)
    assert rows['JetPack'] == '6, L4T 36.4.4'
    caps = 'CPU up to 1344 MHz, GPU up to 918 MHz, memory up to 3199 MHz'
    assert rows['power mode'] == f'25W (ID 1), 2 cores, {caps}'
    assert rows['clocks fixed'] == 'no'
    assert rows['GPU'] == '100%, 1020 of 306 to 1020 MHz, nvhost_podgov'
    assert rows['CPU 1'] == 'off'
    assert rows['RAM'] == '1.86 of 7.44 GiB'
    assert rows['temperatures'] == 'cpu 46.1 C, gpu 50.5 C, cv0 45.0 C, tj 50.5 C'
    assert rows['power'] == '7.55 W'
    assert rows['rails'] == 'VDD_IN 7.55 W, VDD_CPU_GPU_CV 8.85 W, VDD_SOC 2.46 W'
    assert rows['other mode'].startswith('7W (ID 7), 1 cores') and rows['other mode'].endswith('a reboot')
    assert rows['RAM clock'] == 'unknown of up to 3199 MHz'
    assert rows['throttling'] == 'no'
    assert rows['limits'] == 'VDD_IN 1.52 A, max 4.00 A, crit 5.00 A'
    assert rows['over-currents'] == 'oc1 0, oc2 2, oc3 37'
    assert rows['fans'] == '30%, 1350 rpm, profile quiet'


def test_what_slows_the_board_down_and_alarms_are_shown_with_their_numbers(tmp_path, on, capsys):
    root = plant(orin_nano(tmp_path), coolers(('gpu-throttle-alert', 1, 2), ('cpu-throttle-alert', 0, 2)))
    on(plant(root, limits('1-0040', 1, max_ma=1500, crit_ma=5000, alarms=(1, 0))))
    main(['board'])
    rows = shown(capsys)
    assert rows['throttling'] == 'gpu-throttle-alert 1 of 2'
    assert rows['limits'] == 'VDD_IN 1.52 A, max 1.50 A, crit 5.00 A, ALARM max'


def test_what_is_unknown_is_shown_as_unknown_and_not_as_zero(tmp_path, on, capsys):
    on(tmp_path)
    assert main(['board']) == 0
    rows = shown(capsys)
    (why,) = [name for name in rows if name.startswith('no Jetson was found: a PC tells no more')]
    del rows[why]
    assert list(rows) == ['model', 'GPU', 'CPU', 'RAM', 'swap', 'temperatures']  # no rows of a Jetson
    assert all('unknown' in value for value in rows.values())
    assert not any('0' in value for value in rows.values())


def test_what_a_pc_needs_to_tell_more_is_named_and_a_jetson_is_not_told(tmp_path, on, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'psutil', None)
    monkeypatch.setitem(sys.modules, 'pynvml', None)
    on(tmp_path)
    told = {True: 'psutil and nvidia-ml-py (for its NVIDIA GPU)', False: 'psutil'}
    for has_gpu, missing in told.items():
        monkeypatch.setattr(module, 'has_nvidia_gpu', lambda has_gpu=has_gpu: has_gpu)
        main(['board'])
        assert capsys.readouterr().out.endswith(f'tells no more without {missing}\n')
    on(orin_nano(tmp_path))
    main(['board'])
    assert 'no Jetson' not in capsys.readouterr().out


def test_a_load_that_no_file_has_is_unknown_beside_clocks_that_are_known(tmp_path, on, capsys):
    on(thor(tmp_path))
    main(['board'])
    assert shown(capsys)['GPU'] == 'load unknown, 314 of 314 to 1575 MHz, nvhost_podgov'


def test_the_file_has_the_same_as_null(tmp_path, on, capsys):
    on(thor(tmp_path / 'thor'))
    path = tmp_path / 'board.json'
    assert main(['board', '--json', str(path)]) == 0
    assert main(['board', '--json', str(path)]) == 0  # what we wrote may be replaced
    assert capsys.readouterr().out == ''
    written = json.loads(path.read_text())
    assert written['power']['total_w'] == 19.78
    assert written['gpu']['load_percent'] is None
    assert written['power_mode']['name'] == 'MAXN'


def test_somebody_else_s_file_is_let_alone(tmp_path, on, capsys):
    on(orin_nano(tmp_path / 'nano'))
    path = tmp_path / 'notes.json'
    path.write_text('{"mine": 1}')
    assert main(['board', '--json', str(path)]) == 2
    assert 'exists and is no report' in capsys.readouterr().err
    assert path.read_text() == '{"mine": 1}'


@pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES)
def test_names_of_a_board_command_no_terminal(tmp_path, family):
    root = plant(family(tmp_path), {'proc/device-tree/model': 'Jetson\033[2J\nOrin'})
    console = Console(width=200, file=open(os.devnull, 'w'), record=True)  # noqa: SIM115
    console.print(board_table(BoardReader(root).read()))
    assert '\033' not in console.export_text()


@pytest.mark.parametrize('options', [[], ['--json', '-']], ids=['table', 'json'])
def test_watching_shows_the_board_again_until_it_is_interrupted(options):
    command = [sys.executable, '-m', 'isaac_infer.cli.main', 'board', '--watch', *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        begin, seen = time.monotonic(), 0
        while seen < 2:
            line = process.stdout.readline()
            assert line
            seen += 'temperatures ' in line or '"jetpack"' in line
        assert time.monotonic() - begin >= 1
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[1] == ''
    assert process.returncode == 130
