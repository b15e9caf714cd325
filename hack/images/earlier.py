"""An earlier release, built from its commit, for trying an upgrade from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hack.images.build import REPOSITORY, Images, build_images
from hack.images.commands import ImagesError, run

MODES = "tar.umask=0022"
"""Those that a checkout has, so that what did not change since is the same layer of an image."""


@dataclass(frozen=True)
class Earlier:
    """A release, by its version and the commit that it was made of."""

    version: str
    commit: str

    def check_out(self, folder: Path, repository: Path = REPOSITORY) -> Path:
        """The files of the release, below `folder`, which need not exist.

        Raises:
            ImagesError: the repository has not the commit, for instance because its history was cut off.
        """
        folder.mkdir(parents=True, exist_ok=True)
        archive = folder / "release.tar"
        try:
            run("git", "-C", repository, "-c", MODES, "archive", f"--output={archive.absolute()}", self.commit)
        except ImagesError as error:
            raise ImagesError(
                f"release {self.version} is commit {self.commit}, which {repository} lacks: fetch the whole history"
                f" (git fetch --unshallow)\n{error}"
            ) from None
        run("tar", "--extract", "--file", archive, "--directory", folder)
        archive.unlink()
        return folder

    def images(self, checkout: Path) -> Images:
        """Both images of the release, from what `check_out` gave.

        Raises:
            ImagesError: see `build_images`.
        """
        return build_images(source=checkout, tag=self.version)


PREVIOUS = Earlier("0.1.0", "b77b7e9aa0364f754a2a3f41c5f5654811c031a0")
"""The newest release, which the next one is tried to follow."""
