"""Trains the tiny network in a process of its own: python learn.py '{"data": "...", "out": "..."}'."""

import json
import sys

import torch
from toys import tiny_network

from multihmr.training.config import TrainConfig
from multihmr.training.trainer import train

if __name__ == "__main__":
    torch.set_num_threads(1)
    train(TrainConfig(**json.loads(sys.argv[1])), model=tiny_network(), progress=False)
