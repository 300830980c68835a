"""How many pictures a second does one core read, augment and collate?

    OMP_NUM_THREADS=1 python scripts/measure_loading.py data/train

Time is that of the processor, so that a busy machine gives the same figure. n cores that load
(`--workers n`) feed about n times as many.
"""

import argparse
import time

import torch

from multihmr.bodies.loading import load_body
from multihmr.data.augment import Augmentation
from multihmr.data.mixture import Mixture, open_sources
from multihmr.training.collate import collate
from multihmr.training.dataloader import TrainDataset

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", help="as for `multihmr train`")
parser.add_argument("--root", default="data", help="of named data sets")
parser.add_argument("--body", default="anny")
parser.add_argument(
    "--size", type=int, default=448, help="side of the network's window; default: %(default)s"
)
parser.add_argument("--count", type=int, default=256, help="of pictures; default: %(default)s")
args = parser.parse_args()

torch.set_num_threads(1)
mixture, topology = Mixture(open_sources(args.data, args.root)), load_body(args.body).topology
kinds = {
    "as by default": Augmentation(),
    "with zoom, roll and cover": Augmentation(focal_jitter_prob=0.3, rotation_prob=0.3, occlusion_prob=0.3),
}
for kind, augmentation in kinds.items():
    stream = TrainDataset(mixture, topology, args.size, augmentation)
    stream[0]  # opens what is opened once
    begun = time.process_time()
    for start in range(0, args.count, 16):
        collate([stream[g] for g in range(start, min(start + 16, args.count))])
    print(f"{args.count / (time.process_time() - begun):.1f} pictures a second and core, augmented {kind}")
