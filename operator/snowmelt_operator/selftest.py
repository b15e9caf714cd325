"""`helm test`: trains a tiny model in the cluster, from `kubectl apply` to Complete, and deletes it again.

It writes a few images to a claim, applies a FineTuneJob that reads them, and says each phase until the job has ended.
Exit status 0 when the job completed, 1 when it did not, with the job's own reason.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any

from snowmelt_operator.api.conditions import Condition, ConditionType
from snowmelt_operator.api.stored import StoredJob
from snowmelt_operator.api.v1alpha1 import API_VERSION, KIND
from snowmelt_operator.apiserver import KubernetesCluster
from snowmelt_operator.cluster import Cluster, ClusterError, ClusterUnavailableError
from snowmelt_operator.connection import load_configuration
from snowmelt_operator.settings import SettingsError

SIDE = 32
IMAGES_OF_A_CLASS = 12
FOLDER = "snowmelt-selftest"
"""Below the claim's root, with the images in `train`."""
_POLL_SECONDS = 1.0


class SelfTestError(Exception):
    """The job did not complete; the message says why."""


def manifest(namespace: str, name: str, claim: str, *, node: str, seconds: int) -> dict[str, Any]:
    """The smallest job that goes through every part. `node`: where the claim is mounted, which it may be only once."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "backbone": {"architecture": "shufflenet_v2_x0_5", "weights": "None"},
            "data": {
                "train": {"uri": f"pvc://{claim}/{FOLDER}/train"},
                "imageSize": SIDE,
                "validation": {"fraction": 0.25},
                "augmentation": "None",
            },
            "unfreezing": {"strategy": "Full", "stage": {"maxEpochs": 1}},
            "optimization": {"batchSize": 6},
            # Not below the images' folder, which belongs to this pod's user and not to the trainer's.
            "output": {"uri": f"pvc://{claim}/{name}-model"},
            "workers": {"replicas": 1, "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
            "backoffLimit": 0,
            "activeDeadlineSeconds": seconds,
            **({"runtime": {"nodeSelector": {"kubernetes.io/hostname": node}}} if node else {}),
        },
    }


def write_images(root: Path) -> None:
    """Two classes of noise-free squares: dark ones and light ones."""
    for label, base in {"dark": 20, "light": 200}.items():
        folder = root / FOLDER / "train" / label
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(IMAGES_OF_A_CLASS):
            (folder / f"{index}.png").write_bytes(grey_square(base + index))


def grey_square(level: int) -> bytes:
    """A PNG of SIDE x SIDE pixels of one level of grey (8 bits)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    rows = (b"\0" + bytes([level]) * SIDE) * SIDE
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def run(cluster: Cluster, job: dict[str, Any], *, seconds: float) -> None:
    """Apply the job, wait until it is Complete, and delete it, however it ended.

    Raises:
        SelfTestError, ClusterError
    """
    namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
    deadline = time.monotonic() + seconds
    try:
        await cluster.delete(API_VERSION, KIND, namespace, name)
        while not await cluster.create(job):
            _assert_time(deadline, f"an earlier FineTuneJob {namespace}/{name} is still being deleted")
            await asyncio.sleep(_POLL_SECONDS)
        await _until_complete(cluster, namespace, name, deadline)
    finally:
        await cluster.delete(API_VERSION, KIND, namespace, name)


async def _until_complete(cluster: Cluster, namespace: str, name: str, deadline: float) -> None:
    said = None
    while True:
        try:
            job = await cluster.get_job(namespace, name)
        except ClusterUnavailableError as error:
            _assert_time(deadline, str(error))
        else:
            if job is None:
                raise SelfTestError(f"somebody deleted FineTuneJob {namespace}/{name}")
            if (phase := job.status.phase) != said:
                said = phase
                print(f"{namespace}/{name}: {phase or 'applied'}", flush=True)
            if _is(job, ConditionType.COMPLETE):
                return
            if failed := _is(job, ConditionType.FAILED):
                raise SelfTestError(f"the job failed: {failed.reason}: {failed.message}")
            _assert_time(deadline, _why_not_yet(job))
        await asyncio.sleep(_POLL_SECONDS)


def _is(job: StoredJob, type_: ConditionType) -> Condition | None:
    return next((each for each in job.status.conditions if each.type == type_ and each.status == "True"), None)


def _why_not_yet(job: StoredJob) -> str:
    if not job.status.conditions:
        return "no operator has taken the job up: do its pods run, and does it serve this namespace?"
    told = "; ".join(f"{each.type}={each.status} ({each.reason}) {each.message}" for each in job.status.conditions)
    return f"the job is {job.status.phase}: {told}"


def _assert_time(deadline: float, problem: str) -> None:
    if time.monotonic() > deadline:
        raise SelfTestError(f"not within the time given: {problem}")


async def _main(options: argparse.Namespace) -> None:
    if options.data is not None:
        write_images(options.data)
    cluster = KubernetesCluster(await load_configuration())
    job = manifest(options.namespace, options.name, options.claim, node=options.node, seconds=options.seconds)
    try:
        await run(cluster, job, seconds=options.seconds)
    finally:
        await cluster.aclose()


def main() -> None:
    """Exit status 1 when the job did not complete."""
    parser = argparse.ArgumentParser(prog="python -m snowmelt_operator.selftest", description=__doc__)
    parser.add_argument("--namespace", required=True, help="where the FineTuneJob is made")
    parser.add_argument("--name", required=True, help="its name")
    parser.add_argument("--claim", required=True, help="PersistentVolumeClaim for images and model")
    parser.add_argument("--data", type=Path, help="where that claim is mounted here; nothing is written without it")
    parser.add_argument("--node", default="", help="hostname of the node on which the job has to run; any without it")
    parser.add_argument("--seconds", type=int, default=600, help="longest time for it all (%(default)s)")
    options = parser.parse_args()
    try:
        asyncio.run(_main(options))
    except (SelfTestError, ClusterError, SettingsError, OSError) as error:
        sys.exit(f"selftest: {error}")
    print("the job completed")


if __name__ == "__main__":
    main()
