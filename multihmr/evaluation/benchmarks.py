"""Benchmarks by name: data set and split, rules of matching, points that are compared, figures of the table.

Each is measured as its papers do; where the model's body or a missing file does not allow that, only what
both have in common is compared, and `Comparison.notes` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..bodies.base import Body
from ..data import dataset_class
from ..data.sample import Sample
from . import correspondence as comparison
from .correspondence import Comparison
from .data_fingerprint import about_assets, fingerprint_assets, fingerprint_shards
from .evaluator import Rules
from .matching import RELEASED_IOU
from .protocol_files import ProtocolFiles

if TYPE_CHECKING:
    from ..data.dataset import PoseDataset

SYNTH_TEST = "synth-test"
SYNTH_TEST_COUNT = 2000
SYNTH_TEST_SEED = 20_000_000  # far from the seeds that training starts from

# MuPoTs-3D: whose child each of its 17 joints is, and the 14 that count: not pelvis, spine and head.
MUPOTS_PARENTS = (1, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1)
MUPOTS_SCORED = tuple(range(14))
MUPOTS_MATCHED = tuple(range(1, 14))

_MESH = ("pve", "pa_pve", "hand_pve", "hand_pa_pve", "face_pve", "face_pa_pve", "mpjpe", "pa_mpjpe", "mrpe")


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark.

    Attributes:
        name: for commands.
        dataset, split: of the data.
        figures: of the table.
        description: what is compared, below the table.
        compare: (model's body, files of the user, a sample with people) -> Comparison.
        rules: how people are counted.
    """

    name: str
    dataset: str
    split: str
    figures: tuple[str, ...]
    description: str
    compare: Callable[[Body, ProtocolFiles, Sample], Comparison]
    rules: Rules = field(default_factory=Rules)


def compare_meshes(body: Body, files: ProtocolFiles, sample: Sample, *, regress: bool = False) -> Comparison:
    """Comparison of people given by body parameters: meshes of the model's body, else shared joints.

    Args:
        body: the model's body.
        files: licensed files of the user.
        sample: one with people; its body decides.
        regress: compute the joints of both sides from SMPL-X vertices with the joint regressor.

    Raises:
        FileNotFoundError, ImportError: the body of the truth is not there; the message names it.
    """
    if sample.body == "smpl":
        return comparison.smpl_people(body, files)
    if sample.keypoint_set == comparison.SMPLX_VERTEX_SET:
        return comparison.true_meshes(body, _smplx_regressor(files), files)

    @lru_cache
    def truth_body(gender: str) -> Body:
        if gender == "neutral" and (sample.body, sample.shape.shape[1]) == (body.name, body.shape_count):
            return body
        return _load(sample, gender, files).to(body.mean_shape_S.device)

    if sample.body != body.name:
        return comparison.named_joints(body, truth_body)
    return comparison.meshes(body, truth_body, files, _smplx_regressor(files) if regress else None)


def _load(sample: Sample, gender: str, files: ProtocolFiles) -> Body:
    from ..bodies.loading import find_smplx, load_body

    if sample.body != "smplx":
        return load_body(sample.body)
    shapes = sample.shape.shape[1]
    if gender == "neutral":
        return load_body("smplx", shape_count=shapes, smplx=find_smplx(files.find("SMPLX_NEUTRAL.npz")))
    from ..bodies.smplx import SMPLX

    path = files.find(f"SMPLX_{gender.upper()}.npz")
    if path is None:
        raise FileNotFoundError(
            f"true people are {gender}: there is no {files.missing(f'SMPLX_{gender.upper()}.npz')}"
        )
    return SMPLX(path, shape_count=shapes, gendered=True)


def _smplx_regressor(files: ProtocolFiles) -> np.ndarray:
    """(55, 10475)"""
    from ..bodies.loading import find_smplx
    from ..bodies.smplx_reader import read_smplx

    return read_smplx(find_smplx(files.find("SMPLX_NEUTRAL.npz")), 10).regressor


def _compare_ubody(body: Body, files: ProtocolFiles, sample: Sample) -> Comparison:
    return compare_meshes(body, files, sample, regress=body.name == "smplx")


def _compare_3dpw(body: Body, files: ProtocolFiles, sample: Sample) -> Comparison:
    return comparison.smpl_people(body, files)


def _compare_mupots(body: Body, files: ProtocolFiles, sample: Sample) -> Comparison:
    return comparison.keypoints(body, "mupots17")


def _compare_panoptic(body: Body, files: ProtocolFiles, sample: Sample) -> Comparison:
    return comparison.panoptic(body, files)


def _compare_h36m(body: Body, files: ProtocolFiles, sample: Sample) -> Comparison:
    return comparison.human36m_keypoints(body, files)


BENCHMARKS = {
    b.name: b
    for b in (
        Benchmark(
            "3dpw-test", "3dpw", "test", ("pa_mpjpe", "mpjpe", "pve", "mrpe", "f1"),
            "14 joints of Human3.6M around its pelvis, PVE around SMPL's; people found",
            _compare_3dpw, Rules(iou_threshold=RELEASED_IOU),
        ),
        Benchmark(
            "ehf", "ehf", "test", _MESH[:6],
            "SMPL-X vertices around the pelvis, each hand around its wrist, the face around the neck",
            compare_meshes, Rules(min_visibility=0, iou_threshold=RELEASED_IOU),
        ),
        Benchmark(
            "mupots", "mupots", "test-universal", ("all_pck", "pck", "all_auc", "all_pck_absolute", "recall"),
            "3DPCK at 150 mm of 14 joints with the true lengths of bones, universal truth, mean of sequences",
            _compare_mupots,
            Rules(
                min_visibility=0, matching="joints", matched=MUPOTS_MATCHED, bones=MUPOTS_PARENTS,
                scored=MUPOTS_SCORED, missed={"pck": 0.0, "auc": 0.0, "pck_absolute": 0.0}, by_sequence=True,
            ),
        ),
        Benchmark(
            "agora-val", "agora", "validation",
            ("nmve", "nmje", "pve", "mpjpe", "fb_pve", "hand_pve", "face_pve", "f1", "precision", "recall"),
            "people of whom 10 % or more is visible; errors of those found, divided by the unrounded F1",
            compare_meshes,
        ),
        Benchmark(
            "bedlam-val", "bedlam", "validation", ("pve", "pa_pve", "mpjpe", "pa_mpjpe", "mrpe", "f1"),
            "SMPL-X vertices around the pelvis; people found",
            compare_meshes, Rules(min_visibility=0, iou_threshold=RELEASED_IOU),
        ),
        Benchmark(
            "ubody", "ubody", "test", _MESH[:6],
            "SMPL-X vertices around the pelvis, each hand around its wrist, the face around the neck",
            _compare_ubody, Rules(min_visibility=0, iou_threshold=RELEASED_IOU),
        ),
        Benchmark(
            "panoptic", "panoptic", "test", ("all_mpjpe", "mpjpe", "recall"),
            "14 joints around the pelvis, of people with six joints in the picture; 150 mm for those missed",
            _compare_panoptic,
            Rules(min_visibility=0, iou_threshold=RELEASED_IOU, missed={"mpjpe": 150.0}),
        ),
        Benchmark(
            "h36m", "h36m", "test", ("pa_mpjpe", "mpjpe", "n_mpjpe", "mrpe"),
            "14 joints around the pelvis; subjects 9 and 11",
            _compare_h36m, Rules(min_visibility=0, iou_threshold=RELEASED_IOU),
        ),
    )
}  # fmt: skip


def open_samples(
    data: str, root: Path | None, count: int | None = None, assets: Path | None = None
) -> Sequence[Sample]:
    """The samples of a benchmark, of "synth-test", or of a folder of shards.

    Args:
        data: name of the benchmark, "synth-test" or the folder.
        root: a benchmark's data lie in root/NAME (of the data set), or in the root itself.
        count: how many "synth-test" has; None for all.
        assets: folder that "synth-test" is rendered from; None looks for shared/assets beside the checkout.

    Raises:
        FileNotFoundError: something is missing; the message tells where to get it. Or `data` is neither a
            benchmark nor a folder.
    """
    if data == SYNTH_TEST:
        from ..data.synthetic.dataset import SyntheticScenes

        # clothes, skins and motions that are not trained on
        scenes = SyntheticScenes(
            SYNTH_TEST_SEED, count=count or SYNTH_TEST_COUNT, split="test", assets=assets
        )
        return scenes  # type: ignore[return-value]
    if data in BENCHMARKS:
        return _open_reader(BENCHMARKS[data], root)
    if not Path(data).exists():
        known = ", ".join((*BENCHMARKS, SYNTH_TEST))
        raise FileNotFoundError(
            f"{data!r} is no folder of shards and no benchmark; known: {known}; photographs with COCO's "
            "labels are coco@FOLDER"
        )
    from ..data.webdataset import Shards

    return Shards(data)


def data_fingerprint(data: str, assets: Path | None = None) -> str:
    """16 digits that change with the content of "synth-test" or of a folder of shards; "" of a benchmark."""
    if data == SYNTH_TEST:
        from ..data.synthetic.dataset import find_assets

        return fingerprint_assets(find_assets(assets))
    return "" if data in BENCHMARKS or not Path(data).exists() else fingerprint_shards(Path(data))


def about_data(data: str, assets: Path | None = None) -> tuple[str, ...]:
    """Warnings on data that published figures were not measured on; one sentence each."""
    if data != SYNTH_TEST:
        return ()
    from ..data.synthetic.dataset import find_assets

    note = about_assets(find_assets(assets))
    return (note,) if note else ()


def _open_reader(benchmark: Benchmark, root: Path | None) -> PoseDataset:
    reader = dataset_class(benchmark.dataset)
    if root is None:
        raise FileNotFoundError(
            f"give the folder of {benchmark.name} with --root DIR: {reader.about.how_to_get()}"
        )
    own = root / benchmark.dataset
    return reader(own if own.is_dir() else root, benchmark.split)


def first_with_people(samples: Sequence[Sample], tries: int = 1000) -> Sample:
    """The first sample that can be read and has people; ValueError if there is none."""
    reason = "they have no people"
    for index in range(min(len(samples), tries)):
        try:
            sample = samples[index]
        except (ValueError, OSError) as error:
            reason = str(error)
            continue
        if len(sample.translation):
            return sample
    raise ValueError(f"none of the first {min(len(samples), tries)} samples can be used: {reason}")
