"""Further passes over an image at prediction: mirror image, margin, tiles, quarter turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..humans import Humans, nearest_first
from ..postprocessing import flip_test as flipping
from ..postprocessing.quarter_turns import QuarterTurns, turns_to_upright, upright_score
from ..postprocessing.tiling import merge_tiles, tiles_of
from ..postprocessing.to_humans import people_of
from ..preprocessing.image import LoadedImage
from ..preprocessing.letterbox import Letterbox
from ..runtime.network_handle import NetworkHandle
from .options import Camera, PredictOptions
from .whole_image import assemble_humans, predict_whole_images

AUTO_TILES = 2  # of tiles="auto", where the whole image shows no people
# Factor on scores of people who do not fit into the image. Hardly anything else is that large: of 133
# photographs without people none has such a detection above 0.3, so that lower scores are as certain.
CLOSEUP_SCORE = 4 / 3
# Share of the model's own threshold from which on people tell how an image without people lies.
# In 29 photographs, each turned in three ways, 0.45 finds one person more than 0.65; less costs time.
HINT_SCORE = 0.5
# By how much of the way from that threshold to 1 a person must be surer who is found in a turned image alone.
# Two birds in 243 further photographs without people (scores 0.51 and 0.59) are found so; 0.3 leaves them out
# and loses none of the people turned by quarter turns, but a portrait (0.51) turned by 30 degrees more.
SURER = 0.1


def predict_images(
    model: NetworkHandle, images: Sequence[LoadedImage], cameras: Sequence[Camera], options: PredictOptions
) -> list[Humans]:
    """The people of a batch of images, with all passes that `options` name."""
    found, near = predict_unturned(model, images, cameras, options)
    if options.max_people == 0:  # the camera alone is wanted
        return found
    if options.any_rotation == "auto":
        found = predict_upright(model, images, cameras, found, near, options)
    if options.tiles == "auto":
        for rows, again in _unfound(found, options):
            for i in rows:
                in_tiles = predict_tiles(model, images[i], found[i][:0], replace(again, tiles=AUTO_TILES))
                found[i] = in_tiles if len(in_tiles) else found[i]
    if options.any_rotation != "auto" and options.any_rotation:
        for i, (image, camera) in enumerate(zip(images, cameras, strict=True)):
            found[i] = predict_quarter_turns(model, image, camera, found[i], options)
    return found


def predict_unturned(
    model: NetworkHandle, images: Sequence[LoadedImage], cameras: Sequence[Camera], options: PredictOptions
) -> tuple[list[Humans], list[bool]]:
    """The people of each image in all passes but those over turned images; tiles where a number is given.

    Also whether they were found with a margin alone, by `predict_closeups`.
    """
    found = predict_with_flip(model, images, cameras, options)
    near = [False] * len(images)
    if options.max_people == 0:
        return found, near
    if options.closeups and closeup_margin(model):
        for rows, again in _unfound(found, options):
            closeups = predict_closeups(model, [images[i] for i in rows], [found[i] for i in rows], again)
            for i, people in zip(rows, closeups, strict=True):
                if len(people):
                    found[i], near[i] = people, True
    if options.tiles != "auto" and options.tiles > 1:
        found = [predict_tiles(model, image, f, options) for image, f in zip(images, found, strict=True)]
    return found, near


def _unfound(found: Sequence[Humans], options: PredictOptions) -> list[tuple[list[int], PredictOptions]]:
    """Which images are searched once more, and with which options: those without people, and weak ones.

    Of the latter only who has the score that counts is looked for, and replaces the weak.
    """
    least = options.search_below or 0.0
    best = [people.scores.max(initial=0.0) if len(people) else None for people in found]
    empty = [i for i, score in enumerate(best) if score is None]
    weak = [i for i, score in enumerate(best) if score is not None and score < least]
    groups = [(empty, options), (weak, replace(options, threshold=least))]
    return [group for group in groups if group[0]]


def least_score(model: NetworkHandle, options: PredictOptions) -> float:
    """Score from which on a detection counts: that of the options, else the checkpoint's own."""
    return float(model.config.threshold) if options.threshold is None else options.threshold


def predict_with_flip(
    model: NetworkHandle, images: Sequence[LoadedImage], cameras: Sequence[Camera], options: PredictOptions
) -> list[Humans]:
    """`predict_whole_images`; with flip_test the means with what is found in the mirror images."""
    if not options.flip_test:
        return predict_whole_images(model, images, cameras, options)
    threshold = least_score(model, options)
    lower = replace(options, threshold=threshold * flipping.LOWER_THRESHOLD, max_people=None)
    if options.max_people == 0:
        lower = replace(lower, max_people=0)
    upright = predict_whole_images(model, images, cameras, lower)
    flipped = [flipping.mirror_image(image) for image in images]
    widths = [image.pixels.shape[1] for image in images]
    flipped_cameras: list[Camera] = [
        (None if K is None else flipping.mirror_intrinsics(K, width), source)
        for (K, source), width in zip(cameras, widths, strict=True)
    ]
    mirrored = predict_whole_images(model, flipped, flipped_cameras, lower)
    result = []
    for image, (K, _), here, there in zip(images, cameras, upright, mirrored, strict=True):
        people, mean_K = flipping.merge_mirrored(here, there, model.body, threshold)
        best = people["scores"].argsort(kind="stable")[::-1][: options.max_people]
        best = best[nearest_first(people["translation"][best])]
        people = flipping.pick(people, best)
        result.append(assemble_humans(model, people, image, mean_K if K is None else K, here.K_source))
    return result


def predict_tiles(model: NetworkHandle, image: LoadedImage, whole: Humans, options: PredictOptions) -> Humans:
    """The people of an image, each once: those of the `whole` and those of its tiles."""
    assert options.tiles != "auto"
    tiles = tiles_of(*whole.image_size, options.tiles)
    K = torch.tensor(whole.K, device="cpu")
    parts: list[Humans] = []
    for start in range(0, len(tiles), options.batch_size):
        some = tiles[start : start + options.batch_size]
        images = [replace(image, pixels=image.pixels[y0:y1, x0:x1]) for x0, y0, x1, y1 in some]
        cuts = [Letterbox((1, 1), (-x0, -y0), x1 - x0) for x0, y0, x1, _ in some]
        cameras: list[Camera] = [(cut.intrinsics(K), "given") for cut in cuts]
        parts += predict_with_flip(model, images, cameras, options)
    everyone = Humans.concatenate(
        [assemble_humans(model, people_of(part), image, K, whole.K_source) for part in (whole, *parts)]
    )
    found = everyone[merge_tiles(whole, parts, tiles)]
    best = found.scores.argsort(kind="stable")[::-1][: options.max_people]
    return found[best].nearest_first()


def closeup_margin(model: NetworkHandle) -> float:
    """Width of the margin of `predict_closeups`, in sides of the image; 0 for networks without."""
    return float(getattr(model.config, "closeup_margin", 0.0))


def predict_closeups(
    model: NetworkHandle, images: Sequence[LoadedImage], whole: Sequence[Humans], options: PredictOptions
) -> list[Humans]:
    """The people too near to fit into each image, which is predicted with a margin around it.

    Heads that fill an image are larger than those that detectors learn from; with a margin they are smaller.
    `whole`: what was found without a margin: no people, or none who count. People who fit into the image are
    left out: smaller they are found less reliably.
    """
    shrunk, padded, cameras = [], [], []
    for image, before in zip(images, whole, strict=True):
        # Who fills the image needs few pixels, and a margin around a very large image much memory.
        factor = max(1, max(image.pixels.shape[:2]) // (2 * model.config.image_size))
        pixels = image.pixels if factor == 1 else np.asarray(Image.fromarray(image.pixels).reduce(factor))
        height, width = pixels.shape[:2]
        x, y = (round(side * closeup_margin(model)) for side in (width, height))
        K = torch.tensor(before.K, device="cpu")
        K[:2] /= factor
        K[:2, 2] += torch.tensor([x, y], device="cpu")
        shrunk.append((width, height))
        padded.append(replace(image, pixels=np.pad(pixels, ((y, y), (x, x), (0, 0)), mode="edge")))
        cameras.append((K, before.K_source))
    result = []
    lower = replace(options, threshold=least_score(model, options) / CLOSEUP_SCORE)
    everyone = predict_with_flip(model, padded, cameras, lower)
    for image, size, before, people in zip(images, shrunk, whole, everyone, strict=True):
        near = people[((people.boxes[:, 2:] - people.boxes[:, :2]) > size).any(1)]
        K = torch.tensor(before.K, device="cpu")
        found = people_of(near)
        found["scores"] = np.minimum(found["scores"] * np.float32(CLOSEUP_SCORE), np.float32(1))
        result.append(assemble_humans(model, found, image, K, before.K_source))
    return result


def predict_quarter_turns(
    model: NetworkHandle, image: LoadedImage, camera: Camera, upright: Humans, options: PredictOptions
) -> Humans:
    """The people of that quarter turn of an image whose scores have the largest sum."""
    height, width = image.pixels.shape[:2]
    turns = [QuarterTurns.of(count, height, width) for count in (1, 2, 3)]
    K, source = camera
    cameras = [(None if K is None else turn.intrinsics(K), source) for turn in turns]
    images = [turn.image(image) for turn in turns]
    found = predict_images(model, images, cameras, replace(options, any_rotation=False))
    best = max(range(len(turns)), key=lambda i: found[i].scores.sum())
    if found[best].scores.sum() <= upright.scores.sum():
        return upright
    return _turned_back(model, image, K, turns[best], found[best])


def predict_upright(
    model: NetworkHandle,
    images: Sequence[LoadedImage],
    cameras: Sequence[Camera],
    found: Sequence[Humans],
    near: Sequence[bool],
    options: PredictOptions,
) -> list[Humans]:
    """The people of each image, or of the quarter turn of it after which they are upright.

    One turn is predicted where most of the people that were `found` are not upright. Its people are taken if
    those who are upright there have the larger sum of scores; scores with a margin (`near`) are larger than
    others, so that who is found without one comes before.
    """
    turns: dict[int, QuarterTurns] = {}
    for i, hints in enumerate(_hints(model, images, cameras, found, options)):
        if count := turns_to_upright(hints):
            turns[i] = QuarterTurns.of(count, *images[i].pixels.shape[:2])
    if not turns:
        return list(found)
    turned_cameras: list[Camera] = []
    for i, turn in turns.items():
        K, source = cameras[i]
        turned_cameras.append((None if K is None else turn.intrinsics(K), source))
    turned_images = [turn.image(images[i]) for i, turn in turns.items()]
    turned, turned_near = predict_unturned(model, turned_images, turned_cameras, options)
    result = list(found)
    for (i, turn), there, there_near in zip(turns.items(), turned, turned_near, strict=True):
        certain, before = _certain_first(model, there, found[i])
        alike = there_near == near[i]
        least = before.scores.sum() if alike else 0.0
        own = float(model.config.threshold)
        sure = own if (before.scores >= own).any() else own + SURER * (1 - own)
        better = upright_score(certain) > least and certain.scores.max() >= sure
        if better and (alike or near[i] or not len(found[i])):
            result[i] = _turned_back(model, images[i], cameras[i][0], turn, there)
    return result


def _hints(
    model: NetworkHandle,
    images: Sequence[LoadedImage],
    cameras: Sequence[Camera],
    found: Sequence[Humans],
    options: PredictOptions,
) -> list[Humans]:
    """Of each image the people who tell how it lies: those who count, else those of lower scores.

    Who counts is a matter of the model's own threshold, so that an image lies the same way for all others.
    """
    own = float(model.config.threshold)
    unsure = [i for i, people in enumerate(found) if people.scores.max(initial=0.0) < own]
    seen = list(found)
    if unsure and least_score(model, options) > HINT_SCORE * own:
        lower = replace(options, threshold=HINT_SCORE * own, max_people=None)
        some = predict_whole_images(model, [images[i] for i in unsure], [cameras[i] for i in unsure], lower)
        for i, people in zip(unsure, some, strict=True):
            seen[i] = people
    return [_certain_first(model, people)[0] for people in seen]


def _certain_first(model: NetworkHandle, *several: Humans) -> list[Humans]:
    """The people of each who count at the model's own threshold, or where none do, at that of hints."""
    own = float(model.config.threshold)
    least = own if any((people.scores >= own).any() for people in several) else HINT_SCORE * own
    return [people[people.scores >= least] for people in several]


def _turned_back(
    model: NetworkHandle, image: LoadedImage, K: Tensor | None, turn: QuarterTurns, people: Humans
) -> Humans:
    """The people of a turned image in the image; K: of the image, None: the one of the people."""
    own_K = turn.intrinsics_back(people.K) if K is None else K
    return assemble_humans(model, turn.people_back(people), image, own_K, people.K_source)
