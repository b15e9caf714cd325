"""FineTuneJobs under the KubeRay launcher: real API server, real operator, real progress reports; KubeRay is played."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from hack.kube import ControlPlane
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.contract.run import RunConfig
from tests.controlplane.api import Object, condition, has, is_at_attempt, is_in_phase
from tests.controlplane.jobs import failed, manifest, post, snapshot, succeeded
from tests.controlplane.kuberay_standin import collect_garbage
from tests.controlplane.operators import Served


def test_a_job_goes_from_apply_to_succeeded(served: Served, plane: ControlPlane) -> None:
    api, kuberay = served.api, served.kuberay
    plane.kubectl("apply", "-n", api.namespace, "-f", "-", user="alice", stdin=json.dumps(manifest("shoes")))
    kuberay.initializes("shoes-a1")
    job = api.until("finetunejobs", "shoes", is_in_phase("Starting"))
    assert has("Accepted")(job)
    assert job["status"]["rayJobName"] == "shoes-a1"

    kuberay.runs("shoes-a1")
    job = api.until("finetunejobs", "shoes", is_in_phase("Running"))
    assert job["status"]["dashboardUrl"] == "shoes-a1:8265"
    assert post(kuberay, "shoes-a1", snapshot(1, 1, percent=40)).status_code == 200
    job = api.until("finetunejobs", "shoes", has("CheckpointAvailable"))
    assert has("Progressing")(job)
    assert job["status"]["progress"]["percent"] == 40
    assert job["status"]["display"]["stage"] == "1/3 fc"

    assert post(kuberay, "shoes-a1", succeeded(1, 2, "shoes")).status_code == 200
    kuberay.ends("shoes-a1", "SUCCEEDED", "Complete")
    job = api.until("finetunejobs", "shoes", is_in_phase("Succeeded"))
    assert has("Complete", reason=Reason.TARGET_MET)(job)
    assert job["status"]["result"]["modelUri"] == "pvc://models/shoes"
    assert job["status"]["observedGeneration"] == job["metadata"]["generation"]
    assert served.rayjobs_of("shoes") == ["shoes-a1"]
    assert api.told("shoes", "Launched")
    assert api.told("shoes", "TargetMet")
    plane.kubectl("wait", "-n", api.namespace, "--for=condition=Complete", "--timeout=1s", "ftj/shoes", user="alice")
    row = plane.kubectl("get", "ftj", "shoes", "-n", api.namespace, "--no-headers", user="alice").split()
    assert row[:2] == ["shoes", "Succeeded"]


def test_the_trainer_is_told_its_attempt_and_where_to_report(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    job = api.create("finetunejobs", manifest("told"))
    config = RunConfig.model_validate_json(kuberay.config_of("told-a1"))
    assert (config.job.name, config.job.uid, config.job.attempt) == ("told", job["metadata"]["uid"], 1)
    assert config.progress is not None
    assert config.progress.url.startswith(f"http://127.0.0.1:{served.operator.progress_port}/")


def test_suspending_deletes_the_rayjob_and_resuming_starts_an_attempt_that_is_no_failure(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    api.create("finetunejobs", manifest("paused"))
    kuberay.runs("paused-a1")
    api.until("finetunejobs", "paused", is_in_phase("Running"))
    post(kuberay, "paused-a1", snapshot(1, 1))

    api.patch("finetunejobs", "paused", {"spec": {"suspend": True}})
    api.until("rayjobs", "paused-a1", lambda rayjob: "deletionTimestamp" in rayjob["metadata"])
    assert not has("Suspended")(api.get("finetunejobs", "paused") or {})  # the Ray job is still being stopped
    kuberay.lets_go("paused-a1")
    api.until("finetunejobs", "paused", is_in_phase("Suspended"))

    api.patch("finetunejobs", "paused", {"spec": {"suspend": False}})
    kuberay.runs("paused-a2")
    job = api.until("finetunejobs", "paused", is_in_phase("Running"))
    assert job["status"]["attempts"]["failed"] == 0
    assert RunConfig.model_validate_json(kuberay.config_of("paused-a2")).job.uid == job["metadata"]["uid"]
    assert served.rayjobs_of("paused") == ["paused-a2"]


def test_a_job_that_is_created_suspended_launches_nothing_until_it_is_resumed(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    api.create("finetunejobs", manifest("later", suspend=True))
    api.until("finetunejobs", "later", is_in_phase("Suspended"))
    assert served.rayjobs_of("later") == []
    api.patch("finetunejobs", "later", {"spec": {"suspend": False}})
    kuberay.runs("later-a1")
    api.until("finetunejobs", "later", is_in_phase("Running"))


def test_deleting_a_job_leaves_nothing_that_the_garbage_collector_would_not_take(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    api.create("finetunejobs", manifest("gone"))
    kuberay.initializes("gone-a1")
    token_holder = kuberay.token_of("gone-a1")
    assert token_holder
    api.delete("finetunejobs", "gone")
    api.until_gone("finetunejobs", "gone")
    collect_garbage(api)
    kuberay.lets_go("gone-a1")
    assert served.rayjobs_of("gone") == []
    assert api.get("secrets", "gone-a1") is None


def test_the_active_deadline_fails_the_job_and_stops_its_run(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    api.create("finetunejobs", manifest("slow", activeDeadlineSeconds=4))
    kuberay.runs("slow-a1")
    api.until("finetunejobs", "slow", is_in_phase("Running"))
    api.until("finetunejobs", "slow", has("Failed", reason="DeadlineExceeded"))
    kuberay.lets_go("slow-a1")
    assert served.rayjobs_of("slow") == []


def test_the_startup_deadline_fails_a_job_whose_cluster_does_not_come_up(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    api.create("finetunejobs", manifest("stuck", startupDeadlineSeconds=2))
    kuberay.initializes("stuck-a1")
    job = api.until("finetunejobs", "stuck", has("Failed", reason="StartupDeadlineExceeded"))
    assert "startupDeadlineSeconds" in condition(job, "Failed")["message"]


def test_time_in_a_queue_does_not_count_towards_the_startup_deadline(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    job = api.create("finetunejobs", manifest("patient", startupDeadlineSeconds=2, runtime={"queueName": "team-a"}))
    kuberay.is_suspended("patient-a1")
    api.until("finetunejobs", "patient", is_in_phase("Queued"))
    end = time.monotonic() + 4
    while time.monotonic() < end:  # twice the deadline: the fact is that nothing happens
        job = api.until("finetunejobs", "patient", lambda _: True)
        assert job["status"]["phase"] == "Queued"
        time.sleep(0.2)
    kuberay.is_admitted("patient-a1")
    api.until("finetunejobs", "patient", is_in_phase("Running"))


def test_a_failed_attempt_is_followed_by_another_until_the_backoff_limit(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    api.create("finetunejobs", manifest("flaky", backoffLimit=1))
    kuberay.runs("flaky-a1")
    kuberay.ends("flaky-a1", "FAILED", "Failed", reason="AppFailed", message="head lost")
    job = api.until("finetunejobs", "flaky", is_at_attempt(2))
    assert job["status"]["attempts"]["failed"] == 1

    kuberay.runs("flaky-a2")
    kuberay.ends("flaky-a2", "FAILED", "Failed", reason="AppFailed", message="head lost again")
    job = api.until("finetunejobs", "flaky", has("Failed", reason="BackoffLimitExceeded"))
    assert job["status"]["attempts"]["failed"] == 2
    assert "head lost again" in condition(job, "Failed")["message"]
    assert api.get("rayjobs", "flaky-a3") is None


def test_a_trainer_that_says_trying_again_is_useless_is_believed(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    api.create("finetunejobs", manifest("lost"))
    kuberay.runs("lost-a1")
    assert post(kuberay, "lost-a1", failed(1, 1, Reason.DATA_NOT_FOUND, "pvc://shoes/train is empty")).is_success
    job = api.until("finetunejobs", "lost", has("Failed", reason=Reason.DATA_NOT_FOUND))
    assert condition(job, "Failed")["message"] == "pvc://shoes/train is empty"
    assert api.get("rayjobs", "lost-a2") is None


def test_a_finished_job_is_deleted_when_its_time_is_over(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    api.create("finetunejobs", manifest("brief", ttlSecondsAfterFinished=1))
    kuberay.runs("brief-a1")
    assert post(kuberay, "brief-a1", succeeded(1, 1, "brief")).is_success
    kuberay.ends("brief-a1", "SUCCEEDED", "Complete")
    api.until_gone("finetunejobs", "brief")


def test_a_token_is_good_for_its_own_job_and_its_own_attempt_alone(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    for name in ("mine", "yours"):
        api.create("finetunejobs", manifest(name))
        kuberay.runs(f"{name}-a1")
        api.until("finetunejobs", name, is_in_phase("Running"))
    assert post(kuberay, "mine-a1", snapshot(1, 1), token_of="yours-a1").status_code == 403
    assert post(kuberay, "mine-a1", snapshot(2, 1)).status_code == 403

    kuberay.ends("mine-a1", "FAILED", "Failed")
    api.until("finetunejobs", "mine", is_at_attempt(2))
    assert post(kuberay, "mine-a1", snapshot(1, 2)).status_code == 409
    job = api.get("finetunejobs", "mine")
    assert job is not None
    assert "progress" not in job["status"]


def test_an_elastic_job_starts_with_the_fewest_pods_and_asks_for_the_rest_once_it_runs(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    api.create("finetunejobs", manifest("elastic", workers={"elastic": {"min": 2, "max": 5}}))
    (group,) = kuberay.makes_the_cluster("elastic-a1")["spec"]["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (2, 2, 5)

    def replicas(count: int) -> Callable[[Object], bool]:
        return lambda cluster: cluster["spec"]["workerGroupSpecs"][0]["replicas"] == count

    kuberay.initializes("elastic-a1")
    api.until("finetunejobs", "elastic", is_in_phase("Starting"))
    assert replicas(2)(api.until("rayclusters", "elastic-a1-abc34", lambda _: True))
    kuberay.runs("elastic-a1")
    grown = api.until("rayclusters", "elastic-a1-abc34", replicas(5))

    assert post(kuberay, "elastic-a1", snapshot(1, 1, percent=40)).status_code == 200
    api.until("finetunejobs", "elastic", has("Progressing"))
    assert api.get("rayclusters", "elastic-a1-abc34") == grown  # asked for once
