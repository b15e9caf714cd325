"""The two images that the cluster itself needs, each one static binary and nothing else."""

from __future__ import annotations

from pathlib import Path

from hack.kube.binaries import KUBERAY, ClusterBinaries
from hack.kube.cluster.oci import write_image

PAUSE = "localhost/snowmelt/pause:1"
KUBERAY_REPOSITORY = "localhost/snowmelt/kuberay-operator"
NOBODY = "65532:65532"


def write_images(folder: Path, binaries: ClusterBinaries) -> list[Path]:
    """Archives of the images, written to `folder`."""
    pause, kuberay = folder / "pause.tar", folder / "kuberay-operator.tar"
    write_image(pause, PAUSE, {"/pause": binaries.pause}, entrypoint=["/pause"], user=NOBODY)
    # /manager: the path by which KubeRay's own Deployment calls it.
    write_image(
        kuberay, f"{KUBERAY_REPOSITORY}:{KUBERAY}", {"/manager": binaries.kuberay_operator},
        entrypoint=["/manager"], user=NOBODY,
    )  # fmt: skip
    return [pause, kuberay]
