"""The command `snowmelt`. Commands import what they need when they run, so that `--help` answers at once."""

# ruff: noqa: PLC0415

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from snowmelt_cli.manifest import Finding
    from snowmelt_operator.api.v1alpha1 import FineTuneJob

app = typer.Typer(
    name="snowmelt",
    help="Fine-tune pretrained vision backbones by progressive unfreezing, here or on Kubernetes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
File = Annotated[Path, typer.Argument(metavar="FILE", help="A manifest with one FineTuneJob.")]
Volumes = Annotated[
    Path,
    typer.Option("--volumes", metavar="DIR", help="Where pvc://CLAIM/path is found on this machine: DIR/CLAIM/path."),
]


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Manifests: YAML, one document or several.")],
) -> None:
    """Find every mistake in FineTuneJob manifests, with line, field and remedy."""
    from snowmelt_cli.checking import check

    report = check(files)
    _print_findings(report.findings)
    for file, job in report.jobs:
        typer.echo(f"{file}: FineTuneJob {job.metadata.name} is valid")
    if report.findings:
        raise typer.Exit(1)


@app.command()
def plan(
    file: File,
    volumes: Volumes = Path("volumes"),
    classes: Annotated[
        int | None,
        typer.Option(min=2, help="How many classes; counted in data.train where that can be read from here."),
    ] = None,
) -> None:
    """Show the stages of a job: which layers, how many parameters, which learning rates. Trains nothing."""
    job = _only_job(file)
    from snowmelt_cli import planning
    from snowmelt_trainer.errors import RunError
    from snowmelt_trainer.stages import REFERENCE_BATCH

    try:
        counted = classes or planning.count_classes(job.spec, volumes)
        made = planning.make_plan(job.spec, num_classes=counted or planning.PUBLISHED_CLASSES)
    except RunError as error:
        _fail(f"{file}: {error.message}")
    console = Console()
    console.print(planning.groups_table(made))
    console.print()
    console.print(planning.stages_table(made))
    if counted is None:
        typer.echo(
            f"\nThe head is counted for {planning.PUBLISHED_CLASSES:,} classes: the data cannot be seen from here."
        )
    if planning.rates_depend_on_the_data(job.spec):
        typer.echo(
            f"\nThe rates are those of {REFERENCE_BATCH} images in a step; with few images Snowmelt takes smaller "
            "steps, and lower rates. Set optimization.batchSize to choose."
        )


@app.command()
def backbones(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern such as 'resnet*'.")] = "*",
) -> None:
    """List the architectures, their sizes and their published weights."""
    from snowmelt_cli.listing import backbones_table, matching
    from snowmelt_trainer.contract.catalog import architectures, did_you_mean

    names = matching(pattern)
    if not names:
        _fail(f"no architecture matches {pattern!r}{did_you_mean(pattern, architectures())}")
    Console().print(backbones_table(names))


@app.command()
def run(
    file: File,
    volumes: Volumes = Path("volumes"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew; what earlier runs left is set aside.")] = False,
) -> None:
    """Run a job on this machine, without Kubernetes. Run it again to go on where it was stopped."""
    job = _only_job(file)
    from snowmelt_cli import local_run, running

    try:
        planned = local_run.plan_run(job, volumes=volumes, cache=_cache())
    except local_run.LocalRunError as error:
        _fail(f"{file}: {error}")
    console = Console()
    if fresh and (kept := local_run.set_aside(planned, datetime.now(UTC))) is not None:
        console.print(f"set aside what earlier runs left: {kept}", soft_wrap=True)
    raise typer.Exit(running.follow(job, planned, console))


@app.command()
def watch(
    name: Annotated[str, typer.Argument(help="The FineTuneJob's name.")],
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Its namespace; the context's if absent.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="The context of your kubeconfig.")] = None,
) -> None:
    """Show a FineTuneJob of a cluster live until it is finished."""
    from snowmelt_cli import watching

    try:
        status = asyncio.run(watching.watch(name, namespace=namespace, context=context, console=Console()))
    except watching.WatchError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        status = 130
    raise typer.Exit(status)


def _only_job(file: Path) -> FineTuneJob:
    """The one job of a manifest; ends the command with what is wrong otherwise."""
    from snowmelt_cli.checking import check

    report = check([file])
    if report.findings:
        _print_findings(report.findings)
        raise typer.Exit(1)
    if len(report.jobs) != 1:
        _fail(f"{file}: there are {len(report.jobs)} FineTuneJobs in it: give a file with one")
    return report.jobs[0][1]


def _print_findings(findings: Iterable[Finding]) -> None:
    for finding in findings:
        typer.echo(str(finding), err=True)


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)


def _cache() -> Path:
    """The XDG cache folder of Snowmelt."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snowmelt"


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
