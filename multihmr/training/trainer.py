"""One readable loop: TrainConfig in, weights out. `multihmr train` is this and nothing more."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..bodies.topology import Topology
from ..data.augment import Augmentation, augment
from ..data.mixture import Mixture, Source, for_body, open_sources
from ..data.person_crops import one_person, one_person_twice
from ..hub.loading import save_network
from ..model import Model
from ..networks.base import Network
from ..networks.glnet import GLNet
from ..runtime.devices import pick_device
from .build_model import STARTS, build
from .collate import Batch
from .config import TrainConfig
from .dataloader import Stream, batches, death_of_workers_said
from .distributed import Processes, StopSignal
from .glnet import GLNetObjective
from .logger import Journal
from .losses import MultiHMRLoss
from .state import TrainState
from .targets import Targets, make_targets, point_names

log = logging.getLogger(__name__)


def train(config: TrainConfig, *, model: Model | Network | None = None, progress: bool | None = None) -> Path:
    """Train (or go on, if `out` holds a checkpoint) and return the path of the weights that came out.

    Started by `torchrun --nproc-per-node N -m multihmr train ...`, the processes share each step's pictures
    and all hold the same weights; the first one writes. However a step is cut into processes and batches, it
    changes the weights alike, and a run may go on with another number of them.

    Args:
        config: every flag of the command.
        model: whose network to train, instead of one that `config` describes.
        progress: whether to show a bar; None on a terminal.

    Raises:
        FloatingPointError: a loss term is not finite; it and the samples are named.
        ValueError: a sample cannot be used, or a flag has no such value.
        ChildProcessError: a process that reads pictures died.
        OSError: a checkpoint cannot be written; the previous one is whole.
        KeyboardInterrupt: SIGTERM or SIGINT came; the step was finished and saved.
    """
    torch.manual_seed(config.seed)
    device = pick_device(config.device or None)
    processes = Processes.join(device)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    network = model.network if isinstance(model, Model) else model
    crops = (network or config).family == "glnet"
    if config.paired_crops and not crops:
        raise ValueError("--paired-crops are two crops of one person; take --family glnet")
    sources = open_sources(config.data, config.root, joints=crops)
    if network is None:
        network = build(config, {source.samples[0].keypoint_set for source in sources})
    state = TrainState(network.to(device), config)
    if (out / "checkpoint.pt").exists():
        state.load(out / "checkpoint.pt")
        log.info("going on from step %d", state.step)
    topology = state.model.body.topology
    check_sources(sources, topology, keypoints_only=config.keypoints_only)
    stream = Stream(
        Mixture(sources, config.seed),
        topology,
        state.model.config.image_size,
        Augmentation(
            focal_jitter_prob=config.focal_jitter_prob,
            person_crop_prob=config.person_crop_prob,
            rotation_prob=config.rotation_prob,
            full_rotation_prob=config.full_rotation_prob,
            occlusion_prob=config.occlusion_prob,
            camera_effects_prob=config.camera_effects_prob,
        ),
        keypoints_only=config.keypoints_only,
        view=(one_person_twice if config.paired_crops else one_person) if crops else augment,
        views=1 + config.paired_crops,
    )
    with StopSignal() as stop, death_of_workers_said():
        _learn(state, stream, processes, stop, progress)
    path = out / "weights.safetensors"
    if processes.first:
        export(state, path, licence=config.licence)
    processes.leave()
    return path


def _learn(
    state: TrainState, stream: Stream, processes: Processes, stop: StopSignal, progress: bool | None
) -> None:
    """All steps that are still to do; the last one is saved, also when a signal asks to stop."""
    config, device = state.config, state.model.device
    out = Path(config.out)
    shared = processes.share(objective_of(state.model).to(device))
    steps = batches(stream, config, state.step, processes, pinned=device.type == "cuda")
    saved_at, stopped = time.monotonic(), False
    with Journal(out, config, state.step, writes=processes.first, bar=progress) as journal:
        for parts in journal.timed(steps):
            state.see(parts)
            terms = train_step(state, shared, [part.to(device) for part in parts], processes)
            journal.note(state.step, terms)
            stopped = processes.any(bool(stop.asked), device)
            last = stopped or state.step == config.steps
            if last or time.monotonic() - saved_at > config.save_seconds:
                if processes.first:
                    state.save(out / "checkpoint.pt")
                    log.info("saved %s", journal.summary)
                saved_at = time.monotonic()
            if stopped:
                break
    if stopped:
        processes.leave()
        raise KeyboardInterrupt(
            f"stopped after step {state.step} of {config.steps}, which is saved in {out / 'checkpoint.pt'}; "
            "the same command goes on from there"
        )


class Objective(nn.Module):
    """Batch in, weighted loss terms by name out: the network at the true cells against the truth."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model
        self.criterion = MultiHMRLoss(model.body, model.config.image_size, model.config.read_joints)

    def targets(self, batch: Batch) -> Targets:
        return make_targets(batch, self.model.body, self.model.backbone.patch)

    def forward(
        self, batch: Batch, true: Targets | None = None, counts: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """true: `self.targets`, if they are there already; counts: as `MultiHMRLoss.forward` takes them."""
        true = true or self.targets(batch)
        pred = self.model(batch.images_B3HW(), batch.K_B33, centers=true.centers)
        return self.criterion(pred, true, counts)


def objective_of(model: Network) -> nn.Module:
    """What a model of its family learns by."""
    return GLNetObjective(model) if isinstance(model, GLNet) else Objective(model)


ALONE = Processes()


def train_step(
    state: TrainState, shared: nn.Module, parts: Sequence[Batch], processes: Processes = ALONE
) -> dict[str, float]:
    """One step of the optimiser on all batches of all processes.

    shared: an `Objective`, as `processes.share` gives it. Returns the weighted loss terms of the whole step,
    their "total", and how many people were "left_out".
    """
    objective: Any = getattr(shared, "module", shared)  # within what sends the gradients around
    truths = [objective.targets(part) for part in parts]
    counts = _counts(objective, truths, processes)
    state.optimizer.zero_grad(set_to_none=True)
    names: list[str] = []
    sums = torch.zeros(0)
    for part, true in zip(parts, truths, strict=True):
        with processes.keep_gradients(shared, keep=part is not parts[-1]):
            terms = shared(part, true, counts)
            names, values = list(terms), torch.stack(list(terms.values()))
            if not values.isfinite().all():
                raise FloatingPointError(_culprits(objective, part, terms, state.step))
            # Processes average their gradients, but the step wants their sum.
            state.scaler.scale(values.sum() * processes.count).backward()
        sums = values.detach() + (sums if len(sums) else 0)
    _update(state, parts)
    left_out = sums.new_tensor([float(sum(true.left_out for true in truths))])
    *numbers, people = processes.total(torch.cat([sums, left_out])).tolist()
    return {**dict(zip(names, numbers, strict=True)), "total": sum(numbers), "left_out": people}


def _counts(objective: Any, truths: Sequence[Targets], processes: Processes) -> dict[str, Tensor]:
    """What each loss term of the step is divided by, over all batches of all processes."""
    of_parts = [objective.criterion.counts(true) for true in truths]
    stacked = torch.stack([torch.stack(list(counts.values())).float() for counts in of_parts])
    return dict(zip(of_parts[0], processes.total(stacked.sum(0)), strict=True))


def _update(state: TrainState, parts: Sequence[Batch]) -> None:
    """Weights and their average move along the gradient."""
    for group in state.optimizer.param_groups:
        group["lr"] = state.config.lr * group["factor"] * state.learning_rate_factor()
    state.scaler.unscale_(state.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), state.config.grad_clip_norm)
    # With fp16 an infinite gradient is usual: the scaler leaves the step out and scales less.
    scaling = state.scaler.is_enabled() and state.scaler.get_scale() >= 1
    if not scaling and not norm.isfinite():
        names = ", ".join(f"'{name}'" for part in parts for name in part.names)
        raise FloatingPointError(
            f"the gradient is not finite at step {state.step}, though the loss is; lower the learning rate, "
            f"take --precision bf16, or look at the samples of this step: {names}"
        )
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.step += 1
    state.update_ema()


@torch.no_grad()
def _culprits(objective: Any, batch: Batch, terms: Mapping[str, Tensor], step: int) -> str:
    """What to say of a loss that is not finite: which terms, and which samples give it on their own."""
    wrong = ", ".join(name for name, term in terms.items() if not term.isfinite())
    names = []
    for i, name in enumerate(batch.names):
        if not all(term.isfinite() for term in objective(batch.alone(i)).values()):
            names.append(f"'{name}'")
    if 0 < len(names) < len(batch):
        return (
            f"loss term {wrong} is not finite at step {step} because of {', '.join(names)}; mend or drop them"
        )
    everyone = ", ".join(f"'{name}'" for name in batch.names)
    return (
        f"loss term {wrong} is not finite at step {step}; lower the learning rate, or look at the samples of "
        f"this batch: {everyone}"
    )


def export(state: TrainState, path: Path, licence: str = "unknown") -> Path:
    """Write the averaged weights as a checkpoint for `load_model`, in half precision.

    What nobody moved in training is `unpredicted`, unless the network could say it at the start.
    """
    unmoved = state.unmoved_names()
    if state.config.init not in STARTS:
        unmoved = tuple(name for name in unmoved if name in state.model.config.unpredicted)
    state.model.config = replace(state.model.config, unpredicted=unmoved)
    trained = {name: value.clone() for name, value in state.model.state_dict().items()}
    state.model.load_state_dict(state.ema)
    save_network(state.model, path, half=True, source="multihmr train", licence=licence)
    state.model.load_state_dict(trained)
    return path


def check_sources(sources: Sequence[Source], topology: Topology, *, keypoints_only: bool = False) -> None:
    """ValueError, naming the source, if its first sample does not fit a model with this body."""
    for source in sources:
        sample = source.samples[0]
        try:
            for_body(sample, topology, keypoints_only=keypoints_only)
            if sample.keypoints_2d is not None or sample.keypoints_3d is not None:
                point_names(topology, sample.keypoint_set)
        except ValueError as error:
            raise ValueError(f"{source.name} cannot be learned from: {error}") from error
