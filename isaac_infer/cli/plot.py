"""Plot: speed against accuracy of the variants that were compared, as a PNG picture."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from isaac_infer.cli.comparison import Pictures
from isaac_infer.cli.scores import Measure
from isaac_infer.cli.verdict import Row, short_names
from isaac_infer.core.errors import ParameterError
from isaac_infer.core.text import counted, without_commands
from isaac_infer.engine.files import check_place, write_whole

PLOT_SUFFIX = '.png'
PLOT_SOFTWARE = 'isaac-infer compare'  # in the file, so that no other picture is overwritten
PLOT_HEAD = 1024  # bytes; texts come before the pixels
LONGEST_LABEL = 40  # letters; with more, the legend leaves no room for the dots


def check_plot(plot: Path, sources: Sequence[str], read: Sequence[Path], report: str) -> None:
    """See before the work that the plot can and may be written, and will be nobody's picture.

    Raises:
        ParameterError: it cannot.
    """
    if importlib.util.find_spec('matplotlib') is None:
        raise ParameterError('--plot needs matplotlib; install it: pip install matplotlib')
    if plot.suffix.lower() != PLOT_SUFFIX:
        raise ParameterError(f'--plot {plot}: expected a name that ends in {PLOT_SUFFIX}')
    if plot.exists() and not plot.is_file():
        raise ParameterError(f'--plot {plot}: expected a file, got a folder, pipe or device')
    if report and os.path.realpath(plot) == os.path.realpath(report):
        raise ParameterError(f'--plot {plot}: is the file of --json, too; give another')
    is_read = any(plot.exists() and path.exists() and plot.samefile(path) for path in read)
    if is_read or plot.parent.resolve() in [Path(source).resolve() for source in sources]:
        raise ParameterError(
            f'--plot {plot}: would be one of the pictures that are compared; give another folder'
        )
    check_place(plot, '--plot', _is_plot, 'such plot')


def _is_plot(path: Path) -> bool:
    """Tell whether a file is empty, or a plot that was written here."""
    with path.open('rb') as file:
        head = file.read(PLOT_HEAD)
    return not head or f'tEXtSoftware\0{PLOT_SOFTWARE}'.encode() in head


def write_plot(rows: Sequence[Row], measure: Measure, place: Path, *, title: str) -> None:
    """Write the plot as a PNG file.

    Raises:
        ParameterError: the file cannot be written; what was there is still there.
    """
    try:
        write_whole(place, draw_plot(rows, measure, title=title))
    except OSError as error:
        raise ParameterError(f'--plot {place}: cannot be written: {error.strerror}') from error


def draw_plot(rows: Sequence[Row], measure: Measure, *, title: str) -> bytes:
    """Draw pictures per second against accuracy, a dot for each variant, as PNG; what failed is named."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    named = list(zip(rows, short_names(rows), strict=True))
    done = [(row, name) for row, name in named if row.picture_ms]
    scores = [row.score for row, _ in done]
    has_scores = None not in scores
    figure = Figure(figsize=(9.6, 4.8), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_xlabel('pictures per second, from picture to result')
    agreed = f'{measure.things} of the first: {measure.again}, %'
    axes.set_ylabel(measure.scores[measure.main_score] if has_scores else agreed)
    axes.set_title(title)
    for (row, name), score in zip(done, scores, strict=True):
        assert row.picture_ms and row.agreement
        accuracy = 100 * (row.agreement.share or 0.0)
        if score is not None and has_scores:
            accuracy = score[measure.main_score]
        dot = axes.plot(1e3 / row.picture_ms.median, accuracy, 'o', markersize=9, label=_label(name))
        dot[0].set_clip_on(False)  # half of one at the very top is outside the axes
    for row, name in named:
        if row.failure:
            axes.plot([], [], 'x', markersize=9, color='black', label=f'{_label(name)}: failed')
    axes.margins(0.15)
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.0 if has_scores else 100.0))
    axes.grid(visible=True, alpha=0.4)
    figure.legend(loc='outside right upper')
    plot = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of letters that the font lacks, which become boxes
        figure.savefig(plot, format='png', dpi=100, metadata={'Software': PLOT_SOFTWARE})
    return plot.getvalue()


def title_of(rows: Sequence[Row], pictures: Pictures) -> str:
    """Say what is plotted."""
    models = dict.fromkeys(Path(row.model).name for row in rows)
    of = next(iter(models)) if len(models) == 1 else f'{len(models)} models'
    return f'{_label(of)}, {counted(pictures.count, "picture")}'


def _label(name: str) -> str:
    label = without_commands(name.rpartition('/')[2])
    if len(label) > LONGEST_LABEL:
        label = f'{label[: LONGEST_LABEL // 2]}...{label[-LONGEST_LABEL // 2 :]}'
    # A dollar sign would begin a formula, and what begins with an underscore would not be in the legend.
    label = label.replace('$', r'\$')
    return f' {label}' if label.startswith('_') else label
