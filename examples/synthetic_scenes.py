"""How do I make pictures with exact ground truth?  (needs: pip install 'multihmr[synthetic]')

python examples/synthetic_scenes.py
"""

import torch

from multihmr.bodies.anny import Anny
from multihmr.bodies.base import place
from multihmr.data.synthetic.dataset import SyntheticScenes
from multihmr.geometry import project

sample = SyntheticScenes(seed=7, size=224)[1]
print(f"{sample.image.shape} picture, {len(sample)} people, {sample.visibility.round(2)} of them visible")

body = Anny()
parameters = (torch.from_numpy(getattr(sample, name)) for name in ("pose", "shape", "expression"))
people = place(body(*parameters), torch.from_numpy(sample.translation), body.center_joint)
pixels = project(people.vertices_PV3, torch.from_numpy(sample.K))
print(f"{len(pixels)} meshes that project onto the picture, in pixels {pixels.shape}")
