"""How do I render pictures with exact ground truth?  (needs: pip install 'multihmr[synthetic]')

python examples/synthetic_scenes.py
"""

from multihmr.bodies.anny import Anny
from multihmr.bodies.base import posed
from multihmr.data.synthetic.dataset import SyntheticScenes
from multihmr.humans import project

sample = SyntheticScenes(seed=7, size=224)[1]
print(f"{sample.image.shape} picture, {len(sample)} people, {sample.visibility.round(2)} visible")

body = Anny()
vertices, joints = posed(body, sample.pose, sample.shape, sample.expression, sample.translation)
pixels = project(vertices, sample.K)
print(f"{len(pixels)} meshes that project onto the picture, in pixels {pixels.shape}")
