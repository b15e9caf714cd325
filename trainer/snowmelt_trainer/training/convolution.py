"""Convolutions of small feature maps as matrix products, on a processor.

A network's last convolutions have hundreds of channels and maps of a few pixels, and weights that outnumber what they
work on. oneDNN, which is what torch calls, spends most of its time there on rearranging those weights, and most of
all where it sums their gradient. Written out as matrix products, the same takes a fraction of the time:

- patches (Chellapilla et al. 2006, "High performance convolutional neural networks for document processing"): what each
  pixel of the result is made of, as the rows of one matrix, times the weights.
- glimpses: most of such a patch may be padding; of two pixels by two, a window of three by three sees four of nine. So
  each pixel of the result is a sum of products: in each row that it sees, what lies side by side times the weights that
  lie side by side, both where they are. Nothing is copied, or multiplied by zeros.

docs/design/20261126-small-maps.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input

MOST_PIXELS = {torch.bfloat16: (4, 49), torch.float32: (4, 4)}
"""Pixels of an image's output up to which products are used, and of those up to which they are used for the weights'
gradient alone. Beyond, they cost more than they save. They do not depend on the batch: an image is computed alike
whether it is trained on or its activations are kept."""
IMAGES = 4
"""Dimensions of a batch of images, or of feature maps."""
BATCHES = 16
"""In BFloat16, products are of a multiple of so many images (AMX multiplies 16 rows at once), the last of them zeros.
For each shape oneDNN makes a product of its own, which takes a millisecond or two once and 600 kB from then on, and an
epoch's batches differ by one."""


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
    way = _PATCHES_FOR_WEIGHT if pixels > everywhere else _PATCHES if window.is_one_pixel else _GLIMPSES
    result: Tensor = _Convolution.apply(images.to(kind), module.weight.to(kind), window, way)
    return result if module.bias is None else result + module.bias.to(kind).view(-1, 1, 1)


@dataclass(frozen=True)
class _Glimpse:
    """What a pixel of the result sees of one row: so many pixels side by side, through as many weights."""

    result: int
    """The pixel, counted through rows and columns; as the first of those that it sees, and of the weights."""
    first: int
    weights: int
    count: int

    def of_result(self, maps: Tensor, pixels: int) -> Tensor:
        """Of (N, pixels O): (N, O)."""
        return _columns(maps, pixels, self.result, 1)

    def of_images(self, maps: Tensor, pixels: int) -> Tensor:
        """Of (N, pixels C): (N, count C)."""
        return _columns(maps, pixels, self.first, self.count)

    def of_weights(self, rows: Tensor, window: _Window) -> Tensor:
        """Of (O, k k C): (O, count C)."""
        return _columns(rows, window.kernel**2, self.weights, self.count)


def _columns(matrix: Tensor, parts: int, first: int, count: int) -> Tensor:
    """Some of the equal parts that lie side by side in each row; a view."""
    width = matrix.shape[1] // parts
    return matrix[:, first * width : (first + count) * width]


@dataclass(frozen=True)
class _Window:
    """What a convolution looks through, as wide as high."""

    kernel: int
    stride: int
    padding: int

    @property
    def is_one_pixel(self) -> bool:
        """Whether each pixel of the result is made of a single one."""
        return (self.kernel, self.padding) == (1, 0)

    def outputs(self, size: int) -> int:
        """Rows of the result, for so many rows; columns alike."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1

    def pixels(self, images: Tensor) -> int:
        """Of one image's result."""
        return self.outputs(images.shape[2]) * self.outputs(images.shape[3])

    def result(self, images: Tensor, channels: int) -> torch.Size:
        """The shape of what comes out: (N, O, H', W')."""
        return torch.Size((len(images), channels, *map(self.outputs, images.shape[2:])))

    def glimpses(self, height: int, width: int) -> Iterator[_Glimpse]:
        """Of images of that size: all that is seen of them."""
        rows, columns = self.outputs(height), self.outputs(width)
        for pixel in range(rows * columns):
            top, left = (at * self.stride - self.padding for at in divmod(pixel, columns))
            first, last = max(0, left), min(width, left + self.kernel)
            for y in range(max(0, top), min(height, top + self.kernel)):
                if first < last:
                    weights = (y - top) * self.kernel + first - left
                    yield _Glimpse(pixel, y * width + first, weights, last - first)

    def patches(self, images: Tensor) -> Tensor:
        """(N, C, H, W) as (N H' W', k k C): what each pixel of the result is made of."""
        if self.is_one_pixel:
            return pixels_of(images[:, :, :: self.stride, :: self.stride])
        last, border = images.permute(0, 2, 3, 1), self.padding
        padded = functional.pad(last, (0, 0, border, border, border, border)) if border else last
        seen = padded.unfold(1, self.kernel, self.stride).unfold(2, self.kernel, self.stride)  # (N, H', W', C, k, k)
        return seen.permute(0, 1, 2, 4, 5, 3).reshape(-1, self.kernel**2 * images.shape[1])

    def put_back(self, pixels: Tensor, shape: torch.Size) -> Tensor:
        """The other way for a window of one pixel, to (N, C, H, W) of that shape: zeros where it does not look."""
        count, channels, height, width = shape
        seen = as_maps(pixels, torch.Size((count, channels, self.outputs(height), self.outputs(width))))
        if self.stride == 1:
            return seen
        found = as_maps(pixels.new_zeros(shape.numel()), shape)
        found[:, :, :: self.stride, :: self.stride] = seen
        return found


@dataclass(frozen=True)
class _Way:
    """How a convolution of (N, C, H, W) by (O, C, k, k) to (N, O, H', W') is computed."""

    result: Callable[[Tensor, Tensor, _Window], Tensor]
    """Of images and weights."""
    for_images: Callable[[torch.Size, Tensor, Tensor, _Window], Tensor]
    """The gradient of images of that shape, of weights and the result's gradient."""
    for_weight: Callable[[Tensor, Tensor, Tensor, _Window], Tensor]
    """The gradient of the weights, of images, weights and the result's gradient."""


class _Convolution(torch.autograd.Function):
    """In whatever way; it keeps its images and weights, and nothing else."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, window: _Window, way: _Way) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.window, ctx.way = window, way
        return way.result(images, weight, window)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        towards_input, towards_weight, *_ = ctx.needs_input_grad
        return (
            ctx.way.for_images(images.shape, weight, gradient, ctx.window) if towards_input else None,
            ctx.way.for_weight(images, weight, gradient, ctx.window) if towards_weight else None,
            None,
            None,
        )


def _by_torch(images: Tensor, weight: Tensor, window: _Window) -> Tensor:
    return functional.conv2d(images, weight, None, window.stride, window.padding)


def _for_images_by_torch(shape: torch.Size, weight: Tensor, gradient: Tensor, window: _Window) -> Tensor:
    return conv2d_input(shape, weight, gradient, window.stride, window.padding)  # type: ignore[no-any-return, no-untyped-call]


def _by_patches(images: Tensor, weight: Tensor, window: _Window) -> Tensor:
    """In channels_last, where weights are rows without a copy."""
    return as_maps(window.patches(images) @ _flat(weight).t(), window.result(images, len(weight)))


def _for_images_by_patches(shape: torch.Size, weight: Tensor, gradient: Tensor, window: _Window) -> Tensor:
    return window.put_back(pixels_of(gradient) @ _flat(weight), shape)


def _for_weight_by_patches(images: Tensor, weight: Tensor, gradient: Tensor, window: _Window) -> Tensor:
    return as_maps(pixels_of(gradient).t() @ window.patches(images), weight.shape)


def _by_glimpses(images: Tensor, weight: Tensor, window: _Window) -> Tensor:
    maps, rows, (height, width) = _flat(images), _flat(weight), images.shape[2:]
    pixels = window.pixels(images)
    result = maps.new_zeros(len(maps), pixels * len(rows))
    for seen in window.glimpses(height, width):
        seen.of_result(result, pixels).addmm_(seen.of_images(maps, height * width), seen.of_weights(rows, window).t())
    return as_maps(result, window.result(images, len(rows)))


def _for_images_by_glimpses(shape: torch.Size, weight: Tensor, gradient: Tensor, window: _Window) -> Tensor:
    count, channels, height, width = shape
    maps, rows, pixels = _flat(gradient), _flat(weight), gradient.shape[2] * gradient.shape[3]
    found = maps.new_zeros(count, height * width * channels)
    for seen in window.glimpses(height, width):
        seen.of_images(found, height * width).addmm_(seen.of_result(maps, pixels), seen.of_weights(rows, window))
    return as_maps(found, shape)


def _for_weight_by_glimpses(images: Tensor, weight: Tensor, gradient: Tensor, window: _Window) -> Tensor:
    maps, gradients, (height, width) = _flat(images), _flat(gradient), images.shape[2:]
    pixels = window.pixels(images)
    found = maps.new_zeros(len(weight), weight[0].numel())
    for seen in window.glimpses(height, width):
        of_result = seen.of_result(gradients, pixels)
        seen.of_weights(found, window).addmm_(of_result.t(), seen.of_images(maps, height * width))
    return as_maps(found, weight.shape)


def _in_whole_batches(way: _Way) -> _Way:
    """The same of a multiple of BATCHES images in BFloat16, those after the last zeros."""

    def result(images: Tensor, weight: Tensor, window: _Window) -> Tensor:
        return way.result(_filled_up(images), weight, window)[: len(images)]

    def for_images(shape: torch.Size, weight: Tensor, gradient: Tensor, window: _Window) -> Tensor:
        filled = _filled_up(gradient)
        return way.for_images(torch.Size((len(filled), *shape[1:])), weight, filled, window)[: len(gradient)]

    def for_weight(images: Tensor, weight: Tensor, gradient: Tensor, window: _Window) -> Tensor:
        return way.for_weight(_filled_up(images), weight, _filled_up(gradient), window)

    return _Way(result, for_images, for_weight)


def _filled_up(maps: Tensor) -> Tensor:
    more = -len(maps) % BATCHES if maps.dtype is torch.bfloat16 else 0
    return functional.pad(maps, (0,) * 7 + (more,)) if more else maps


_PATCHES = _in_whole_batches(_Way(_by_patches, _for_images_by_patches, _for_weight_by_patches))
_PATCHES_FOR_WEIGHT = replace(_PATCHES, result=_by_torch, for_images=_for_images_by_torch)
_GLIMPSES = _in_whole_batches(_Way(_by_glimpses, _for_images_by_glimpses, _for_weight_by_glimpses))


def _flat(maps: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H W C), or weights alike; without a copy in channels_last."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1)


def pixels_of(maps: Tensor) -> Tensor:
    """(N, C, H, W) as (N H W, C), without a copy in channels_last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def as_maps(rows: Tensor, shape: torch.Size) -> Tensor:
    """The other way, of a row for each pixel or for each image, or of weights alike: to (N, C, H, W), in channels_last
    down to the strides of maps of one pixel."""
    count, channels, height, width = shape
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)
