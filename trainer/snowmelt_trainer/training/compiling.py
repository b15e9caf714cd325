"""The trained layers, compiled by torch in a stage that is long enough for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from snowmelt_trainer.errors import first_line
from snowmelt_trainer.training.distributed import World

log = logging.getLogger(__name__)

GAIN = 0.05
"""The share of a step's time that compiling saves at least: of a ResNet-50 on an H200 it was 7%."""
WARM_UP_SECONDS = 60.0
"""What it takes at most: 37.5 there, for each stage anew. Both are in docs/design/20261130-compiling.md."""
TIMES = 2
"""How many times as much as it costs it has to save: a stage may end before its last epoch."""
FEWEST = 2
"""Images: torch compiles anew for a single one."""

Layers = Callable[[Tensor], Tensor]
Compiler = Callable[[Layers], Layers]
Worth = Callable[[float, torch.device], bool]


def worth_compiling(seconds_left: float, device: torch.device) -> bool:
    """Whether a stage with so much training left takes less of it compiled, the warm-up included. On a processor
    nothing was gained."""
    return device.type != "cpu" and seconds_left * GAIN >= TIMES * WARM_UP_SECONDS


def compiled(layers: Layers) -> Layers:
    """By torch, at the first call."""
    return torch.compile(layers)


class Compilable(nn.Module):
    """One stage's trained layers, which run as they are until it pays to compile them, and again if it does not.

    Decided between epochs, by the time that the steps of the one before took. How long compiled steps take is measured
    as well: when they turn out no faster, the layers run as they are from the next epoch on. The workers follow the
    leader, so that they change over together.
    """

    def __init__(
        self,
        layers: nn.Module,
        world: World,
        *,
        worth: Worth = worth_compiling,
        compiler: Compiler = compiled,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.layers = layers
        self._world, self._worth, self._compiler, self._clock = world, worth, compiler, clock
        self._compiled: Layers | None = None
        self._as_it_is: float | None = None
        """Seconds a step."""
        self._given_up = False
        self._since, self._steps = 0.0, 0

    def forward(self, inputs: Tensor) -> Tensor:
        self._steps += 1
        if self._compiled is None or len(inputs) < FEWEST:
            return self.layers(inputs)  # type: ignore[no-any-return]
        return self._compiled(inputs)

    def begin_epoch(self, steps_left: int) -> bool:
        """Before so many steps, the stage's last ones, of which an epoch's follow now. Whether the layers are to be
        compiled for them, by `compile_for`."""
        self._since, self._steps = self._clock(), 0
        if self._compiled is not None or self._given_up or self._as_it_is is None:
            return False
        left = self._as_it_is * steps_left
        if not self._leader_says(self._worth(left, self._world.device)):
            return False
        log.info("%.0f s of training left at %.2g s a step: compiling the trained layers", left, self._as_it_is)
        return True

    def compile_for(self, inputs: Tensor) -> str:
        """Compiles the layers for such inputs, however many images, since steps differ by one and workers' shares by
        more. Tries them in both directions; nothing that is trained changes. Returns why they run as they are, or
        nothing when they do not."""
        layers = self._compiler(self.layers.forward)
        failed = self._try(layers, inputs)
        if not self._world.minimum(int(not failed)):
            self._given_up = True
            return failed or "another worker could not"
        log.info("compiled in %.1f s", self._clock() - self._since)
        self._compiled = layers
        self._since, self._steps = self._clock(), 0
        return ""

    def _try(self, layers: Layers, inputs: Tensor) -> str:
        """Why they do not run, or nothing."""
        buffers = list(self.layers.buffers())
        kept = [buffer.clone() for buffer in buffers]
        parameters = [one for one in self.layers.parameters() if one.requires_grad]
        accelerator = [inputs.device] if inputs.device.type != "cpu" else []
        try:
            torch._dynamo.mark_dynamic(inputs, 0)
            with torch.random.fork_rng(accelerator):
                torch.autograd.grad(layers(inputs).float().sum(), parameters, allow_unused=True)
        except (RuntimeError, OSError) as error:  # which torch's compilers raise, and a full device or disk
            return first_line(error)
        finally:
            with torch.no_grad():
                for buffer, before in zip(buffers, kept, strict=True):
                    buffer.copy_(before)
        return ""

    def end_epoch(self) -> None:
        """After an epoch's last step, once the device is through with it."""
        if not self._steps:
            return
        seconds = (self._clock() - self._since) / self._steps
        if self._compiled is None or self._as_it_is is None:
            self._as_it_is = seconds
            return
        log.info("%.3g s a step compiled, %.3g as it was", seconds, self._as_it_is)
        if self._leader_says(seconds >= self._as_it_is):
            log.info("that is no faster: the layers run as they are again")
            self._compiled, self._given_up = None, True

    def _leader_says(self, own: bool) -> bool:
        return bool(self._world.from_leader(b"1" if own else b""))
