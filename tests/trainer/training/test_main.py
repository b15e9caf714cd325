"""`python -m snowmelt_trainer` from outside: exit codes, final records, and what SIGTERM leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from hack.kube.controlplane import eventually
from snowmelt_trainer.contract import FinalRecord, Outcome, Reason, RunConfig
from snowmelt_trainer.contract.progress import Progress
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.driver.main import EXIT_FAILED, EXIT_STOPPED, EXIT_USAGE, Stopped, main, stoppable
from snowmelt_trainer.driver.publish import publish
from tests.trainer.training.runs import run

Configure = Callable[..., RunConfig]


def carried_out(config: RunConfig, folder: Path) -> tuple[int, FinalRecord]:
    (folder / "config.json").write_text(config.model_dump_json(by_alias=True))
    code = main(["--config", str(folder / "config.json"), "--progress-file", str(folder / "progress.jsonl")])
    last = Progress.model_validate_json((folder / "progress.jsonl").read_text().splitlines()[-1])
    assert last.final is not None
    return code, last.final


def remove(root: Path) -> None:
    shutil.rmtree(root)


def empty_a_class(root: Path) -> None:
    for image in (root / "3").iterdir():
        image.unlink()


def leave_one_class(root: Path) -> None:
    for digit in range(1, 10):
        shutil.rmtree(root / str(digit))


def write_text_into_an_image(root: Path) -> None:
    (root / "7" / "spoilt.png").write_text("no image at all")


def cut_an_image_short(root: Path) -> None:
    whole = next((root / "7").iterdir()).read_bytes()
    (root / "7" / "spoilt.png").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("spoil", "reason", "named"),
    [
        (remove, Reason.DATA_NOT_FOUND, "train"),
        (empty_a_class, Reason.DATA_EMPTY, "3"),
        (leave_one_class, Reason.SINGLE_CLASS, "0"),
        (write_text_into_an_image, Reason.CORRUPT_IMAGE, "7/spoilt.png"),
        (cut_an_image_short, Reason.CORRUPT_IMAGE, "7/spoilt.png"),
    ],
)
def test_bad_data_ends_with_its_reason_and_its_place(
    configure: Configure, tmp_path: Path, spoil: Callable[[Path], None], reason: Reason, named: str
) -> None:
    good = configure().data.train.uri.removeprefix("file://")
    shutil.copytree(good, tmp_path / "train")
    spoil(tmp_path / "train")
    config = configure(data={"train": {"uri": f"file://{tmp_path}/train"}})
    code, record = carried_out(config, tmp_path)
    assert (code, record.outcome, record.reason) == (EXIT_FAILED, Outcome.FAILED, reason)
    assert named in record.message
    assert "Traceback" not in record.message
    assert "\n" not in record.message
    assert FinalRecord.model_validate_json(Layout.of(config).record.read_bytes()) == record


def test_an_output_that_cannot_be_written_is_found_before_training(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where a folder should be")
    code, record = carried_out(configure(), tmp_path)
    assert (code, record.reason) == (EXIT_FAILED, Reason.OUTPUT_UNWRITABLE)
    assert str(tmp_path / "models") in record.message


@pytest.mark.parametrize("text", ["{", "{}", '{"job": {"namespace": "a", "name": "b", "uid": "../../c"}}'])
def test_a_configuration_that_cannot_be_read_is_a_usage_error(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(text)
    assert main(["--config", str(tmp_path / "config.json")]) == EXIT_USAGE
    assert "cannot read the run's configuration" in capsys.readouterr().err


def start(config: RunConfig, folder: Path, attempt: int) -> tuple[subprocess.Popen[bytes], Path]:
    progress = folder / f"progress-{attempt}.jsonl"
    again = config.model_copy(update={"job": config.job.model_copy(update={"attempt": attempt})})
    environ = os.environ | {"SNOWMELT_RUN_CONFIG": again.model_dump_json(by_alias=True)}
    environ.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "snowmelt_trainer", "--progress-file", str(progress)]
    with (folder / f"log-{attempt}").open("wb") as log:
        return subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True), progress


def snapshots(file: Path) -> list[Progress]:
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [Progress.model_validate_json(line) for line in lines if line.endswith("\n")]


def in_session(session: int) -> list[int]:
    """Processes that still run in the session of a process that we started, itself included."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_stop_is_heard_while_the_driver_waits_for_ray() -> None:
    class Waits:
        def ever(self) -> None:
            threading.Event().wait()

    actor = ray.remote(Waits).options(num_cpus=0).remote()
    stop = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stop.start()
    try:
        with pytest.raises(Stopped) as stopped, stoppable():
            ray.get(actor.ever.remote(), timeout=60)
        assert isinstance(stopped.value.__cause__, KeyboardInterrupt)  # and not the end of the wait
    finally:
        stop.join()
        ray.kill(actor)


@pytest.mark.ray
def test_a_stopped_attempt_leaves_no_last_word_and_the_next_one_goes_on_from_its_checkpoint(
    configure: Configure, tmp_path: Path
) -> None:
    config = configure(  # long enough that it is not over when the first checkpoint has been told of
        unfreezing={"strategy": "LinearProbeThenFineTune", "stage": {"maxEpochs": 40, "patience": 40}},
        optimization={"batchSize": 45, "precision": "Float32"},
    )
    first, progress = start(config, tmp_path, 1)
    eventually(lambda: any(shot.checkpoint for shot in snapshots(progress)), "no checkpoint has been told of", 200)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == EXIT_STOPPED
    assert all(shot.final is None for shot in snapshots(progress))
    assert not Layout.of(config).record.exists()
    eventually(lambda: not in_session(first.pid), "some of its processes have not ended", 20)

    second, progress = start(config, tmp_path, 2)
    assert second.wait(200) == 0
    shots = snapshots(progress)
    assert shots[-1].final is not None
    assert shots[-1].final.outcome is Outcome.SUCCEEDED
    resumed = next(shot.checkpoint for shot in shots if shot.checkpoint)
    assert resumed.epoch >= 1
    assert sum(row.epochs for row in shots[-1].stages) == 80
    eventually(lambda: not in_session(second.pid), "some of its processes have not ended", 20)


def test_another_runs_model_is_kept_when_a_new_one_is_published(configure: Configure, tmp_path: Path) -> None:
    for uid in ("old", "new"):
        config = configure(uid=uid, unfreezing={"strategy": "HeadOnly", "stage": {"maxEpochs": 1}})
        trained = run(config)
        publish(config, trained)
        publish(config, trained)  # done again after a crash, it ends the same
    root = Layout.of(config).root
    kept = root / ".snowmelt" / "old" / "previous"
    owners = [json.loads((folder / "run.json").read_text())["job"]["uid"] for folder in (root, kept)]
    assert owners == ["new", "old"]
    assert {path.name for path in kept.iterdir()} == {path.name for path in root.iterdir() if path.is_file()}


def test_the_driver_starts_without_torchvision_which_takes_seconds_to_load() -> None:
    """Nor does Ray Train's controller load it, which knows the driver's modules alone."""
    code = "import sys, snowmelt_trainer.driver.main; sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
