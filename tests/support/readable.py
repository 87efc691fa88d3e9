"""Of a figure: axes have names, and no text lies on another or outside."""

import itertools
from collections.abc import Iterator

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def texts(figure: Figure) -> Iterator[Text]:
    """All that are drawn, but for titles; ticks beyond the ends of an axis are not."""
    for axes in figure.axes:
        for place, axis in enumerate((axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            yield from (label for label in axis.get_ticklabels() if low <= label.get_position()[place] <= high)
            yield axis.label
        yield from axes.texts
    for legend in filter(None, [*figure.legends, *(axes.get_legend() for axes in figure.axes)]):
        yield from legend.get_texts()


def assert_readable(figure: Figure, least: int) -> None:
    """Draw it, and look at so many texts at least."""
    FigureCanvasAgg(figure).draw()
    boxes = {text: text.get_window_extent() for text in texts(figure) if text.get_visible() and text.get_text()}
    assert len(boxes) >= least
    for text, box in boxes.items():
        assert figure.bbox.count_contains(box.corners()) == 4, text
    for (one, box), (other, beside) in itertools.combinations(boxes.items(), 2):
        assert not box.overlaps(beside), (one, other)
