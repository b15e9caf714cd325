"""Workers of ours that share the processor, a part of its threads each, against the plain loop with all of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist

from bench.stage.measure import epoch_of
from bench.stage.work import CASES, Work
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.training.allocation import keep_freed_memory
from snowmelt_trainer.training.distributed import World

PLAIN, OURS = 0, 1
"""Of CASES: the plain loop, and ours with everything trained."""


def shares(work: Work, precision: Precision, workers: int, repeats: int) -> list[float]:
    """The throughput of so many workers as a share of the plain loop's, repeat by repeat, in turns."""
    found = []
    for repeat in range(repeats):
        turns = [(PLAIN, 1), (OURS, workers)]
        seconds = {size: _seconds(work, precision, case, size) for case, size in turns[:: -1 if repeat % 2 else 1]}
        found.append(seconds[1] / seconds[workers])
    return found


def _seconds(work: Work, precision: Precision, case: int, size: int) -> float:
    """Of an epoch, in new processes, the first epoch and its checkpoint left out."""
    mine = replace(work, threads=max(1, work.threads // size))
    with tempfile.TemporaryDirectory(prefix="snowmelt-workers-") as folder:
        order = {"work": asdict(mine) | {"images": str(work.images)}, "case": case, "size": size, "folder": folder}
        command = [sys.executable, "-m", "bench.stage.workers", json.dumps(order | {"precision": precision})]
        processes = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(size)]
        said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{size} workers: one ended with an error, which stands above")
    return float(said[0].splitlines()[-1])


def _main(order: str, rank: str) -> None:
    told = json.loads(order)
    work = Work(**told["work"] | {"images": Path(told["work"]["images"])})
    world, folder = World(int(rank), told["size"]), Path(told["folder"])
    torch.set_num_threads(work.threads)
    if told["case"] == OURS:
        keep_freed_memory()  # as each worker does
    if world.size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=world.rank, world_size=world.size)
    epoch, stage = epoch_of(work, CASES[told["case"]], Precision(told["precision"]), folder / "output", world)
    epoch()
    stage.keeper.settle()  # its checkpoint: in a run, writing them takes a hundredth of the time
    world.gather("ready")
    started = time.perf_counter()
    for _ in range(work.epochs):
        epoch()
    stage.keeper.settle()
    world.gather("done")
    print((time.perf_counter() - started) / work.epochs)


if __name__ == "__main__":
    _main(*sys.argv[1:])
