"""`python -m hack.images`: build both images, and load them into the cluster of `make cluster-up` if asked to."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hack.images import ImagesError, build_images, load
from hack.kube.cluster import Cluster
from hack.kube.controlplane import ControlPlaneError

REPOSITORY = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hack.images", description=__doc__)
    parser.add_argument("--base", default="", help="image to build on; without it a Debian is made with debootstrap")
    parser.add_argument("--builder", default="", help="the same with pip (that of --base)")
    parser.add_argument("--load", action="store_true", help="import them on every node of the cluster")
    parser.add_argument("--directory", type=Path, default=REPOSITORY / ".cluster", help="of the cluster (%(default)s)")
    options = parser.parse_args()
    try:
        images = build_images(base=options.base, builder=options.builder)
        images.seed()
        if options.load:
            load(Cluster(options.directory), images.layout, images.names)
    except (ImagesError, ControlPlaneError) as error:
        print(f"hack.images: {error}", file=sys.stderr)
        return 1
    print(images.operator, images.trainer, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
