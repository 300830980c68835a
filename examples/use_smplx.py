"""I hold the SMPL-X licence: how do I get SMPL-X people from an official checkpoint into other tools?

    pip install 'multihmr[smplx]'
    python examples/use_smplx.py [PICTURE] [SMPLX_NEUTRAL.npz]

The checkpoint (1.3 GB, non-commercial) is fetched on first use.
"""

import sys
from pathlib import Path

import numpy as np

from multihmr import load_model

picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images/astronaut.jpg"
try:
    model = load_model("multiHMR_896_L", smplx=sys.argv[2] if len(sys.argv) > 2 else None)
except (FileNotFoundError, ImportError) as error:  # before anything is fetched
    print(error)
else:
    humans = model.predict(picture)
    print(humans)
    humans.save("people.npz")

    # By the names of AMASS and the smplx package, whose own forward pass gives humans.vertices:
    #   smplx.create(folder, "smplx", use_pca=False, flat_hand_mean=True, batch_size=len(humans))(
    #       global_orient=poses[:, :3], body_pose=poses[:, 3:66], jaw_pose=poses[:, 66:69], ..., transl=trans)
    with np.load("people.npz") as file:
        poses, betas, trans = file["poses"], file["betas"], file["trans"]
    print("poses", poses.shape, "betas", betas.shape, "trans", trans.shape)
