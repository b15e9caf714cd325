"""The demo: control plane, Ray, operator, `kubectl apply`, and the job watched until it is done."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hack.demo.inputs import EXAMPLES, InputsError, fill_volumes
from hack.kube import BinariesMissingError, ControlPlane, ControlPlaneError, find_binaries, marked
from hack.localoperator import LocalOperator
from hack.localray import LocalRay

REPOSITORY = EXAMPLES.parent
MANIFEST = EXAMPLES / "digits.yaml"
JOB = "digits"
USER = "alice"
MARK = "DEMO_OF_SNOWMELT"
"""Environment variable that all processes of one demo inherit, so that none is left behind."""
CPUS = 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hack.demo", description=__doc__)
    parser.add_argument("--directory", type=Path, default=REPOSITORY / ".demo", help="where all lies (%(default)s)")
    folder = parser.parse_args().directory.resolve()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    os.environ[MARK] = secrets.token_hex(8)
    try:
        with _alone(folder):
            return demo(folder)
    except KeyboardInterrupt:
        print("\ninterrupted: everything is being stopped", file=sys.stderr)
        return 130
    except (BinariesMissingError, ControlPlaneError, InputsError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        # A second Ctrl-C must not stop the stopping.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        marked.kill(MARK, os.environ[MARK])


def demo(folder: Path) -> int:
    """Run it; 0 only when the job Succeeded."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:3.0f} s] {text}", flush=True)

    binaries = find_binaries()
    volumes = folder / "volumes"
    say("writing the digits and the pretrained backbone")
    fill_volumes(volumes)
    with ExitStack() as stack:
        say("starting etcd and kube-apiserver")
        plane = stack.enter_context(ControlPlane(folder / "kube", binaries=binaries))
        plane.install_crds(*sorted((REPOSITORY / "crds").glob("*.yaml")))
        plane.kubectl("apply", "-f", REPOSITORY / "hack/kube/rbac.yaml")
        say("starting Ray")
        ray = stack.enter_context(LocalRay(folder / "ray.log", cpus=CPUS))
        stack.callback(_keep_trainer_log, ray, folder / "trainer.log")
        say("starting the operator")
        settings: dict[str, str | Path] = {"ray_address": ray.dashboard_url, "ray_token_file": ray.token_file}
        log = folder / "operator.log"
        stack.enter_context(LocalOperator(plane, log, launcher="ray", volumes_root=volumes, **settings))
        say(f"kubectl apply -f {MANIFEST.relative_to(REPOSITORY)}")
        print(plane.kubectl("apply", "-f", MANIFEST, user=USER), end="", flush=True)
        job = watch(plane, folder / "finetunejob.json")
        say("done")
        print(plane.kubectl("get", "finetunejob", JOB, "-o", "wide", user=USER), end="")
    return conclude(job, folder)


def watch(plane: ControlPlane, kept: Path) -> dict[str, Any]:
    """Show the job live until it has ended; the final object, which is also left in the file `kept`."""
    command = [sys.executable, "-m", "snowmelt_cli", "watch", JOB]
    subprocess.run(command, env=os.environ | {"KUBECONFIG": str(plane.kubeconfig(USER))}, check=False)
    job: dict[str, Any] = plane.get("finetunejob", JOB, user=USER)
    kept.write_text(json.dumps(job, indent=2) + "\n")
    return job


def conclude(job: dict[str, Any], folder: Path) -> int:
    """Say how it ended and where everything lies."""
    status = job.get("status", {})
    succeeded = status.get("phase") == "Succeeded"
    if succeeded:
        model = folder / "volumes" / status["result"]["modelUri"].removeprefix("pvc://")
        print(f"model    {_shown(model / 'model.safetensors')}\nmetrics  {_shown(model / 'metrics.json')}")
    else:
        print(f"the job did not succeed: {_failure(status)}", file=sys.stderr)
    print(f"object   {_shown(folder / 'finetunejob.json')}")
    print(f"logs     {_shown(folder / 'operator.log')} and {_shown(folder / 'trainer.log')}")
    return 0 if succeeded else 1


def _failure(status: dict[str, Any]) -> str:
    for condition in status.get("conditions", []):
        if condition["type"] == "Failed" and condition["status"] == "True":
            return f"{condition['reason']}: {condition.get('message', '')}"
    return f"phase {status.get('phase', 'unknown')}"


def _shown(path: Path) -> Path:
    return path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path


def _keep_trainer_log(ray: LocalRay, kept: Path) -> None:
    """Copy what the trainer printed, before Ray and its folder go."""
    kept.write_text("".join(log.read_text(errors="replace") for log in sorted(ray.logs.glob("job-driver-*.log"))))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder, emptied, while no other demo uses it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ControlPlaneError(f"another demo uses {folder}: wait for it or stop it") from None
        for left in folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != "lock":
                left.unlink()
        yield


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
