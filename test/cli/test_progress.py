"""What people see while an engine is built."""

import io

import pytest
from rich.console import Console

from isaac_infer.cli.progress import BuildProgress
from isaac_infer.core.progress import ShareSay, tell_share


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def console(*, is_terminal: bool) -> tuple[Console, io.StringIO]:
    written = Terminal() if is_terminal else io.StringIO()
    return Console(file=written, force_terminal=is_terminal, width=100), written


def test_a_log_gets_sentences_and_no_bar() -> None:
    out, written = console(is_terminal=False)
    with BuildProgress(out) as say:
        say('building it, [first] of all')
        tell_share(say, 0.5)
        say('a long sentence ' * 20)
    lines = written.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith('isaac-infer: 0.') and lines[0].endswith('s: building it, [first] of all')


def test_a_terminal_gets_a_bar_that_runs_until_the_share_is_known_and_is_gone_at_the_end() -> None:
    out, written = console(is_terminal=True)
    with BuildProgress(out) as say:
        assert isinstance(say, ShareSay)
        say('building it')
        say._bar.refresh()
        unknown = written.getvalue()
        tell_share(say, 0.25)
        say._bar.refresh()
    shown = written.getvalue()
    assert '━' in unknown and '%' not in unknown
    assert ' 25%' in shown
    assert shown.endswith('\x1b[1A\x1b[2K')  # one line up, and cleared


def test_a_log_gets_no_bar_where_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('FORCE_COLOR', '1')
    written = io.StringIO()
    out = Console(file=written)
    with BuildProgress(out) as say:
        say('building it')
        tell_share(say, 0.5)
    assert written.getvalue().count('\n') == 1
    assert '\x1b' not in written.getvalue()


def test_what_says_nothing_shows_nothing() -> None:
    out, written = console(is_terminal=True)
    with BuildProgress(out):
        pass
    assert written.getvalue() == ''


def test_commands_to_the_terminal_are_not_passed_on() -> None:
    out, written = console(is_terminal=False)
    with BuildProgress(out) as say:
        say('model \x1b[2J.onnx')
    assert '\x1b' not in written.getvalue()


def test_the_bar_goes_when_the_build_fails() -> None:
    out, written = console(is_terminal=True)
    try:
        with BuildProgress(out) as say:
            say('building it')
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert written.getvalue().endswith('\x1b[2K')
