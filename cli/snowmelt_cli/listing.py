"""`snowmelt backbones`: what torchvision offers, from the catalog; torch itself is only needed for layer groups."""

from __future__ import annotations

from fnmatch import fnmatchcase

from rich.table import Table

from snowmelt_trainer.contract.catalog import architectures


def matching(pattern: str) -> list[str]:
    """The architectures that a shell-style pattern matches, or that contain it."""
    return [name for name in architectures() if fnmatchcase(name, pattern) or pattern in name]


def backbones_table(names: list[str]) -> Table:
    """An architecture a row."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("ARCHITECTURE")
    table.add_column("PARAMETERS", justify="right")
    table.add_column("MIN. IMAGE", justify="right")
    table.add_column("WEIGHTS (* is DEFAULT)", overflow="fold")
    for name in names:
        entry = architectures()[name]
        weights = [f"{weights}{'*' if weights == entry.default else ''}" for weights in entry.weights]
        table.add_row(name, f"{entry.parameters / 1e6:.1f} M", f"{entry.min_image_size} px", ", ".join(weights))
    return table
