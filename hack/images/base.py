"""A base for the images where no registry is at hand: a minimal Debian from the mirror that this machine uses.

Whoever has a registry names a base of it instead (--base), and none of this runs.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hack.images.commands import ImagesError, run
from hack.kube.gobuild import exclusively

SUITE = "bookworm"
PACKAGES = ("python3", "ca-certificates")
UNUSED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/info")
"""Emptied: a container has no reader for them."""
LOCALES = "usr/share/locale"
VERSION = hashlib.sha256(repr((SUITE, PACKAGES, UNUSED, LOCALES)).encode()).hexdigest()[:12]
"""Of the recipe above: the base is made again when it changes."""
BASE = f"localhost/snowmelt/base:{SUITE}-{VERSION}"
BUILDER = f"localhost/snowmelt/builder:{SUITE}-{VERSION}"
SOURCES = Path("/etc/apt")


def debian_base(cache: Path) -> tuple[str, str]:
    """Names of the base and of the same base with pip; made when there is none, which takes a minute or two.

    Raises:
        ImagesError: debootstrap is missing or failed, or apt has no source.
    """
    with exclusively(cache / ".base.lock"):
        if not _exists(BASE):
            _import(_archive(cache))
        if not _exists(BUILDER):
            _add_pip()
    return BASE, BUILDER


def mirror(sources: Path = SOURCES) -> str:
    """The first location of Debian in apt's sources.

    Raises:
        ImagesError: there is none.
    """
    files = [sources / "sources.list", *sorted((sources / "sources.list.d").glob("*"))]
    for file in files:
        for line in file.read_text().splitlines() if file.is_file() else ():
            words = line.split()
            if words[:1] in (["URIs:"], ["deb"]):
                location = next((word for word in words[1:] if "://" in word), "")
                if location.rstrip("/").endswith("/debian"):
                    return location
    raise ImagesError(f"no source of Debian in {sources}: name an image to build on with --base")


def _exists(name: str) -> bool:
    return bool(run("buildah", "images", "--quiet", "--filter", f"reference={name}").strip())


def _archive(cache: Path) -> Path:
    archive = cache / f"base-{SUITE}-{VERSION}.tar"
    if archive.exists():
        return archive
    if shutil.which("debootstrap") is None:
        raise ImagesError("no base to build on: apt-get install debootstrap, or name an image with --base")
    print(f"making a base from Debian {SUITE}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".base-") as workspace:
        root = Path(workspace) / "root"
        include = f"--include={','.join(PACKAGES)}"
        run("debootstrap", "--variant=minbase", include, SUITE, root, mirror(), log=cache / "base.log")
        for folder in (*UNUSED, LOCALES):
            _empty(root / folder)
        # The mirror is this machine's own affair.
        (root / "etc/apt/sources.list").unlink(missing_ok=True)
        draft = Path(workspace) / archive.name
        subprocess.run(["tar", "--create", "--file", draft, "--directory", root, "."], check=True)
        draft.replace(archive)
    return archive


def _import(archive: Path) -> None:
    container = run("buildah", "from", "scratch").strip()
    try:
        run("buildah", "add", "--quiet", container, archive, "/")
        run("buildah", "commit", "--quiet", container, BASE)
    finally:
        run("buildah", "rm", container)


def _add_pip() -> None:
    """The pip that every Python brings for its virtual environments."""
    with tempfile.TemporaryDirectory() as workspace:
        run(sys.executable, "-m", "venv", workspace)
        pip = next(Path(workspace).glob("lib/python3*/site-packages/pip"))
        container = run("buildah", "from", BASE).strip()
        try:
            run("buildah", "add", "--quiet", container, pip, "/usr/lib/python3/dist-packages/pip")
            run("buildah", "commit", "--quiet", container, BUILDER)
        finally:
            run("buildah", "rm", container)


def _empty(folder: Path) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
