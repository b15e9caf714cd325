"""Writing image folders."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from PIL import Image


def write_folders(root: Path, images: Iterable[tuple[str, str, Image.Image]]) -> None:
    """Write (class, name, image) as root/class/name.png; files that already hold these bytes are left alone."""
    for label, name, image in images:
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        buffer = BytesIO()
        image.save(buffer, "PNG")
        path = folder / f"{name}.png"
        if not path.exists() or path.read_bytes() != buffer.getvalue():
            path.write_bytes(buffer.getvalue())
