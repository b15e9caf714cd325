"""Convolutions of small feature maps as matrix products, on a processor.

A network's last convolutions have hundreds of channels and maps of a few pixels, and weights that outnumber what they
work on. oneDNN, which is what torch calls, spends most of its time there on rearranging those weights, and most of
all where it sums their gradient. Written out as rows of patches times a matrix of weights (Chellapilla et al. 2006,
"High performance convolutional neural networks for document processing"), the same is one product forward and two
backward, which take a fraction of the time. docs/design/20261126-small-maps.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input

MOST_PIXELS = {torch.bfloat16: (16, 49), torch.float32: (4, 4)}
"""Pixels of an image's output up to which products are used, and of those up to which they are used for the weights'
gradient alone. Beyond, the patches, which are copies of the input, cost more than they save. They do not depend on the
batch: an image is computed alike whether it is trained on or its activations are kept."""
IMAGES = 4
"""Dimensions of a batch of images, or of feature maps."""


def multiply_small_maps(model: nn.Module) -> None:
    """From now on the model's convolutions work on small maps by matrix products, in training and evaluation.
    Parameters and their names stay as they are."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _is_plain(module):
            window = _Window(module.kernel_size[0], module.stride[0], int(module.padding[0]))
            module.forward = partial(_forward, module, window)  # type: ignore[method-assign]


def _is_plain(module: nn.Conv2d) -> bool:
    """Neither grouped nor dilated, padded by a number of zeros, and as wide as high."""
    squares = (module.kernel_size, module.stride)
    return (
        module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and all(height == width for height, width in (*squares, module.padding))
    )


def _forward(module: nn.Conv2d, window: _Window, images: Tensor) -> Tensor:
    """What `nn.Conv2d.forward` computes."""
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype
    everywhere, for_weights = MOST_PIXELS.get(kind, (0, 0))
    pixels = window.pixels(images) if images.dim() == IMAGES and len(images) else 0
    if not 0 < pixels <= for_weights:
        return functional.conv2d(images, module.weight, module.bias, module.stride, module.padding)
    way = _Products if pixels <= everywhere else _ProductForWeights
    result: Tensor = way.apply(images.to(kind), module.weight.to(kind), window)
    return result if module.bias is None else result + module.bias.to(kind).view(-1, 1, 1)


@dataclass(frozen=True)
class _Window:
    """What a convolution looks through, as wide as high."""

    kernel: int
    stride: int
    padding: int

    @property
    def is_one_pixel(self) -> bool:
        """Whether each pixel of the result is made of the one at its place."""
        return (self.kernel, self.stride, self.padding) == (1, 1, 0)

    def outputs(self, size: int) -> int:
        """Rows of the result, for so many rows; columns alike."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1

    def pixels(self, images: Tensor) -> int:
        """Of one image's result."""
        return self.outputs(images.shape[2]) * self.outputs(images.shape[3])

    def patches(self, images: Tensor) -> Tensor:
        """(N, C, H, W) as (N H' W', k k C): what each pixel of the result is made of."""
        if self.is_one_pixel:
            return _pixels(images)
        last, border = images.permute(0, 2, 3, 1), self.padding
        padded = functional.pad(last, (0, 0, border, border, border, border)) if border else last
        seen = padded.unfold(1, self.kernel, self.stride).unfold(2, self.kernel, self.stride)  # (N, H', W', C, k, k)
        return seen.permute(0, 1, 2, 4, 5, 3).reshape(-1, self.kernel**2 * images.shape[1])

    def put_together(self, patches: Tensor, shape: torch.Size) -> Tensor:
        """The other way, to (N, C, H, W) of that shape: each pixel gets the sum over the patches that it was part of,
        taken in float32."""
        count, channels, height, width = shape
        if self.is_one_pixel:
            return patches.view(count, height, width, channels).permute(0, 3, 1, 2)
        rows, columns = self.outputs(height), self.outputs(width)
        parts = patches.view(count, rows, columns, self.kernel, self.kernel, channels)
        border = self.padding
        total = patches.new_zeros((count, height + 2 * border, width + 2 * border, channels), dtype=torch.float32)
        for y in range(self.kernel):
            for x in range(self.kernel):
                total[:, self._at(y, rows), self._at(x, columns)] += parts[:, :, :, y, x]
        inside = total[:, border : border + height, border : border + width]
        return inside.permute(0, 3, 1, 2).to(patches.dtype)

    def _at(self, offset: int, count: int) -> slice:
        return slice(offset, offset + self.stride * (count - 1) + 1, self.stride)


class _ProductForWeights(torch.autograd.Function):
    """(N, C, H, W) by (O, C, k, k) to (N, O, H', W'): torch's, but for the weights' gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, window: _Window) -> Tensor:
        _keep(ctx, images, weight, window)
        return functional.conv2d(images, weight, None, window.stride, window.padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        return _backward(ctx, gradient, _for_images_by_torch)


class _Products(torch.autograd.Function):
    """The same, in channels_last, where weights are rows without a copy."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, window: _Window) -> Tensor:
        _keep(ctx, images, weight, window)
        height, width = (window.outputs(size) for size in images.shape[2:])
        product = window.patches(images) @ _rows(weight).t()
        return product.view(len(images), height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        return _backward(ctx, gradient, _for_images_by_product)


def _keep(ctx: Any, images: Tensor, weight: Tensor, window: _Window) -> None:
    ctx.save_for_backward(images, weight)
    ctx.window = window


def _backward(
    ctx: Any, gradient: Tensor, for_images: Callable[[torch.Size, Tensor, Tensor, _Window], Tensor]
) -> tuple[Tensor | None, Tensor | None, None]:
    images, weight = ctx.saved_tensors
    towards_input, towards_weight, _ = ctx.needs_input_grad
    return (
        for_images(images.shape, weight, gradient, ctx.window) if towards_input else None,
        _for_weight(images, weight, gradient, ctx.window) if towards_weight else None,
        None,
    )


def _for_images_by_torch(shape: torch.Size, weight: Tensor, gradient: Tensor, window: _Window) -> Tensor:
    return conv2d_input(shape, weight, gradient, window.stride, window.padding)  # type: ignore[no-any-return, no-untyped-call]


def _for_images_by_product(shape: torch.Size, weight: Tensor, gradient: Tensor, window: _Window) -> Tensor:
    return window.put_together(_pixels(gradient) @ _rows(weight), shape)


def _for_weight(images: Tensor, weight: Tensor, gradient: Tensor, window: _Window) -> Tensor:
    summed = _pixels(gradient).t() @ window.patches(images)
    return summed.view(len(weight), *weight.shape[2:], -1).permute(0, 3, 1, 2)


def _rows(weight: Tensor) -> Tensor:
    """(O, C, k, k) as (O, k k C)."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _pixels(maps: Tensor) -> Tensor:
    """(N, O, H', W') as (N H' W', O)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
