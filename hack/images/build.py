"""Build the operator's and the trainer's image from their Dockerfiles."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from hack.images.base import debian_base
from hack.images.commands import ImagesError, run
from hack.images.seed import seed_for
from hack.kube.binaries import cache_folder
from hack.kube.gobuild import exclusively

REPOSITORY = Path(__file__).parents[2]
NAMES = {"operator": "localhost/snowmelt/operator", "trainer": "localhost/snowmelt/trainer"}
DEVELOPMENT = "dev"
"""The tag of what is built from this checkout."""
CERTIFICATES = "/run/secrets/ca"
"""Where the Dockerfiles have the certificates of the secret `ca`."""
CERTIFICATE_FILES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))
TOOLS = ("buildah", "skopeo", "containerd")
"""Commands, which Debian has in packages of the same names."""
PLACES_ON_THIS_MACHINE = ("cert", "find-links", "cache-dir", "client-cert")
"""Settings of pip that name files of this machine, which a build does not see."""


@dataclass(frozen=True)
class Images:
    """The images by name, and the folder that holds them as an OCI layout."""

    operator: str
    trainer: str
    layout: Path

    @classmethod
    def tagged(cls, tag: str, layout: Path) -> Images:
        return cls(f"{NAMES['operator']}:{tag}", f"{NAMES['trainer']}:{tag}", layout)

    @property
    def names(self) -> tuple[str, str]:
        return self.operator, self.trainer

    def seed(self) -> Path:
        """A containerd root that has them, for nodes to begin with; one for other layers of gigabytes is removed.

        Raises:
            ImagesError: containerd is missing, or refused the images.
        """
        with _building(images_folder()):
            return seed_for(self.layout, self.names, images_folder())


def images_folder() -> Path:
    """Where bases, layouts and logs are kept, beside the binaries of hack.kube."""
    return cache_folder().parent / "images"


def build_images(*, base: str = "", builder: str = "", source: Path = REPOSITORY, tag: str = DEVELOPMENT) -> Images:
    """Build both images, layer by layer: what did not change is not done again.

    Args:
        base: an image with python3 and bash; empty for a Debian that is made here.
        builder: the same with pip; empty for `base`.
        source: the checkout to build.
        tag: of both images.

    Raises:
        ImagesError: a tool is missing, or a build failed.
    """
    if missing := " ".join(tool for tool in TOOLS if shutil.which(tool) is None):
        raise ImagesError(
            f"missing to build images with: {missing}; on Debian or Ubuntu: apt-get install --no-install-recommends"
            f" {missing} (or use the Dockerfiles with docker)"
        )
    folder = images_folder()
    folder.mkdir(parents=True, exist_ok=True)
    images = Images.tagged(tag, folder / "layout")
    with _building(folder):
        bases = (base, builder or base) if base else debian_base(folder)
        for what, name in zip(NAMES, images.names, strict=True):
            _build(source, what, name, bases, folder / f"{what}.log")
            # Uncompressed: that would take minutes, and a layer that is there under its own digest is not copied again.
            run(
                "skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers",
                f"containers-storage:{name}", f"oci:{images.layout}:{name}",
            )  # fmt: skip
    return images


def _building(folder: Path) -> AbstractContextManager[None]:
    """While it lasts, nobody else builds, or changes the layout."""
    return exclusively(folder / ".build.lock")


def _build(source: Path, what: str, name: str, bases: tuple[str, str], log: Path) -> None:
    print(f"building {name}", file=sys.stderr, flush=True)
    base, builder = bases
    with tempfile.TemporaryDirectory() as workspace:
        run(
            "buildah", "bud", "--layers", f"--build-arg=BASE={base}", f"--build-arg=BUILDER={builder}",
            *_secrets(Path(workspace)), "--file", source / what / "Dockerfile", "--tag", name, source,
            log=log,
        )  # fmt: skip


def _secrets(workspace: Path) -> list[str]:
    """This machine's pip configuration and certificates, lent to the build."""
    given = pip_configuration(_pip_settings())
    authorities = next((file for file in CERTIFICATE_FILES if file.is_file()), None)
    secrets = []
    if authorities is not None:
        secrets.append(f"--secret=id=ca,src={authorities}")
        given += f"cert = {CERTIFICATES}\n"
    file = workspace / "pip.conf"
    file.write_text(given)
    return [*secrets, f"--secret=id=pip,src={file}"]


def pip_configuration(settings: str) -> str:
    """A pip.conf of what `pip config list` printed; the environment wins over files, as it does in pip."""
    values = dict(re.findall(r"^global\.([a-z-]+)='(.*)'$", settings, re.MULTILINE))
    values |= dict(re.findall(r"^:env:\.([a-z-]+)='(.*)'$", settings, re.MULTILINE))
    lines = [f"{name} = {value}\n" for name, value in values.items() if name not in PLACES_ON_THIS_MACHINE]
    return "[global]\n" + "".join(lines)


def _pip_settings() -> str:
    python = os.environ.get("PYTHON", "python3")
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    return listed.stdout if listed.returncode == 0 else ""
