"""One step: the same as torch's, with gradients and weights in as few bytes as they need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from itertools import chain
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from snowmelt_trainer import training
from snowmelt_trainer.contract.optimization import OptimizerName, Precision
from snowmelt_trainer.training import lent_weights
from snowmelt_trainer.training.averaging import AveragedWeights
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.optimizers import build_optimizer
from snowmelt_trainer.training.precision import LARGE
from snowmelt_trainer.training.updates import MAX_GRADIENT_NORM, Updates, updates_of
from tests.trainer.training.networks import (
    IMAGES,
    NETWORKS,
    WIDTH,
    Attending,
    Network,
    UsedTwice,
    convolving,
    convolving_as_processors_do,
    matrices,
    plain,
    updates_with_large_matrices,
)

CPU = torch.device("cpu")
NO_AVERAGE = AveragedWeights({}, 0.0)
ORDINARY = 0.1
"""Size of a loss whose gradients are far below the limit; of a whole network's, a hundredth of it."""
Dtype = torch.dtype | None
Within = Callable[[], AbstractContextManager[None]]


class Holder(Enum):
    """What has a gradient in BFloat16, or takes it from torch."""

    LENT = "the weights' lender, on a processor"
    HOOKS = "hooks, on an accelerator"
    BUCKETS = "DistributedDataParallel, of several accelerators"


GPU = torch.device("cuda")
WORLDS = {Holder.LENT: World(), Holder.HOOKS: World(device=GPU), Holder.BUCKETS: World(size=2, device=GPU)}
"""Where each is what does it. (No test here uses a device.)"""


def losses(
    model: nn.Module, steps: int, size: float, dtype: Dtype = None, within: Within = nullcontext
) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None), within():
            outputs = model(torch.randn(IMAGES, WIDTH, generator=random))
        yield outputs.float().square().mean() * size


def optimizer_of(model: nn.Module, name: OptimizerName = OptimizerName.ADAMW) -> torch.optim.Optimizer:
    groups = [{"params": list(model.parameters()), "lr": 0.01, "weight_decay": 0.05}]
    return build_optimizer(name, groups, CPU)


def twins(network: Network) -> tuple[nn.Module, nn.Module]:
    one, other = network(), network()
    other.load_state_dict(one.state_dict())
    return one, other


def ours_of(model: nn.Module, optimizer: torch.optim.Optimizer, dtype: Dtype, holder: Holder = Holder.LENT) -> Updates:
    precision = Precision.FLOAT32 if dtype is None else Precision.BFLOAT16
    return updates_with_large_matrices(model, optimizer, precision, WORLDS[holder])


def torch_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad()


def after(
    both: tuple[nn.Module, nn.Module],
    name: OptimizerName,
    *,
    steps: int,
    size: float,
    dtype: Dtype,
    holder: Holder = Holder.LENT,
) -> None:
    """Trains the first as we do, and its twin with torch."""
    ours, theirs = both
    updates = ours_of(ours, optimizer_of(ours, name), dtype, holder)
    optimizer = optimizer_of(theirs, name)
    for mine, other in zip(
        losses(ours, steps, size, dtype, updates.forward), losses(theirs, steps, size, dtype), strict=True
    ):
        updates.step(mine / WORLDS[holder].size)
        torch_step(theirs, optimizer, other)


def assert_equal(ours: nn.Module, theirs: nn.Module) -> None:
    assert all(torch.equal(one, two) for one, two in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("name", list(OptimizerName))
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("dtype", "holder"), [(None, Holder.HOOKS), *((torch.bfloat16, one) for one in Holder)])
def test_ordinary_steps_are_those_of_torch_bit_for_bit(
    name: OptimizerName, network: Network, dtype: Dtype, holder: Holder
) -> None:
    ours, theirs = twins(network)
    after((ours, theirs), name, steps=3, size=ORDINARY, dtype=dtype, holder=holder)
    assert_equal(ours, theirs)
    assert all(one.grad is None for one in ours.parameters())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@given(size=st.floats(ORDINARY, 1e4))
@settings(max_examples=5, deadline=None)
def test_a_freak_batch_is_limited_as_torch_does_it(network: Network, dtype: Dtype, size: float) -> None:
    ours, theirs = twins(network)
    after((ours, theirs), OptimizerName.SGD, steps=1, size=size, dtype=dtype)
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "vit_b_16", "swin_t"])
def test_a_step_of_torchvisions_networks_is_torchs_bit_for_bit(architecture: str) -> None:
    kwargs = {"image_size": 32} if architecture.startswith("vit") else {}
    ours, theirs = twins(lambda: torchvision.models.get_model(architecture, num_classes=10, **kwargs))
    optimizers = [optimizer_of(model) for model in (ours, theirs)]
    updates = updates_of(optimizers[0], ours, NO_AVERAGE, Precision.BFLOAT16, World())
    images = torch.randn(4, 3, 32, 32)
    made = []
    for model, within in ((ours, updates.forward), (theirs, nullcontext)):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16), within():
            logits = model(images)
        made.append(logits.float().square().mean() * ORDINARY / 100)
    updates.step(made[0])
    torch_step(theirs, optimizers[1], made[1])
    assert_equal(ours, theirs)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "vit_b_16"])
def test_what_is_narrowed_had_been_computed_so(architecture: str) -> None:
    kwargs = {"image_size": 32} if architecture.startswith("vit") else {}
    model = torchvision.models.get_model(architecture, num_classes=10, **kwargs)
    narrowed = [one for one in model.parameters() if one.nbytes >= LARGE]
    exact = []

    def look(parameter: Tensor) -> None:
        assert parameter.grad is not None
        exact.append(torch.equal(parameter.grad, parameter.grad.to(torch.bfloat16).float()))

    for parameter in narrowed:
        parameter.register_post_accumulate_grad_hook(look)  # type: ignore[no-untyped-call]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.randn(4, 3, 32, 32))
    torch.autograd.backward(logits.float().square().mean())
    assert narrowed
    assert exact == [True] * len(narrowed)


@pytest.mark.parametrize("name", list(OptimizerName))
def test_a_resumed_optimizer_goes_on_as_if_nothing_had_been(name: OptimizerName) -> None:
    straight, resumed = twins(plain)
    optimizer, again = optimizer_of(straight, name), optimizer_of(resumed, name)
    updates = ours_of(straight, optimizer, torch.bfloat16)
    for loss in losses(straight, 3, ORDINARY, torch.bfloat16, updates.forward):
        updates.step(loss)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed.load_state_dict(straight.state_dict())
    both = (straight, updates), (resumed, ours_of(resumed, again, torch.bfloat16))
    for model, its in both:
        for loss in losses(model, 2, ORDINARY, torch.bfloat16, its.forward):
            its.step(loss)
    assert_equal(straight, resumed)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The gradients of a step, as they lie in memory when the backward pass is over."""
    found: list[Tensor] = []
    norm = training.updates._norm

    def look(*gradients: list[Tensor]) -> Tensor:
        found.extend(chain.from_iterable(gradients))
        return norm(*gradients)

    monkeypatch.setattr(training.updates, "_norm", look)
    return found


@pytest.mark.parametrize(
    ("precision", "gradients"), [(Precision.BFLOAT16, torch.bfloat16), (Precision.FLOAT32, torch.float32)]
)
def test_in_bfloat16_large_gradients_are_held_in_it(
    precision: Precision, gradients: torch.dtype, held: list[Tensor]
) -> None:
    model = nn.Linear(512, 512)
    optimizer = optimizer_of(model)
    updates = updates_of(optimizer, model, NO_AVERAGE, precision, World())
    lent: list[torch.dtype] = []
    model.register_forward_hook(lambda module, *_: lent.append(module.weight.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is Precision.BFLOAT16), updates.forward():
        loss = model(torch.randn(IMAGES, 512)).float().square().mean()
    updates.step(loss)
    assert lent == [gradients]
    assert {one.dim(): one.dtype for one in held} == {2: gradients, 1: torch.float32}


@pytest.mark.parametrize("network", [plain, convolving, convolving_as_processors_do, UsedTwice, Attending])
def test_no_lent_weight_is_in_memory_between_forward_and_backward_pass(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    lent: list[Any] = []
    address = lent_weights._address

    def look(tensor: Tensor) -> int:
        if tensor.grad_fn is not None and "_Narrow" in tensor.grad_fn.name():
            lent.append(StorageWeakRef(tensor.untyped_storage()))  # type: ignore[no-untyped-call]
        return address(tensor)

    monkeypatch.setattr(lent_weights, "_address", look)
    updates = ours_of(model, optimizer_of(model), torch.bfloat16)
    loss = next(losses(model, 1, ORDINARY, torch.bfloat16, updates.forward))
    assert loss.requires_grad
    assert [one.expired() for one in lent] == [True] * len(lent)
    assert len(lent) >= len(matrices(model))


def test_a_failed_forward_pass_leaves_every_parameter_in_its_place() -> None:
    model = plain()
    before = dict(model.named_parameters())
    updates = ours_of(model, optimizer_of(model), torch.bfloat16)
    with pytest.raises(RuntimeError, match="dtype"), updates.forward():
        model(torch.randn(IMAGES, WIDTH + 1))
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())


def test_a_failed_backward_pass_leaves_no_hook_behind_on_the_parameters() -> None:
    model = plain()
    updates = ours_of(model, optimizer_of(model), torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16), updates.forward():
        outputs = model(torch.randn(IMAGES, WIDTH))
    with pytest.raises(RuntimeError, match="scalar"):
        updates.step(outputs)
    torch.autograd.backward(next(losses(model, 1, 1.0)))
    assert all(parameter.grad is not None for parameter in model.parameters())
