"""What the child that builds says and does not say reaches who waits for it; here it is another program."""

import errno
import sys
from pathlib import Path

import pytest

from isaac_infer.core.errors import ModelError, SessionError
from isaac_infer.engine import build
from isaac_infer.engine.build import Request, build_plan


class Listener:
    """Who waits, with a bar to draw."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shares: list[float] = []

    def __call__(self, text: str) -> None:
        self.said.append(text)

    def show_share(self, share: float) -> None:
        self.shares.append(share)


@pytest.fixture
def build_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Build with a child that runs these lines."""

    def build_it(body: str, **facts: float) -> tuple[dict[str, object], Listener]:
        program = tmp_path / 'child'
        program.write_text(f'#!{sys.executable}\nimport os, signal, sys, time\n{body}\n')
        program.chmod(0o755)
        monkeypatch.setattr(sys, 'executable', str(program))
        listener = Listener()
        request = Request(model='m.onnx', into=str(tmp_path / 'm.engine'), options={}, **facts)
        return build_plan(request, say=listener), listener

    return build_it


def test_what_is_said_at_once_arrives_in_order_and_the_share_too(build_by) -> None:
    lines = r'{"say": "a"}\n{"share": 0.25}\n{"say": "b"}\n{"share": 0.5}\n{"build_s": 1}\n'
    answer, listener = build_by(f"sys.stdout.write('{lines}')")
    assert answer == {'build_s': 1}
    assert (listener.said, listener.shares) == (['a', 'b'], [0.25, 0.5])


def test_before_tensorrt_10_the_share_is_that_of_the_last_time(build_by, monkeypatch) -> None:
    monkeypatch.setattr(build, 'POLL_S', 0.02)
    _, listener = build_by("time.sleep(0.3); print('{}')", expected_s=1.0)
    assert listener.shares == sorted(listener.shares) and 0 < listener.shares[-1] < 0.9


def test_a_full_disk_is_an_error_of_the_system_with_its_number(build_by) -> None:
    with pytest.raises(OSError, match='No space left') as raised:
        build_by(f'print(\'{{"error": "No space left on device", "errno": {errno.ENOSPC}}}\')')
    assert raised.value.errno == errno.ENOSPC


def test_a_child_that_ends_by_itself_is_not_called_killed(build_by) -> None:
    with pytest.raises(SessionError, match='ended with code 3'):
        build_by(
            'print("words of a library", file=sys.stderr); sys.stdout.close(); time.sleep(0.2); os._exit(3)'
        )


def test_a_child_that_crashes_is_named_by_its_signal(build_by) -> None:
    with pytest.raises(SessionError, match='ended by SIGSEGV'):
        build_by('os.kill(os.getpid(), signal.SIGSEGV)')


def test_what_tensorrt_refuses_is_an_error_of_the_model(build_by) -> None:
    with pytest.raises(ModelError, match='cannot read this'):
        build_by("""print('{"error": "cannot read this"}')""")
