"""`snowmelt plan`: the stages of a job, without its weights and without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from snowmelt_operator.api.v1alpha1 import FineTuneJobSpec
from snowmelt_trainer.backbones.build import describe_groups
from snowmelt_trainer.contract.uri import to_path
from snowmelt_trainer.data.opening import target_classes
from snowmelt_trainer.stages import GroupInfo, Stage, plan_stages

PUBLISHED_CLASSES = 1000
"""ImageNet's, which the published heads have."""


@dataclass(frozen=True)
class Plan:
    """What a job would train."""

    groups: tuple[GroupInfo, ...]
    stages: tuple[Stage, ...]


def make_plan(spec: FineTuneJobSpec, *, num_classes: int) -> Plan:
    """The layer groups, and the stages that train them.

    Raises:
        RunError: InvalidConfig, when a custom stage names no layer group; ImageTooSmall.
    """
    groups = describe_groups(spec.backbone.architecture, num_classes=num_classes, image_size=spec.data.image_size)
    return Plan(groups, plan_stages(spec.unfreezing, spec.optimization, groups))


def count_classes(spec: FineTuneJobSpec, volumes: Path) -> int | None:
    """How many classes the training data has; None where it cannot be seen from here.

    Raises:
        RunError: DataUnreadable or DataEmpty: it is there, and cannot be trained on.
    """
    if not to_path(spec.data.train.uri, str(volumes)).exists():
        return None
    return len(target_classes(spec.data, volumes_root=str(volumes)))


def rates_depend_on_the_data(spec: FineTuneJobSpec) -> bool:
    """Whether rates follow from a batch that is chosen by the number of images."""
    given = spec.optimization
    return given.batch_size is None and given.learning_rate is None


def groups_table(plan: Plan) -> Table:
    """The layer groups from input to output, and the stage from which on each is trained."""
    table = _table("Layer groups, input to output")
    table.add_column("GROUP")
    table.add_column("PARAMETERS", justify="right")
    table.add_column("TRAINED FROM STAGE", justify="right")
    for group in plan.groups:
        first = next((str(stage.index) for stage in plan.stages if group.name in stage.trainable), "never")
        table.add_row(group.name, f"{group.parameter_count:,}", first)
    return table


def stages_table(plan: Plan) -> Table:
    """The stages in order."""
    table = _table("Stages")
    table.add_column("STAGE")
    table.add_column("TRAINED GROUPS", overflow="fold")
    table.add_column("PARAMETERS", justify="right")
    table.add_column("SHARE", justify="right")
    table.add_column("LEARNING RATE", justify="right")
    table.add_column("EPOCHS", justify="right")
    for stage in plan.stages:
        table.add_row(
            f"{stage.index}/{stage.of} {stage.name}",
            _span(stage.trainable, plan.groups),
            f"{stage.trainable_parameters:,}",
            f"{stage.trainable_parameters / stage.total_parameters:.1%}",
            _rates(stage),
            f"≤ {stage.max_epochs}",
        )
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")


def _span(trainable: tuple[str, ...], groups: tuple[GroupInfo, ...]) -> str:
    """Neighbours as `first … last`."""
    names = [group.name for group in groups]
    runs: list[list[int]] = []
    for index in sorted(names.index(name) for name in trainable):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(
        ", ".join(names[index] for index in run) if len(run) < 3 else f"{names[run[0]]} … {names[run[-1]]}"
        for run in runs
    )


def _rates(stage: Stage) -> str:
    rates = [stage.learning_rates[name] for name in stage.trainable]
    lowest, highest = min(rates), max(rates)
    shown = f"{highest:.2g}" if lowest == highest else f"{lowest:.2g} … {highest:.2g}"
    return f"solver, else {shown}" if stage.solved else shown  # the network's shape decides, when it is trained
