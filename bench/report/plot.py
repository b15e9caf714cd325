"""The plot of the page: validation accuracy over seconds, one panel a subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report.results import Run
from bench.report.verdicts import DEFAULTS, OURS, REFERENCE, Comparison

COLUMNS = 3
PANEL = (6.0, 4.2)
LEGEND = 0.9
"""Inches below the panels."""


def draw(found: Sequence[Comparison], titles: Mapping[str, str], path: Path) -> None:
    """Writes an SVG (or what the path's suffix says). Thick: ours; solid: peers as they are; dotted: peers matched.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib as mpl  # noqa: PLC0415  (only this function needs it)

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "snowmelt", "font.size": 9})
    from matplotlib import pyplot  # noqa: PLC0415

    wide = min(COLUMNS, len(found))
    high = -(-len(found) // wide)
    size = (PANEL[0] * wide, PANEL[1] * high + LEGEND)
    figure, axes = pyplot.subplots(high, wide, figsize=size, squeeze=False, layout="constrained")
    names = list(dict.fromkeys(run.contender for comparison in found for run in comparison.runs if run.looks))
    colours = {name: f"C{i}" for i, name in enumerate(name for name in names if name != OURS)} | {OURS: "black"}
    panels = [panel for row in axes for panel in row]
    for panel, comparison in zip(panels, found, strict=False):
        _panel(panel, comparison, colours)
    for panel in panels[len(found) :]:
        panel.set_axis_off()
    handles = [pyplot.Line2D([], [], color=colours[name], linewidth=3 if name == OURS else 1.5) for name in names]
    figure.legend(handles, [titles.get(name, name) for name in names], loc="outside lower center", ncols=3)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _panel(panel: Any, comparison: Comparison, colours: Mapping[str, str]) -> None:
    for run in comparison.runs:
        if run.looks:
            panel.plot(
                [look.seconds for look in run.looks],
                [look.accuracy for look in run.looks],
                color=colours[run.contender],
                linewidth=2.2 if run.contender == OURS else 1.0,
                alpha=0.9 if run.contender == OURS else 0.7,
                linestyle="-" if run.column == DEFAULTS else ":",
                marker="." if run.contender == OURS else None,
                zorder=3 if run.contender == OURS else 2,
            )
    marks = comparison.marks
    if marks is not None:
        for mark, text in ((marks.first, "mark 1"), (marks.second, "mark 2")):
            panel.axhline(mark, color="grey", linewidth=0.8, linestyle="--")
            panel.annotate(text, (1.0, mark), xycoords=("axes fraction", "data"), fontsize=7, ha="right", va="bottom")
        highest = max(look.accuracy for run in comparison.runs for look in run.looks)
        panel.set_ylim(_bottom(comparison.of(REFERENCE, DEFAULTS), marks.first), max(highest, marks.full) + 0.01)
    panel.set_xscale("log", subs=[])
    panel.xaxis.get_major_locator().set_params(subs=(1.0, 2.0, 5.0))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_title(str(comparison.subject))
    panel.set_xlabel("seconds of the fit, evaluations left out")
    panel.set_ylabel("validation accuracy")
    panel.grid(alpha=0.3)


def _bottom(reference: Sequence[Run], mark: float) -> float:
    """Low enough for the first look at full fine-tuning, and not so low that the marks run together."""
    first = min(run.looks[0].accuracy for run in reference)
    return max(min(first, mark - 0.05), mark - 0.25)
