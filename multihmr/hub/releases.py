"""Releases: published checkpoints by name, with address, size, licence and expected content.

The official ones are those of github.com/naver/multi-hmr. Their sha256 is not published.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

DEFAULT = "multihmr-anny-hybrid"


@dataclass(frozen=True)
class Release:
    """A published checkpoint, and what its file must hold to be the one of that name.

    file        in `weights/` of this package, or behind `urls`, which are asked in order
    sha256      of that file; "" if it is not published
    size        of that file in bytes; where sha256 is "", an estimate from the network's tensors
    family, backbone, image_size [pixels], body: what the file of an official name must hold
    card        of a file in `weights/`: the model card beside it
    repository  "owner/repo" on the Hugging Face Hub that has the file as well, or ""
    """

    name: str
    file: str
    body: str
    licence: str
    size: int
    description: str
    sha256: str = ""
    family: str = "multihmr"
    backbone: str = ""
    image_size: int = 0
    urls: tuple[str, ...] = ()
    card: str = ""
    repository: str = ""
    licence_url: str = ""

    @property
    def size_label(self) -> str:
        """The size for people: "19.7 MB"; "about 1268 MB" where it is an estimate."""
        return f"{self.size / 1e6:.1f} MB" if self.sha256 else f"about {self.size / 1e6:.0f} MB"


_NAVER = "https://download.europe.naverlabs.com"
LICENCE_URL = "https://github.com/naver/multi-hmr"
LICENCE_URL_ANNY = f"{_NAVER}/ComputerVision/MultiHMR/Checkpoint_License_Anny.txt"


def _official(name: str, backbone: str, image_size: int, size: int, data: str, **fields: Any) -> Release:
    """A checkpoint of github.com/naver/multi-hmr; its README's address first, then its demo's."""
    file = f"{name}.pt"
    urls = [f"{_NAVER}/ComputerVision/MultiHMR/{file}", f"{_NAVER}/multihmr/{file}"]
    if fields.get("repository"):
        urls.append(f"https://huggingface.co/{fields['repository']}/resolve/main/{file}")
    kinds = {"dinov2_vits14": "ViT-S", "dinov2_vitb14": "ViT-B", "dinov2_vitl14": "ViT-L"}
    defaults = {
        "body": "smplx",
        "licence": "non-commercial (NAVER)",
        "licence_url": LICENCE_URL,
    }
    return Release(
        name=name,
        file=file,
        size=size,
        backbone=backbone,
        image_size=image_size,
        urls=tuple(urls),
        description=f"official, {kinds[backbone]} at {image_size} pixels, trained on {data}",
        **(defaults | fields),
    )


_FOUR_SETS = "BEDLAM, AGORA, CUFFS and UBody"
RELEASES = {
    release.name: release
    for release in [
        Release(
            name=DEFAULT,
            file="multihmr-anny-hybrid.safetensors",
            sha256="bda039b9233e95683e70bd8e5c9e61c65323d119724e039710501fdaa58e13c7",
            size=14246382,
            card="README.md",
            body="anny",
            licence="Apache-2.0",
            description="MoveNet and ViT blocks for CPUs, trained on synthetic people and few photographs",
        ),
        Release(
            name="glnet-anny-hybrid",
            file="glnet-anny-hybrid.safetensors",
            sha256="e9d6eb548cca121890482a8b00c140ff5cbd5260c54f86fef444dcafa3e9ea19",
            size=9703052,
            card="glnet-anny-hybrid.md",
            body="anny",
            family="glnet",
            licence="Apache-2.0",
            description="GLNet for people whose boxes are known, trained on synthetic people only",
        ),
        _official(
            "multiHMR_896_L", "dinov2_vitl14", 896, 1268438752, _FOUR_SETS, repository="naver/multiHMR_896_L"
        ),
        _official("multiHMR_672_L", "dinov2_vitl14", 672, 1268151264, _FOUR_SETS),
        _official("multiHMR_672_B", "dinov2_vitb14", 672, 391029728, _FOUR_SETS),
        _official("multiHMR_672_S", "dinov2_vits14", 672, 125946848, _FOUR_SETS),
        _official("multiHMR_1288_L_bedlam", "dinov2_vitl14", 1288, 1268941856, "BEDLAM with its validation"),
        _official(
            "multiHMR_1288_L_agora", "dinov2_vitl14", 1288, 1268941856, "BEDLAM and AGORA with validation"
        ),
        _official(
            "multiHMR_672_L_anny",
            "dinov2_vitl14",
            672,
            1375373792,
            "BEDLAM, ITW and AnnyOne",
            body="anny-163",
            family="multihmr-anny",
            licence="non-commercial (NAVER, Anny checkpoint)",
            licence_url=LICENCE_URL_ANNY,
        ),
    ]
}


def list_models() -> list[Release]:
    """The releases that `load_model` knows by name, each with name, body, licence, size and description.

    Examples:
        >>> bundled = [release.name for release in list_models() if not release.urls]
        >>> len(bundled) >= 1
        True
    """
    return list(RELEASES.values())


def find_release(name: str) -> Release | None:
    """The release of that name, whatever its case, or without its "multiHMR_"; None if there is none."""
    spellings = _spellings()
    return RELEASES[spellings[name.lower()]] if name.lower() in spellings else None


def unknown_release(name: str) -> str:
    """The sentence for a name that is none, with those that are near."""
    spellings = _spellings()
    nearest = difflib.get_close_matches(name.lower(), spellings, n=3, cutoff=0.0)
    quoted = ", ".join(repr(near) for near in dict.fromkeys(spellings[key] for key in nearest))
    return (
        f"no model {name!r}; nearest: {quoted}. list_models() shows all, a path or 'hf:owner/repo' also works"
    )


def _spellings() -> dict[str, str]:
    """Lower case, whole and short -> name."""
    whole = {name.lower(): name for name in RELEASES}
    return whole | {key.removeprefix("multihmr_"): name for key, name in whole.items()}
