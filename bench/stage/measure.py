"""Times whole epochs of each case, the cases taking turns, and the memory of each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from bench.stage.plain import PlainLoop
from bench.stage.work import CASES, SHORT, Case, Work, config_of
from snowmelt_trainer.accelerator import settle
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.contract.progress import CacheStatus
from snowmelt_trainer.data.opening import open_data
from snowmelt_trainer.driver.worker import set_up
from snowmelt_trainer.training.allocation import keep_freed_memory
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.stage import StageTraining
from snowmelt_trainer.training.state import RunState


@dataclass
class Epochs:
    """What was measured of one case in one precision."""

    seconds: list[float] = field(default_factory=list)
    """Of one whole epoch, by repeat: steps, validation and, of ours, the checkpoints."""
    processor: list[float] = field(default_factory=list)
    """Seconds of processor time of the same; of one thread, they hardly depend on what else the machine does."""
    first: float = 0.0
    """Of the first epoch, which fills the cache where there is one."""
    cache: CacheStatus | None = None


def epoch_of(
    work: Work, case: Case, precision: Precision, folder: Path, world: World | None = None
) -> tuple[Callable[[], None], StageTraining]:
    """What trains one whole epoch of the case, as one of the workers of `world`, and the stage that it runs in (of the
    plain loop, a stage that gave it its network and data)."""
    config = config_of(work, case, precision, folder)
    data = open_data(config.data, seed=0, volumes_root="")
    backbone, rig = set_up(config, data, world or World(device=torch.device(work.device)), lambda _: None)
    stage = StageTraining(rig, RunState(fingerprint=rig.fingerprint), b"")
    if case.unfreeze is not None:
        return stage.epoch, stage
    loop = PlainLoop(
        with_torchs_layers(backbone.model),
        rig.train.dataset,
        rig.validation.dataset,
        batch=work.batch_size,
        precision=precision,
        device=rig.world.device,
    )

    def epoch() -> None:
        loop.train()
        loop.validate()

    return epoch, stage


def with_torchs_layers(model: nn.Module) -> nn.Module:
    """The network as torchvision makes it: without what `place_model` gave its modules on a processor."""
    for module in model.modules():
        vars(module).pop("forward", None)
    return model


def time_epochs(
    work: Work, precision: Precision, repeats: int, folder: Path, say: Callable[[str], None]
) -> list[Epochs]:
    """All cases by their order in CASES; in each repeat they run one after another, beginning with another one."""
    torch.set_num_threads(work.threads)
    keep_freed_memory()  # as each worker does; the plain loop, in the same process, gains by it, too
    running = [epoch_of(work, case, precision, folder / f"{precision}-{i}") for i, case in enumerate(CASES)]
    found = [Epochs() for _ in CASES]
    for one, epochs in zip(running, found, strict=True):
        epochs.first = _timed(*one, 1)[0]
    for repeat in range(repeats):
        for turn in range(len(CASES)):
            index = (repeat + turn) % len(CASES)
            seconds, processor = _timed(*running[index], SHORT if CASES[index].short else work.epochs)
            found[index].seconds.append(seconds)
            found[index].processor.append(processor)
        say(f"{precision}, repeat {repeat + 1}: " + ", ".join(f"{one.seconds[-1]:.3f}" for one in found) + " s")
    for (_, stage), epochs in zip(running, found, strict=True):
        epochs.cache = stage.state.cache
    return found


def _timed(epoch: Callable[[], None], stage: StageTraining, times: int) -> tuple[float, float]:
    """Seconds, and seconds of processor time, of one of so many epochs, the last one's checkpoint included."""
    started, worked = time.perf_counter(), time.process_time()
    for _ in range(times):
        epoch()
    stage.keeper.settle()  # or it would be written in the next case's time
    settle(stage.rig.world.device)
    return (time.perf_counter() - started) / times, (time.process_time() - worked) / times


def peaks(work: Work, precision: Precision, processes: int, folder: Path) -> list[list[int]]:
    """`peak_memory` of so many processes of each case, the cases taking turns."""
    found: list[list[int]] = [[] for _ in CASES]
    for number in range(processes):
        for index, most in enumerate(found):
            most.append(peak_memory(work, index, precision, folder / str(number)))
    return found


def peak_memory(work: Work, index: int, precision: Precision, folder: Path) -> int:
    """Bytes that a new process, which trains two epochs of the case, has at most: resident, or on an accelerator those
    that torch has allocated there."""
    document = json.dumps(asdict(work) | {"images": str(work.images)})
    arguments = [document, str(folder / f"memory-{precision}-{index}"), str(index), precision.value]
    done = subprocess.run(
        [sys.executable, "-m", "bench.stage.measure", *arguments], stdout=subprocess.PIPE, check=True, text=True
    )
    return int(json.loads(done.stdout.splitlines()[-1]))


def _main(document: str, folder: str, index: str, precision: str) -> None:
    found = json.loads(document)
    work = Work(**found | {"images": Path(found["images"])})
    torch.set_num_threads(work.threads)
    if CASES[int(index)].unfreeze is not None:
        keep_freed_memory()  # as each worker does
    epoch, _ = epoch_of(work, CASES[int(index)], Precision(precision), Path(folder))
    epoch()
    epoch()
    print(json.dumps(torch.cuda.max_memory_allocated() if work.device == "cuda" else most_resident()))


def most_resident(status: Path = Path("/proc/self/status")) -> int:
    """Bytes; not getrusage's figure, which begins with that of the process that started this one."""
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    _main(*sys.argv[1:])
