import pytest

from isaac_infer.core.progress import Phases, ShareSay, estimated_share, tell_share


class Bar:
    def __init__(self) -> None:
        self.shares: list[float] = []

    def __call__(self, text: str) -> None: ...

    def show_share(self, share: float) -> None:
        self.shares.append(share)


def test_who_only_takes_sentences_is_not_told_shares() -> None:
    said: list[str] = []
    tell_share(said.append, 0.5)
    assert said == []
    bar = Bar()
    assert isinstance(bar, ShareSay)
    tell_share(bar, 0.5)
    assert bar.shares == [0.5]


@pytest.mark.parametrize(
    ('elapsed_s', 'expected_s', 'share'),
    [(5.0, 0.0, None), (0.0, 10.0, 0.0), (5.0, 10.0, 0.5), (10.0, 10.0, 0.99), (100.0, 10.0, 0.99)],
)
def test_the_last_time_tells_how_far_it_is_but_never_that_it_is_done(
    elapsed_s: float, expected_s: float, share: float | None
) -> None:
    assert estimated_share(elapsed_s, expected_s) == share


def test_a_phase_inside_another_is_a_part_of_its_step() -> None:
    phases = Phases()
    phases.start('build', None, 4)
    assert phases.step('build', 0) == 0.25
    phases.start('tactics', 'build', 10)
    assert phases.step('tactics', 4) == pytest.approx(0.25 + 0.5 / 4)
    phases.finish('tactics')
    assert phases.step('build', 3) == 1.0


def test_the_share_never_goes_back() -> None:
    phases = Phases()
    phases.start('build', None, 2)
    phases.start('tactics', 'build', 2)
    half = phases.step('tactics', 1)
    phases.finish('tactics')
    phases.start('memory', 'build', 10)
    assert phases.step('memory', 0) == half == 0.5


@pytest.mark.parametrize('steps', [0, -1, 1])
def test_a_phase_of_no_steps_is_done_with_its_first(steps: int) -> None:
    phases = Phases()
    phases.start('build', None, steps)
    assert phases.step('build', 0) == 1.0


def test_a_step_of_an_unknown_phase_changes_nothing() -> None:
    assert Phases().step('nothing', 3) == 0.0
