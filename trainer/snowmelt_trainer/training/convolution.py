"""Convolutions of small feature maps as matrix products, on a processor.

A network's last convolutions have hundreds of channels and maps of a few pixels, and weights that outnumber what they
work on. oneDNN, which is what torch calls, spends most of its time there on rearranging those weights, and most of
all where it sums their gradient. Written out as rows of patches times a matrix of weights (Chellapilla et al. 2006,
"High performance convolutional neural networks for document processing"), the same is one product forward and two
backward, which take a fraction of the time. docs/design/20261126-small-maps.md has what was measured.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

MOST_POSITIONS = {torch.bfloat16: 2048, torch.float32: 1024}
"""Pixels of a batch's output, over all of its images, up to which products are used. Beyond it the patches, which are
copies of the input, cost more than they save. It depends on shapes alone: a run that resumes computes alike."""


def multiply_small_maps(model: nn.Module) -> None:
    """From now on the model's convolutions work on small maps by matrix products, in training and evaluation.
    Parameters and their names stay as they are."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _is_plain(module):
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


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


def _forward(module: nn.Conv2d, images: Tensor) -> Tensor:
    """What `nn.Conv2d.forward` computes."""
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype
    kernel, stride, padding = module.kernel_size[0], module.stride[0], int(module.padding[0])
    if images.dim() != 4 or not _pays(images, kind, kernel, stride, padding):
        return functional.conv2d(images, module.weight, module.bias, module.stride, module.padding)
    result: Tensor = _Products.apply(images.to(kind), module.weight.to(kind), stride, padding)
    return result if module.bias is None else result + module.bias.to(kind).view(-1, 1, 1)


def _pays(images: Tensor, kind: torch.dtype, kernel: int, stride: int, padding: int) -> bool:
    height, width = (_outputs(size, kernel, stride, padding) for size in images.shape[2:])
    return 0 < len(images) * height * width <= MOST_POSITIONS.get(kind, 0)


def _outputs(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


class _Products(torch.autograd.Function):
    """(N, C, H, W) by (O, C, k, k) to (N, O, H', W'), all in channels_last, where patches and weights are rows without
    a copy."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        kernel = weight.shape[-1]
        height, width = (_outputs(size, kernel, stride, padding) for size in images.shape[2:])
        product = _patches(images, kernel, stride, padding) @ _rows(weight).t()
        return product.view(len(images), height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        kernel = weight.shape[-1]
        flat = gradient.permute(0, 2, 3, 1).reshape(-1, gradient.shape[1])
        for_images = for_weight = None
        if ctx.needs_input_grad[0]:
            for_images = _put_together(flat @ _rows(weight), images, gradient, kernel, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            summed = flat.t() @ _patches(images, kernel, ctx.stride, ctx.padding)
            for_weight = summed.view(len(weight), kernel, kernel, -1).permute(0, 3, 1, 2)
        return for_images, for_weight, None, None


def _rows(weight: Tensor) -> Tensor:
    """(O, C, k, k) as (O, k k C)."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _patches(images: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """(N, C, H, W) as (N H' W', k k C): what each output position sees."""
    last = images.permute(0, 2, 3, 1)
    padded = functional.pad(last, (0, 0, padding, padding, padding, padding)) if padding else last
    seen = padded.unfold(1, kernel, stride).unfold(2, kernel, stride)  # (N, H', W', C, k, k)
    return seen.permute(0, 1, 2, 4, 5, 3).reshape(-1, kernel * kernel * images.shape[1])


def _put_together(
    patches: Tensor, images: Tensor, outputs: Tensor, kernel: int, stride: int, padding: int
) -> Tensor:
    """The other way: each pixel gets the sum over the patches that it was part of."""
    count, channels, height, width = images.shape
    rows, columns = outputs.shape[2:]
    patches = patches.view(count, rows, columns, kernel, kernel, channels)
    if kernel == stride == 1 and not padding:
        return patches.view(count, height, width, channels).permute(0, 3, 1, 2)
    padded = patches.new_zeros((count, height + 2 * padding, width + 2 * padding, channels), dtype=torch.float32)
    for y in range(kernel):
        for x in range(kernel):
            to_rows, to_columns = (slice(at, at + stride * (n - 1) + 1, stride) for at, n in ((y, rows), (x, columns)))
            padded[:, to_rows, to_columns] += patches[:, :, :, y, x]
    inside = padded[:, padding : padding + height, padding : padding + width]
    return inside.permute(0, 3, 1, 2).to(images.dtype)
