"""The renderer: what it says about people is what its pictures show."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from multihmr.bodies.anny import Anny
from multihmr.bodies.base import place
from multihmr.data.webdataset import Shards, write_shard

pytest.importorskip("warp", reason="rendering needs warp: pip install 'multihmr[synthetic]'")

from multihmr.data.synthetic.dataset import SyntheticScenes, find_assets
from multihmr.data.synthetic.generate import GenerationConfig, RenderedDataset, contact_sheet, write_shards
from multihmr.data.synthetic.textures import procedural_tile

pytestmark = pytest.mark.slow  # the module fixtures alone take seconds

SIZE = 128


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> SyntheticScenes:
    """Without any assets: painted clothes and built-in poses, as on a stranger's machine."""
    return SyntheticScenes(3, SIZE, count=40, assets=tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def dressed() -> SyntheticScenes:
    folder = find_assets()
    if folder is None or not (folder / "makehuman_cc0").is_dir():
        pytest.skip("the CC0 pack (shared/assets/makehuman_cc0) is not here")
    return SyntheticScenes(3, SIZE, count=40)


def shares_on_person(scenes: SyntheticScenes, index: int) -> list[float]:
    """For each person whom nothing hides: the share of vertices within a pixel of what shows them."""
    body, sample = Anny(), scenes[index]
    if not len(sample):
        return []
    person = scenes.renderer.tracer.people(scenes.scene(index).camera)  # of the scene just built
    parameters = (torch.from_numpy(getattr(sample, k)) for k in ("pose", "shape", "expression"))
    placed = place(body(*parameters), torch.from_numpy(sample.translation), body.center_joint)
    shares = []
    for k in np.flatnonzero(sample.visibility > 0.88):
        x, y, z = (placed.vertices_PV3[k].numpy() @ sample.K.T).T
        row, column = (y / z).astype(int), (x / z).astype(int)
        near = [
            person[np.clip(row + i, 0, SIZE - 1), np.clip(column + j, 0, SIZE - 1)] == k
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
        ]
        shares.append(float(np.any(near, axis=0).mean()))
    return shares


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bare", "dressed"])
def test_projected_vertices_fall_on_their_person(kind: str, request: pytest.FixtureRequest) -> None:
    scenes = request.getfixturevalue(kind)
    shares = [share for i in range(8) for share in shares_on_person(scenes, i)]
    assert len(shares) >= 2
    assert min(shares) > 0.95


@pytest.mark.slow
def test_same_seed_and_index_give_the_same_sample_whatever_came_before(bare: SyntheticScenes) -> None:
    first = bare[7]
    _ = bare[1]
    again = bare[7]
    other = bare[8]
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.pose, again.pose)
    assert np.array_equal(first.translation, again.translation)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.slow
def test_every_person_shows_the_head_and_enough_of_the_body(bare: SyntheticScenes) -> None:
    for i in range(8):
        sample = bare[i]
        heads = sample.translation @ sample.K.T
        heads = heads[:, :2] / heads[:, 2:]
        assert (sample.translation[:, 2] > 0.3).all()
        assert ((heads > 0) & (heads < SIZE)).all()
        assert (sample.visibility > 0.05).all()
        assert sample.pose.shape[1:] == (104, 3, 3)


@pytest.mark.slow
def test_shards_are_read_as_they_were_written_and_kept_on_resuming(tmp_path, bare: SyntheticScenes) -> None:  # type: ignore[no-untyped-def]
    samples = [bare[i] for i in range(3)]
    write_shard(tmp_path / "a.tar", samples)
    for before, after in zip(samples, Shards(tmp_path / "a.tar"), strict=True):
        assert after.name == before.name
        assert np.abs(after.image.astype(int) - before.image).mean() < 16  # JPEG, of a noisy picture
        assert all(np.array_equal(getattr(after, k), getattr(before, k)) for k in ("K", "pose", "visibility"))
    whole = Shards(tmp_path / "a.tar", planes=True)[1]
    assert np.array_equal(whole.mask, samples[1].mask)
    assert np.allclose(whole.depth, samples[1].depth, atol=6e-4, equal_nan=True)
    assert np.array_equal(whole.joint_visibility, samples[1].joint_visibility)
    empty = tmp_path / "none"
    empty.mkdir()
    paths = write_shards(tmp_path, 3, GenerationConfig(3, 64, assets=empty), per_shard=2, workers=1)
    made = [p.stat().st_mtime_ns for p in paths]
    assert [len(Shards(p)) for p in paths] == [2, 1]
    write_shards(tmp_path, 3, GenerationConfig(3, 64, assets=empty), per_shard=2, workers=1)
    assert [p.stat().st_mtime_ns for p in paths] == made
    cut = paths[0].read_bytes()[:3000]
    paths[0].write_bytes(cut)
    with pytest.raises(ValueError, match="not a complete shard"):
        Shards(paths[0])


def test_missing_and_hostile_folders_are_refused_by_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SyntheticScenes(1, assets=tmp_path / "nowhere")
    from multihmr.data.synthetic.untrusted_text import inside

    with pytest.raises(ValueError, match="outside"):
        inside(tmp_path, "../secret.npz")


@pytest.mark.slow
def test_mask_depth_and_joints_tell_of_the_same_people(bare: SyntheticScenes) -> None:
    for sample in (bare[i] for i in range(8)):
        assert sample.mask.max(initial=0) <= len(sample)
        x, y, z = (sample.translation @ sample.K.T).T
        row, column = (y / z).astype(int), (x / z).astype(int)
        own = sample.mask[row, column] == np.arange(len(sample)) + 1
        # the head joint lies behind the face or the back of the head
        deep = z - sample.depth[row, column]
        assert (own == (own & (deep > 0) & (deep < 0.3))).all()
        assert (sample.joint_visibility.any(1) | ~own).all()


@pytest.mark.slow
def test_close_ups_are_evenly_spread_and_show_hands(tmp_path) -> None:  # type: ignore[no-untyped-def]
    scenes = SyntheticScenes(5, 64, assets=tmp_path, closeups=0.25)
    framings = [scenes.scene(i).framing for i in range(40)]
    assert framings.count("closeup") == 10
    wrists = [scenes.body.topology.joint_names.index(f"wrist.{s}") for s in "LR"]
    shown = [
        all(scene.camera.shows(scene.people[0].joints[w]) for w in wrists)
        for scene in (scenes.scene(i) for i in range(3, 40, 4))
        if scene.people
    ]
    assert len(shown) >= 8
    assert np.mean(shown) > 0.8


def test_a_contact_sheet_has_a_tile_a_picture(bare: SyntheticScenes) -> None:
    assert contact_sheet([bare[0], bare[1], bare[2]], columns=2, side=32).shape == (64, 64, 3)


def test_shards_carry_joints_and_boxes_for_readers_without_a_body(tmp_path, bare: SyntheticScenes) -> None:  # type: ignore[no-untyped-def]
    sample = next(s for s in (bare[i] for i in range(8)) if len(s))
    truth = bare.truth(sample)
    names, head = list(truth["joint_names"]), sample.translation @ sample.K.T
    assert np.allclose(truth["joints_3d"][:, names.index("head")], sample.translation, atol=1e-5)
    assert np.allclose(truth["joints_2d"][:, names.index("head")], head[:, :2] / head[:, 2:], atol=1e-2)
    assert truth["pixels"].sum() == (sample.mask > 0).sum()
    write_shard(tmp_path / "a.tar", [sample], bare.truth)
    assert np.array_equal(Shards(tmp_path / "a.tar")[0].world_to_camera, sample.world_to_camera)


@pytest.mark.slow
def test_feet_are_on_the_ground_of_the_world(bare: SyntheticScenes) -> None:
    for sample in (bare[i] for i in range(6)):
        world = (bare.truth(sample)["joints_3d"] - sample.world_to_camera[:, 3]) @ sample.world_to_camera[
            :, :3
        ]
        assert (world[..., 2].min(1) > -0.02).all()
        assert (world[..., 2].min(1) < 0.25).all()


@pytest.mark.slow
def test_pictures_rendered_on_demand_are_those_of_the_shards(tmp_path) -> None:  # type: ignore[no-untyped-def]
    recipe = GenerationConfig(4, 64, assets=tmp_path)
    (path,) = write_shards(tmp_path, 2, recipe, workers=1)
    rendered = RenderedDataset(recipe, count=2)
    assert [s.name for s in rendered] == [s.name for s in Shards(path)]
    assert np.array_equal(rendered[1].pose, Shards(path)[1].pose)


def test_one_seed_gives_no_other_pictures_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiles() -> list[np.ndarray]:
        return [procedural_tile(np.random.default_rng(seed), 8) for seed in range(200)]

    assert len(tiles()) == 200
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match=r"needs scikit-image: pip install 'multihmr\[synthetic\]'"):
        tiles()
