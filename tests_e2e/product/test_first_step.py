"""What the operator adds to the time until the first optimizer step, against the same RayJob applied by hand."""

from __future__ import annotations

import json
import time
from statistics import median
from typing import Any

from hack.kube.controlplane import eventually
from tests_e2e.product.folders import Folder
from tests_e2e.product.jobs import ASKS_EVERY_S, example
from tests_e2e.product.measured import Measured
from tests_e2e.product.world import Namespace

ROUNDS = 3
MORE_AT_MOST_S = 2.0
STEPS_WITHIN_S = 300.0


def test_the_first_step_comes_at_most_2_seconds_later_than_by_hand(namespace: Namespace, measured: Measured) -> None:
    models = namespace.folder("models")
    by_operator, by_hand = [], []
    for number in range(ROUNDS):
        job = namespace.apply(one_checkpoint_a_step(f"ours-{number}"))
        by_operator.append(await_first_step(models / job.name))
        copies = by_hand_from(namespace, job.name, f"hand-{number}")
        namespace.kubectl("delete", "finetunejob", job.name, "-n", namespace.name)
        await_no_pods(namespace)
        namespace.world.apply(*copies)
        by_hand.append(await_first_step(models / f"hand-{number}"))
        namespace.kubectl("delete", "rayjob", f"hand-{number}", "-n", namespace.name)
        await_no_pods(namespace)
    measured(f"apply to first step, operator, median of {ROUNDS}", median(by_operator))
    measured(f"apply to first step, by hand, median of {ROUNDS}", median(by_hand))
    assert median(by_operator) - median(by_hand) <= MORE_AT_MOST_S, (by_operator, by_hand)


def one_checkpoint_a_step(name: str) -> dict[str, Any]:
    """So that the first checkpoint shows when the first step was taken."""
    job = example("full", output={"uri": f"pvc://models/{name}"})
    job["metadata"]["name"] = name
    job["spec"]["optimization"]["checkpointEverySteps"] = 1
    return job


def await_first_step(output: Folder) -> float:
    """Seconds from now until the first checkpoint is there."""
    applied = time.monotonic()
    first = ".snowmelt/*/checkpoints/s*/state.json"
    eventually(lambda: bool(output.found(first)), f"no step in {output}", STEPS_WITHIN_S)
    return time.monotonic() - applied


def await_no_pods(namespace: Namespace) -> None:
    """What went before must not take the next one's time."""
    eventually(lambda: namespace.pods_of_jobs() == [], "pods stay", 120.0, ASKS_EVERY_S)


def by_hand_from(namespace: Namespace, job: str, name: str) -> list[dict[str, Any]]:
    """The Secret and the RayJob of a job's attempt, as somebody would write them who has no operator."""
    secret = namespace.get("secret", f"{job}-a1")
    rayjob = namespace.get("rayjob", f"{job}-a1")
    config = json.loads(namespace.kubectl("get", "secret", f"{job}-a1", "-n", namespace.name, "-o", CONFIG_OF))
    config.pop("progress")
    config["output"]["uri"] = f"pvc://models/{name}"
    config["job"] |= {"name": name, "uid": name}
    metadata = {"name": name, "namespace": namespace.name}
    spec = {key: value for key, value in rayjob["spec"].items() if key not in ("suspend", "jobId")}
    spec = json.loads(json.dumps(spec).replace(f'"{secret["metadata"]["name"]}"', f'"{name}"'))
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"config.json": json.dumps(config)}},
        {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec},
    ]


CONFIG_OF = 'go-template={{index .data "config.json" | base64decode}}'
