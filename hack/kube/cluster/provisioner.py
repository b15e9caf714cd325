"""Volumes for claims: `python -m hack.kube.cluster.provisioner KUBECONFIG FOLDER`.

Every claim of the storage class `shared` gets a folder below FOLDER as a hostPath volume. All nodes are on one machine,
so each of them sees it. When its claim is gone the volume goes, folder and all.
https://github.com/kubernetes/design-proposals-archive/blob/main/storage/volume-provisioning.md
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

STORAGE_CLASS = "shared"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
PROVISIONER = "snowmelt.dev/folder"
EVERYONE = 0o777
"""Mode of a volume's folder: trainers run as any user, and a kubelet does not chown a hostPath."""
WATCH_S = 60


def main() -> None:
    config.load_kube_config(sys.argv[1])  # type: ignore[no-untyped-call]
    folder = Path(sys.argv[2])
    core = client.CoreV1Api()
    removing = threading.Thread(target=_forever, args=(core.list_persistent_volume, remove_released, core, folder))
    removing.start()
    _forever(core.list_persistent_volume_claim_for_all_namespaces, provide, core, folder)


def provide(core: client.CoreV1Api, folder: Path, claim: Any) -> None:
    """Make the volume of a claim that waits for one. Idempotent: a volume's name follows from its claim."""
    if claim.spec.storage_class_name != STORAGE_CLASS or claim.spec.volume_name or claim.status.phase != "Pending":
        return
    name = f"pvc-{claim.metadata.uid}"
    (folder / name).mkdir(exist_ok=True)
    (folder / name).chmod(EVERYONE)
    try:
        core.create_persistent_volume(_volume(name, folder / name, claim))
    except ApiException as error:
        if error.status != 409:
            raise
    print(f"{claim.metadata.namespace}/{claim.metadata.name}: {name}", flush=True)


def remove_released(core: client.CoreV1Api, folder: Path, volume: Any) -> None:
    """Remove a volume of ours whose claim is gone."""
    ours = (volume.metadata.annotations or {}).get(PROVISIONED_BY) == PROVISIONER
    if not ours or volume.status.phase != "Released" or volume.spec.persistent_volume_reclaim_policy != "Delete":
        return
    shutil.rmtree(folder / volume.metadata.name, ignore_errors=True)
    core.delete_persistent_volume(volume.metadata.name)
    print(f"removed {volume.metadata.name}", flush=True)


def _volume(name: str, path: Path, claim: Any) -> Any:
    reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": claim.metadata.namespace}
    return {
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "storageClassName": STORAGE_CLASS,
            "capacity": {"storage": claim.spec.resources.requests["storage"]},
            "accessModes": claim.spec.access_modes,
            "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": str(path), "type": "Directory"},
            "claimRef": reference | {"name": claim.metadata.name, "uid": claim.metadata.uid},
        },
    }


def _watch(listing: Any) -> Iterator[dict[str, Any]]:
    events: Iterator[dict[str, Any]] = watch.Watch().stream(listing, timeout_seconds=WATCH_S)  # type: ignore[no-untyped-call]
    return events


def _forever(listing: Any, act: Any, core: client.CoreV1Api, folder: Path) -> None:
    """Act on every object, now and whenever it changes; list anew when a watch ends or the API server is away."""
    pause = threading.Event()
    while True:
        try:
            for event in _watch(listing):
                if event["type"] != "DELETED":
                    act(core, folder, event["object"])
        except Exception as error:
            print(f"trying again: {error}", file=sys.stderr, flush=True)
            pause.wait(1.0)


if __name__ == "__main__":
    main()
