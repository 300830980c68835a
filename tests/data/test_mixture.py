from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from toys import ToyBody

from multihmr.data.augment import augment
from multihmr.data.mixture import Mixture, Source, for_body, open_sources
from multihmr.data.sample import Sample
from multihmr.data.webdataset import write_shard
from multihmr.training.collate import collate
from multihmr.training.targets import make_targets

TOPOLOGY = ToyBody().topology


def sample_of(people=1, rotations=3, shapes=2, faces=1, **fields) -> Sample:
    sizes = {"pose": (rotations, 3, 3), "shape": (shapes,), "expression": (faces,), "translation": (3,)}
    arrays = {name: np.zeros((people, *size), np.float32) for name, size in sizes.items()}
    image = np.zeros((8, 8, 3), np.uint8)
    defaults = {"K": np.eye(3), "visibility": np.ones(people), "name": "a", "body": "toy", **arrays}
    return Sample(image, **(defaults | fields))


def source(name, count, share=None) -> Source:
    return Source(name, [sample_of(name=f"{i}") for i in range(count)], share)


def test_shares_hold_in_every_block():
    mixture = Mixture([source("big", 500, 7), source("small", 3, 2.5), source("rare", 5, 1e-9)])
    for block in (range(1000), range(7000, 8000)):
        counts = Counter(mixture.place(g)[0].name for g in block)
        assert counts == {"big": 736, "small": 263, "rare": 1}


def test_a_data_set_is_read_wholly_before_it_begins_again():
    mixture = Mixture([source("a", 30, 0.8), source("b", 7, 0.2)], seed=5)
    of_b = [number for chosen, number in map(mixture.place, range(140)) if chosen.name == "b"]
    assert len(of_b) == 28
    for epoch in range(4):
        assert sorted(of_b[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert of_b[:7] != of_b[7:14]


def test_without_shares_every_sample_comes_once():
    mixture = Mixture([source("a", 3), source("b", 1)])
    assert sorted(mixture[g].name for g in range(4, 8)) == ["a/0", "a/1", "a/2", "b/0"]


def test_what_comes_when_is_not_remembered_but_computed():
    one, other = (Mixture([source("a", 40, 1), source("b", 9, 2)], seed=2) for _ in range(2))
    backwards = [other[g].name for g in reversed(range(90))]
    assert [one[g].name for g in range(90)] == backwards[::-1]


@pytest.mark.parametrize("shares", [(1, None), (1, 0), (-1, 1)])
def test_shares_are_positive_and_for_all(shares):
    with pytest.raises(ValueError, match=r"positive share, or none has one; got a: -?1.*, b: "):
        Mixture([source("a", 1, shares[0]), source("b", 1, shares[1])])


def test_an_empty_data_set_is_named():
    with pytest.raises(ValueError, match="no sample in nothing"):
        Mixture([source("a", 1), source("nothing", 0)])


def test_sources_are_folders_or_names_with_shares(tmp_path):
    write_shard(tmp_path / "a.tar", [sample_of()])
    [first, second] = open_sources(f"{tmp_path}:0.7, {tmp_path}/a.tar:0.3")
    assert (first.name, first.share, len(first.samples)) == (str(tmp_path), 0.7, 1)
    assert (second.name, second.share) == (f"{tmp_path}/a.tar", 0.3)
    assert open_sources(str(tmp_path))[0].share is None


def test_a_named_data_set_is_looked_for_below_the_root(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/bedlam"):
        open_sources("bedlam:0.5,ehf:0.5", tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/mine"):
        open_sources(f"coco-wholebody-val@{tmp_path}/mine")
    with pytest.raises(ValueError, match="no data set 'cuckoo'; known are 3dpw"):
        open_sources(f"cuckoo@{tmp_path}")
    with pytest.raises(ValueError, match="got ' , '"):
        open_sources(" , ")


def test_pictures_of_nobody_are_learned_to_show_nobody(tmp_path):
    (tmp_path / "park").mkdir()
    Image.fromarray(np.full((40, 60, 3), 7, np.uint8)).save(tmp_path / "park" / "bench.png")
    sample = Mixture(open_sources(f"background@{tmp_path}"))[0]
    assert sample.name == f"background@{tmp_path}/park/bench.png"
    seen = augment(for_body(sample, TOPOLOGY), 32, np.random.default_rng(0), TOPOLOGY)
    batch = collate([seen])
    true = make_targets(batch, ToyBody(), patch=8)
    assert not len(true.centers)
    assert true.heads_B.all()
    assert not true.known.camera_B.any()
    with pytest.raises(FileNotFoundError, match="no pictures"):
        open_sources(f"background@{tmp_path / 'park' / 'empty'}")


def test_what_a_data_set_lacks_is_unknown():
    bare = for_body(sample_of(rotations=0, shapes=0, faces=0, body="none"), TOPOLOGY)
    assert bare.pose.shape == (1, 3, 3, 3)
    assert bare.shape.shape == (1, 2)
    assert all(np.isnan(array).all() for array in (bare.pose, bare.shape, bare.expression))
    assert np.isfinite(bare.translation).all()  # its heads
    by_pelvis = for_body(replace(bare, pose=bare.pose[:, :0], anchor="pelvis"), TOPOLOGY)
    assert np.isnan(by_pelvis.translation).all()
    assert by_pelvis.anchor == "center"


def test_another_body_is_refused_unless_its_keypoints_are_wanted():
    foreign = sample_of(body="smpl", rotations=24)
    with pytest.raises(ValueError, match="'a' have body 'smpl', the model has 'toy'"):
        for_body(foreign, TOPOLOGY)
    assert np.isnan(for_body(foreign, TOPOLOGY, keypoints_only=True).pose).all()


def test_missing_components_of_a_linear_shape_are_zero():
    linear = replace(TOPOLOGY, rest_pelvis=np.zeros((4, 3)))
    assert for_body(sample_of(shapes=1, shape=np.ones((1, 1))), linear).shape.tolist() == [[1, 0]]
    for few_or_many in (sample_of(shapes=1), sample_of(shapes=3)):
        with pytest.raises(ValueError, match=r"has \d values of shape a person, body 'toy' takes 2"):
            for_body(few_or_many, TOPOLOGY)
