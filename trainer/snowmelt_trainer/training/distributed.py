"""What the workers of one run do together. With one worker, or outside a process group, all of it is local."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.tensors import flat

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """This worker's place among the workers."""

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU

    @property
    def leads(self) -> bool:
        """Whether this worker writes the checkpoints and reports progress."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The element-wise sum over all workers, in place; `values` lies on this worker's device."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def begin_sum(self, values: torch.Tensor) -> dist.Work:
        """As `sum`, of several workers, while they go on; to be waited for. All lay the values out alike, densely."""
        work = dist.all_reduce(flat(values), async_op=True)
        assert work is not None
        return work

    def sum_all(self, tensors: Sequence[torch.Tensor]) -> None:
        """As `sum`, of tensors of one type, in one message."""
        if self.size > 1 and tensors:
            lying = [flat(one) for one in tensors]
            sums = self.sum(torch.cat(lying))
            torch._foreach_copy_(lying, torch.split(sums, [one.numel() for one in lying]))

    def agree(self, tensors: Iterable[torch.Tensor]) -> None:
        """Gives every worker's tensors the leader's values, in place."""
        if self.size > 1:
            for one in tensors:
                dist.broadcast(flat(one), src=0)

    def minimum(self, value: int) -> int:
        """The smallest of the workers' values."""
        tensor = torch.tensor(value, device=self.device)
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
        return int(tensor.item())

    def gather(self, text: str) -> tuple[str, ...]:
        """Every worker's text, by rank."""
        if self.size == 1:
            return (text,)
        texts: list[str] = [""] * self.size
        dist.all_gather_object(texts, text)
        return tuple(texts)

    def from_leader(self, data: bytes) -> bytes:
        """The leader's bytes, on every worker (so that the output storage need only be visible to the leader)."""
        if self.size == 1:
            return data
        length = torch.tensor(len(data), device=self.device)
        dist.broadcast(length, src=0)
        size = int(length.item())
        buffer = torch.empty(size, dtype=torch.uint8, device=self.device)
        if self.leads and size:
            buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(buffer, src=0)
        return buffer.cpu().numpy().tobytes()


def replicated(suffix: nn.Module, world: World, precision: Precision) -> nn.Module:
    """The network whose gradients the workers average; itself where there is one worker.

    In BFloat16 gradients travel as such, in half the bytes: those of matrix products and convolutions were computed in
    it anyway, and only the sum over the workers is rounded once more. All workers get the same sum. (Where weights are
    lent, `gradients.NarrowGradients` does the same with less copying.)
    """
    if world.size == 1:
        return suffix
    network = DistributedDataParallel(
        suffix,
        device_ids=[world.device] if world.device.type == "cuda" else None,
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
    )
    if precision is Precision.BFLOAT16:
        network.register_comm_hook(None, bf16_compress_hook)
    return network


def average_buffers(model: nn.Module, world: World) -> None:
    """Gives every worker the mean of the workers' floating-point buffers (BatchNorm's running statistics) of modules in
    training mode.

    In training they do not influence the gradients, so averaging them when they are needed (evaluation, checkpoint)
    costs less than DistributedDataParallel's broadcast in every step, and loses no worker's share. Frozen modules are
    in eval mode and stay untouched.
    """
    buffers = [
        buffer
        for module in model.modules()
        if module.training
        for buffer in module.buffers(recurse=False)
        if buffer.is_floating_point()
    ]
    if world.size > 1 and buffers:
        world.sum_all(buffers)
        torch._foreach_div_(buffers, world.size)


def digest(model: nn.Module) -> str:
    """SHA-256 over the names and the bytes of all parameters and buffers."""
    sha256 = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        sha256.update(name.encode())
        sha256.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


def agreed_digests(model: nn.Module, world: World, moment: str) -> tuple[str, ...]:
    """Each worker's digest of the model, by rank.

    Raises:
        RunError: InternalError on every worker when the digests differ: they would train different models from here on.
    """
    digests = world.gather(digest(model))
    if len(set(digests)) > 1:
        raise RunError(Reason.INTERNAL_ERROR, f"the workers' weights differ {moment}: {_brief(digests)}")
    return digests


def _brief(digests: Sequence[str]) -> str:
    return ", ".join(f"rank {rank} {text[:12]}" for rank, text in enumerate(digests))
