"""What goes wrong around the operator: it dies, the API server goes, watches break, and somebody stores nonsense."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

from hack.kube import ControlPlane
from hack.kube.controlplane import eventually
from hack.localoperator import LocalOperator
from tests.controlplane.api import Api, condition, has, is_at_attempt, is_in_phase
from tests.controlplane.audit import created_by_operator
from tests.controlplane.conftest import REPOSITORY
from tests.controlplane.jobs import manifest, post, snapshot, succeeded
from tests.controlplane.kuberay_standin import KubeRayStandIn

OUTAGE_S = 20.0
HANG_S = 12.0
CRD = REPOSITORY / "crds" / "snowmelt.dev_finetunejobs.yaml"


def start_training(api: Api, kuberay: KubeRayStandIn, name: str) -> None:
    """A job in mid-training: it runs, and has reported once."""
    api.create("finetunejobs", manifest(name))
    kuberay.runs(f"{name}-a1")
    api.until("finetunejobs", name, is_in_phase("Running"))
    assert post(kuberay, f"{name}-a1", snapshot(1, 1)).is_success


def test_an_operator_killed_in_mid_training_is_succeeded_by_one_that_knows_everything(
    operator: LocalOperator, plane: ControlPlane, api: Api, kuberay: KubeRayStandIn
) -> None:
    for name in ("goes-on", "breaks", "ends", "pauses"):
        start_training(api, kuberay, name)
    assert post(kuberay, "ends-a1", succeeded(1, 2, "ends")).is_success
    operator.kill()

    kuberay.ends("breaks-a1", "FAILED", "Failed", reason="AppFailed", message="node lost")
    kuberay.ends("ends-a1", "SUCCEEDED", "Complete")
    api.patch("finetunejobs", "pauses", {"spec": {"suspend": True}})
    api.create("finetunejobs", manifest("is-new"))
    operator.start()

    api.until("finetunejobs", "breaks", is_at_attempt(2))
    api.until("finetunejobs", "ends", is_in_phase("Succeeded"))
    kuberay.lets_go("pauses-a1")
    api.until("finetunejobs", "pauses", is_in_phase("Suspended"))
    api.until("finetunejobs", "is-new", is_at_attempt(1))
    assert post(kuberay, "goes-on-a1", snapshot(1, 2, percent=70)).is_success
    job = api.until("finetunejobs", "goes-on", lambda job: job["status"]["progress"]["percent"] == 70)
    assert job["status"]["attempts"] == {**job["status"]["attempts"], "current": 1, "failed": 0}
    launched = ["breaks-a1", "breaks-a2", "ends-a1", "goes-on-a1", "is-new-a1", "pauses-a1"]
    assert sorted(created_by_operator(plane, api.namespace, "rayjobs")) == launched


def test_an_operator_killed_again_and_again_while_it_launches_launches_each_job_once(
    make_operator: Callable[..., LocalOperator], plane: ControlPlane, api: Api
) -> None:
    operator = make_operator()
    names = [f"storm-{number:02}" for number in range(20)]
    for name in names:
        api.create("finetunejobs", manifest(name))
    for target in (3, 8, 14):
        operator.service.start()
        eventually(
            lambda least=target: len(api.list("rayjobs")) >= least,  # type: ignore[misc]
            f"fewer than {target} RayJobs",
            within_s=60,
            every_s=0.05,
        )
        operator.kill()
    operator.start()
    for name in names:
        job = api.until("finetunejobs", name, is_at_attempt(1))
        assert job["status"]["attempts"]["failed"] == 0
    assert sorted(rayjob["metadata"]["name"] for rayjob in api.list("rayjobs")) == [f"{name}-a1" for name in names]
    created = created_by_operator(plane, api.namespace, "rayjobs")
    assert len(created) == len(set(created))


def test_an_api_server_that_is_down_for_twenty_seconds_costs_nothing(
    operator: LocalOperator, plane: ControlPlane, api: Api, kuberay: KubeRayStandIn
) -> None:
    start_training(api, kuberay, "outage")
    rayjob, pid = "outage-a1", operator.service.pid
    speak = speaker(kuberay, rayjob)
    plane.stop_apiserver()
    assert still_refused(speak, OUTAGE_S) == {503}
    plane.start_apiserver()

    speak_until_heard(speak)
    kuberay.ends(rayjob, "SUCCEEDED", "Complete")
    api.until("finetunejobs", "outage", is_in_phase("Succeeded"), within_s=60)
    assert (operator.service.pid, operator.service.runs) == (pid, True)
    assert created_by_operator(plane, api.namespace, "rayjobs") == [rayjob]


def test_an_api_server_that_hangs_costs_nothing(
    operator: LocalOperator, plane: ControlPlane, api: Api, kuberay: KubeRayStandIn
) -> None:
    start_training(api, kuberay, "hang")
    speak = speaker(kuberay, "hang-a1")
    plane.apiserver.pause()
    try:
        assert still_refused(speak, HANG_S) == {503}
    finally:
        plane.apiserver.resume()
    speak_until_heard(speak)
    kuberay.ends("hang-a1", "SUCCEEDED", "Complete")
    api.until("finetunejobs", "hang", is_in_phase("Succeeded"), within_s=60)
    assert created_by_operator(plane, api.namespace, "rayjobs") == ["hang-a1"]


def test_an_operator_that_starts_before_the_api_server_waits_for_it(
    make_operator: Callable[..., LocalOperator], plane: ControlPlane, api: Api
) -> None:
    api.create("finetunejobs", manifest("early"))
    operator = make_operator()
    plane.stop_apiserver()
    operator.service.start()
    time.sleep(5)  # long enough for the operator to have asked and been refused
    plane.start_apiserver()
    api.until("finetunejobs", "early", is_at_attempt(1), within_s=60)
    assert operator.service.runs


def test_a_watch_gone_with_410_misses_neither_what_came_nor_what_went(
    operator: LocalOperator, plane: ControlPlane, api: Api, kuberay: KubeRayStandIn
) -> None:
    for name in ("loses-run", "is-deleted", "stays"):
        start_training(api, kuberay, name)
    before = (api.get("finetunejobs", "stays") or {})["metadata"]["resourceVersion"]
    # The watches break first: what happened while they still stood would wait for the operator in its sockets.
    plane.stop_apiserver()
    operator.service.pause()
    try:
        plane.start_apiserver()
        kuberay.vanishes("loses-run-a1")
        api.delete("finetunejobs", "is-deleted")
        api.create("finetunejobs", manifest("arrives"))
        # A restarted API server knows no older versions than its own start.
        plane.stop_apiserver()
        plane.start_apiserver()
        eventually(lambda: api.watch_code("finetunejobs", before) != 429, "its storage is not initialised", within_s=60)
        assert api.watch_code("finetunejobs", before) == 410
    finally:
        operator.service.resume()
    api.until("finetunejobs", "loses-run", is_at_attempt(2), within_s=60)
    api.until("finetunejobs", "arrives", is_at_attempt(1), within_s=60)
    assert api.get("finetunejobs", "is-deleted") is None
    assert post(kuberay, "stays-a1", snapshot(1, 2)).is_success
    kuberay.ends("stays-a1", "FAILED", "Failed")
    api.until("finetunejobs", "stays", is_at_attempt(2))


def test_nonsense_that_was_stored_while_validation_was_off_stops_nobody_else(
    operator: LocalOperator, plane: ControlPlane, api: Api, kuberay: KubeRayStandIn
) -> None:
    start_training(api, kuberay, "sane")
    nonsense = manifest("nonsense", backbone={"architecture": ["resnet18"]}, workers="many", suspend="perhaps")
    with without_validation(plane):
        eventually(lambda: accepts(api, nonsense), "the new schema is not served", within_s=60)
        job = api.until("finetunejobs", "nonsense", has("Accepted", status="False", reason="InvalidSpec"))
    assert "workers" in condition(job, "Accepted")["message"]
    assert api.get("rayjobs", "nonsense-a1") is None

    api.create("finetunejobs", manifest("next"))
    api.until("finetunejobs", "next", is_at_attempt(1))
    kuberay.ends("sane-a1", "FAILED", "Failed")
    api.until("finetunejobs", "sane", is_at_attempt(2))
    assert operator.service.runs


def speaker(kuberay: KubeRayStandIn, rayjob: str) -> Callable[[], int]:
    """The driver at work: it keeps the trainer's last word and sends it when asked; the answer's code."""
    token, config = kuberay.token_of(rayjob), json.loads(kuberay.config_of(rayjob))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = succeeded(1, 2, rayjob).model_dump_json(by_alias=True, exclude_none=True)
    return lambda: httpx.post(config["progress"]["url"], content=body, headers=headers, timeout=30).status_code


def still_refused(speak: Callable[[], int], seconds: float) -> set[int]:
    """Every code that the endpoint answered with during an outage of that length; 429 says no more than `slower`."""
    end, codes = time.monotonic() + seconds, set()
    while time.monotonic() < end:
        codes.add(speak())
        time.sleep(1)
    return codes - {429}


def speak_until_heard(speak: Callable[[], int]) -> None:
    eventually(lambda: speak() == 200, "the operator does not answer", within_s=60, every_s=1)


def accepts(api: Api, job: dict[str, object]) -> bool:
    try:
        api.create("finetunejobs", job)
    except httpx.HTTPStatusError:
        return False
    return True


@contextmanager
def without_validation(plane: ControlPlane) -> Iterator[None]:
    """FineTuneJobs of any shape are stored, as an older or a tampered CRD would."""
    crd = yaml.safe_load(CRD.read_text())
    (version,) = crd["spec"]["versions"]
    version["schema"]["openAPIV3Schema"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(crd))
    try:
        yield
    finally:
        plane.install_crds(Path(CRD))
