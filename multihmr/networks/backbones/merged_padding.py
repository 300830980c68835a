"""`padding="thin"`: four tokens of padding become one, whose attention weight counts fourfold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .features import Content, Features

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom, in patches


class MergedTokens(NamedTuple):
    """Which patches share a token: M tokens for N patches, row by row."""

    members_M4: Tensor  # the patches of each token: four of padding, or the same one four times
    log_count_M: Tensor  # natural logarithm of how many they are, added to the token's attention logits
    token_N: Tensor  # the token of each patch


def content_patches(content: Content, patch: int) -> Rectangle:
    """The patches that show part of the image; the others are padding only."""
    left, top, right, bottom = content
    return left // patch, top // patch, math.ceil(right / patch), math.ceil(bottom / patch)


@lru_cache(maxsize=64)  # per device as well: a CUDA graph cannot record an upload
@torch.inference_mode(False)
def merge_padding(
    height: int, width: int, shown: Rectangle, device: torch.device | str = "cpu"
) -> MergedTokens:
    """Tokens of a grid of `height` x `width` patches of which those in `shown` stay as they are.

    Padding is merged in squares of 2 x 2 patches, what is left of it in lines of four.
    """
    left, top, right, bottom = shown
    strips = (
        (range(top), range(width)),
        (range(bottom, height), range(width)),
        (range(top, bottom), range(left)),
        (range(top, bottom), range(right, width)),
    )
    fours = [[row * width + col for row, col in four] for strip in strips for four in _fours(*strip)]
    merged = {patch for four in fours for patch in four}
    ones = [patch for patch in range(height * width) if patch not in merged]
    members = torch.tensor([[patch] * 4 for patch in ones] + fours)
    token_N = torch.empty(height * width, dtype=torch.int64)
    token_N[members] = torch.arange(len(members))[:, None].expand(-1, 4)
    log_count_M = torch.zeros(len(members))
    log_count_M[len(ones) :] = math.log(4)
    return MergedTokens(members.to(device), log_count_M.to(device), token_N.to(device))


def _fours(rows: range, cols: range) -> Iterator[list[tuple[int, int]]]:
    """Squares of 2 x 2 and lines of four in a rectangle; up to three of its corner are left over."""
    for row, col in ((row, col) for row in rows[:-1:2] for col in cols[:-1:2]):
        yield [(row, col), (row, col + 1), (row + 1, col), (row + 1, col + 1)]
    if len(rows) % 2:
        yield from ([(rows[-1], col + i) for i in range(4)] for col in cols[: len(cols) // 4 * 4 : 4])
    if len(cols) % 2:
        even = rows[: len(rows) // 2 * 2]
        yield from ([(row + i, cols[-1]) for i in range(4)] for row in even[: len(even) // 4 * 4 : 4])


def by_padding(
    images_B3HW: Tensor,
    contents: Sequence[Content],
    patch: int,
    compute: Callable[[Tensor, MergedTokens], Features],
) -> Features:
    """Features of a batch whose images are padded in several ways: those of one way are computed together."""
    height, width = images_B3HW.shape[-2] // patch, images_B3HW.shape[-1] // patch
    alike: dict[Rectangle, list[int]] = {}
    for i, content in enumerate(contents):
        alike.setdefault(content_patches(content, patch), []).append(i)
    parts = [
        compute(
            images_B3HW if len(alike) == 1 else images_B3HW[which],
            merge_padding(height, width, shown, images_B3HW.device),
        )
        for shown, which in alike.items()
    ]
    if len(parts) == 1:
        return parts[0]
    order = torch.tensor([i for which in alike.values() for i in which]).argsort().to(images_B3HW.device)
    grid_BDhw = torch.cat([part.grid_BDhw for part in parts])[order]
    return Features(grid_BDhw, torch.cat([part.global_BD for part in parts])[order])
