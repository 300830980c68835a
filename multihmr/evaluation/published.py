"""Published figures of other methods with their sources, and labels and units of figures.

None of these figures was measured by us. Protocols differ in what the sources leave out (training on 3DPW,
cameras, joint regressors). Where a source gives no figure, there is none here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

METHODS = ("Multi-HMR", "GLNet", "ROMP", "BEV", "PSVT", "OSX", "Hand4Whole", "SAT-HMR")


class Figure(NamedTuple):
    """Label, unit and scale of a figure: `scale` times ours is the value that papers print."""

    label: str
    unit: str
    lower_is_better: bool
    scale: float = 1.0


FIGURES = {
    "mpjpe": Figure("MPJPE", "mm", True),
    "all_mpjpe": Figure("MPJPE, missed 150", "mm", True),
    "pa_mpjpe": Figure("PA-MPJPE", "mm", True),
    "n_mpjpe": Figure("n-MPJPE", "mm", True),
    "camera_mpjpe": Figure("camera-space MPJPE", "mm", True),
    "mrpe": Figure("MRPE", "mm", True),
    "depth": Figure("depth error", "mm", True),
    "pve": Figure("PVE", "mm", True),
    "pa_pve": Figure("PA-PVE", "mm", True),
    "hand_pve": Figure("PVE hands", "mm", True),
    "hand_pa_pve": Figure("PA-PVE hands", "mm", True),
    "face_pve": Figure("PVE face", "mm", True),
    "face_pa_pve": Figure("PA-PVE face", "mm", True),
    "body_pve": Figure("PVE body", "mm", True),
    "fb_pve": Figure("FB-MVE", "mm", True),
    "nmve": Figure("NMVE", "mm", True),
    "nmje": Figure("NMJE", "mm", True),
    "acceleration_error": Figure("acceleration error", "mm/frame²", True),
    "jitter": Figure("jitter", "mm/frame³", True),
    "true_jitter": Figure("jitter of the truth", "mm/frame³", True),
    "precision": Figure("precision", "%", False, 100.0),
    "recall": Figure("recall", "%", False, 100.0),
    "f1": Figure("F1", "", False),
    "all_pck": Figure("3DPCK, all", "%", False, 100.0),
    "pck": Figure("3DPCK, matched", "%", False, 100.0),
    "all_auc": Figure("AUC, all", "%", False, 100.0),
    "all_pck_absolute": Figure("absolute 3DPCK, all", "%", False, 100.0),
    "head_m": Figure("head in the camera frame, median", "m", True),
    "head_percent": Figure("head in the camera frame, median", "% of the distance", True),
}


def figure_labels(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Label, unit and scale of each figure of `FIGURES` among these names, as results are stored with.

    `scale` times a stored figure is its value in `unit`.
    """
    return {
        name: {"label": FIGURES[name].label, "unit": FIGURES[name].unit, "scale": FIGURES[name].scale}
        for name in names
        if name in FIGURES
    }


@dataclass(frozen=True)
class Published:
    """One figure of one method, as printed; `variant` where a method has several."""

    benchmark: str
    figure: str
    method: str
    value: float
    source: str
    variant: str = ""


NOTES = "notes on Multi-HMR (ECCV 2024, arXiv 2402.14654), papers/multihmr-notes.txt"
README = "README of naver/multi-hmr at 651fb41, parity/CHECKPOINTS.md section 1"
POSTER = "poster of GLNet (ECCV 2024), papers/glnet-poster.txt, table 1"
SATHMR = "README of ChiSu001/SAT-HMR, design/landscape.md section 1b"
WEB = "second-hand, not checked against the paper, design/landscape.md section 1b"


def _rows(
    benchmark: str, method: str, source: str, variant: str = "", **values: float
) -> tuple[Published, ...]:
    return tuple(Published(benchmark, name, method, x, source, variant) for name, x in values.items())


def _released(name: str, threedpw: float, ehf: float, bedlam: float) -> tuple[Published, ...]:
    return (
        *_rows("3dpw-test", "Multi-HMR", README, name, pve=threedpw),
        *_rows("ehf", "Multi-HMR", README, name, pve=ehf),
        *_rows("bedlam-val", "Multi-HMR", README, name, pve=bedlam),
    )


# The table shows the first of each method for a figure; the others are in the JSON.
PUBLISHED: tuple[Published, ...] = (
    *_rows("3dpw-test", "Multi-HMR", NOTES, "best of the paper", pa_mpjpe=41.7),
    *_rows("3dpw-test", "Multi-HMR", WEB, "best of the paper", mpjpe=61.4, pve=75.9),
    *_rows("3dpw-test", "Multi-HMR", NOTES, "448 pixels", pa_mpjpe=43.8),
    *_rows("3dpw-test", "Multi-HMR", WEB, "re-run by others", pa_mpjpe=45.9, mpjpe=73.1, pve=87.1),
    *_rows("3dpw-test", "GLNet", POSTER, "W32", pa_mpjpe=39.7, mpjpe=66.3, pve=77.7),
    *_rows("3dpw-test", "GLNet", POSTER, "W48", pa_mpjpe=39.5, mpjpe=66.9, pve=77.9),
    *_rows("3dpw-test", "ROMP", NOTES, pa_mpjpe=47.3),
    *_rows("3dpw-test", "BEV", NOTES, pa_mpjpe=46.9),
    *_rows("3dpw-test", "PSVT", NOTES, pa_mpjpe=45.7),
    *_rows("3dpw-test", "SAT-HMR", SATHMR, "644", pa_mpjpe=41.6, mpjpe=63.6, pve=73.7),
    *_rows("ehf", "Multi-HMR", NOTES, "best of the paper", pve=44.2, pa_pve=32.7, hand_pve=36.4),
    *_rows("ehf", "Multi-HMR", WEB, "best of the paper", face_pa_pve=5.5),
    *_rows("ehf", "OSX", NOTES, pve=70.8, pa_pve=48.7, hand_pve=53.7),
    *_rows("ehf", "Hand4Whole", NOTES, pve=76.8, pa_pve=50.3, hand_pve=39.8),
    # The source says 3DPCK and not whether over all people or those matched; ROMP's and ours is over all.
    *_rows("mupots", "Multi-HMR", NOTES, "best of the paper", all_pck=85.0),
    *_rows("mupots", "Multi-HMR", NOTES, "448 pixels", all_pck=80.6),
    *_rows("mupots", "ROMP", NOTES, all_pck=69.9),
    *_rows("mupots", "BEV", NOTES, all_pck=70.2),
    *_rows("panoptic", "Multi-HMR", NOTES, "best of the paper", all_mpjpe=82.8),
    *_rows("panoptic", "ROMP", NOTES, all_mpjpe=108.1),
    *_rows("panoptic", "BEV", NOTES, all_mpjpe=105.3),
    *_rows("panoptic", "PSVT", NOTES, all_mpjpe=97.7),
    *_rows("agora-val", "SAT-HMR", SATHMR, "644, SMPL", mpjpe=63.0, pve=59.0),
    *_rows("ubody", "Multi-HMR", WEB, "best of the paper", pa_pve=23.6, face_pa_pve=1.8),
    *_rows("bedlam-val", "SAT-HMR", SATHMR, "644, SMPL", f1=0.98, mpjpe=48.7, pve=46.2),
    *_rows("h36m", "GLNet", POSTER, "W32", pa_mpjpe=29.8, mpjpe=47.5),
    *_rows("h36m", "GLNet", POSTER, "W48", pa_mpjpe=29.4, mpjpe=48.8),
    *_released("multiHMR_896_L", 89.9, 42.2, 56.7),
    *_released("multiHMR_672_L", 94.1, 37.0, 58.6),
    *_released("multiHMR_672_B", 94.0, 43.6, 67.2),
    *_released("multiHMR_672_S", 102.4, 49.3, 78.9),
)


def published(benchmark: str, figure: str, method: str) -> Published | None:
    """The figure that the table shows for this method: its first one here."""
    found = (p for p in PUBLISHED if (p.benchmark, p.figure, p.method) == (benchmark, figure, method))
    return next(found, None)
