"""`padding="thin"`: once the first block has attended to all of the padding, sixteen of its tokens become
one, whose attention weight counts sixteenfold.

Before, their positions differ too much: merged there, they move vertices several times as far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .features import Content, Features

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom, in patches


class MergedTokens(NamedTuple):
    """Which of N patches share one of L tokens, in two steps."""

    members_M4: Tensor  # the patches of each of M tokens: four of padding, or the same one four times
    members_L4: Tensor  # the ones of these of each token: four, or the same one four times
    log_count_L: Tensor  # natural logarithm of how many patches they are, added to its attention logits
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

    Padding is merged in squares of 2 x 2 patches, what is left of it in lines of four; and these in squares
    and lines of four once more.
    """
    left, top, right, bottom = shown
    strips = (
        (range(top), range(width)),
        (range(bottom, height), range(width)),
        (range(top, bottom), range(left)),
        (range(top, bottom), range(right, width)),
    )
    fours: list[list[int]] = []
    sixteens: list[list[int]] = []  # indices of `fours`
    for strip in strips:
        squares, lines = _fours(*strip)
        first = len(fours)
        fours += [[row * width + col for row, col in four] for four in (*squares, *lines)]
        # Squares stand row by row, so that four of them are found as four patches are.
        across = len(strip[1]) // 2
        of_squares, of_lines = _fours(range(len(strip[0]) // 2), range(across))
        sixteens += [[first + row * across + col for row, col in four] for four in (*of_squares, *of_lines)]
        ends = range(first + len(squares), len(fours) - 3, 4)
        sixteens += [[end, end + 1, end + 2, end + 3] for end in ends]
    ones, members, counts = _joined(height * width, fours)
    shift = [[len(ones) + four for four in sixteen] for sixteen in sixteens]
    _, later, times = _joined(len(members), shift)
    token_N = torch.empty(height * width, dtype=torch.int64)
    token_N[members[later].flatten(1)] = torch.arange(len(later))[:, None].expand(-1, 16)
    found = members, later, (counts[later[:, 0]] * times).log(), token_N
    return MergedTokens(*(tensor.to(device) for tensor in found))


def _joined(count: int, fours: Sequence[Sequence[int]]) -> tuple[list[int], Tensor, Tensor]:
    """Which of `count` tokens are in none of `fours`; the members (M, 4) of each new token, these first; and
    how many each has (M,).
    """
    joined = {token for four in fours for token in four}
    alone = [token for token in range(count) if token not in joined]
    members_M4 = torch.tensor([[token] * 4 for token in alone] + [list(four) for four in fours])
    counts_M = torch.ones(len(members_M4))
    counts_M[len(alone) :] = 4
    return alone, members_M4, counts_M


def _fours(rows: range, cols: range) -> tuple[list[list[tuple[int, int]]], list[list[tuple[int, int]]]]:
    """Squares of 2 x 2, row by row, and lines of four in a rectangle; up to three of its corner are left."""
    squares = [
        [(row, col), (row, col + 1), (row + 1, col), (row + 1, col + 1)]
        for row in rows[:-1:2]
        for col in cols[:-1:2]
    ]
    lines = []
    if len(rows) % 2:
        lines += [[(rows[-1], col + i) for i in range(4)] for col in cols[: len(cols) // 4 * 4 : 4]]
    if len(cols) % 2:
        even = rows[: len(rows) // 2 * 2]
        lines += [[(row + i, cols[-1]) for i in range(4)] for row in even[: len(even) // 4 * 4 : 4]]
    return squares, lines


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
