from __future__ import annotations

import numpy as np
import pytest
import torch

from multihmr.bodies.topology import KeypointSet, Topology
from multihmr.geometry import project
from multihmr.humans import Humans, Keypoints, rotmat_to_rotvec, rotvec_to_rotmat

PLACES = ((0, 0, 2), (0.5, 0, 3), (-1, 0.2, 5))


def test_indexing_keeps_all_fields_aligned(make_humans):
    humans = make_humans(*PLACES, track_ids=[4, 7, 9])
    for chosen in (humans[[2, 0]], humans[np.array([2, 0])]):
        np.testing.assert_array_equal(chosen.vertices, humans.vertices[[2, 0]])
        np.testing.assert_array_equal(chosen.joints_2d, humans.joints_2d[[2, 0]])
        assert chosen.track_ids.tolist() == [9, 4]
    assert humans[humans.scores > 0.6].track_ids.tolist() == [4, 7]
    assert humans[1:].track_ids.tolist() == [7, 9]
    assert [person.track_ids.tolist() for person in humans] == [[4], [7], [9]]
    assert humans[-1].track_ids.tolist() == [9]


@pytest.mark.parametrize("nobody", [[], slice(0, 0), np.zeros(3, bool)])
def test_nobody_is_humans_of_length_zero(make_humans, nobody):
    humans = make_humans(*PLACES)[nobody]
    assert len(humans) == 0
    assert not humans
    assert list(humans) == humans.to_dicts() == []
    assert humans.keypoints("poles").xy.shape == (0, 2, 2)
    assert humans.vertices.shape[1:] == make_humans(*PLACES).vertices.shape[1:]


def test_empty_has_the_shapes_of_the_body(make_humans, ball_topology):
    humans = make_humans(*PLACES)
    empty = Humans.empty(topology=ball_topology, K=humans.K, K_source="given", image_size=(120, 160))
    for name in ("vertices", "joints", "joints_2d", "boxes", "pose", "shape", "expression"):
        assert getattr(empty, name).shape == (0, *getattr(humans, name).shape[1:])


@pytest.mark.parametrize("index", [3, [0, 5], np.ones(2, bool), (0, 1), 1.5])
def test_indexing_beyond_the_people_is_refused(make_humans, index):
    with pytest.raises(IndexError):
        make_humans(*PLACES)[index]


def test_mismatch_of_people_names_both_numbers(make_humans):
    with pytest.raises(ValueError, match=r"pelvis has 2 people but scores has 3"):
        make_humans(*PLACES, pelvis=np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("boxes", np.zeros((3, 2)), r"boxes must be \(N, 4\) with N=3, got \(3, 2\)"),
        ("joints", np.zeros((3, 5, 3)), r"joints must be \(N, J, 3\) with N=3, J=2, got \(3, 5, 3\)"),
        ("vertices", np.zeros((3, 4, 3)), r"faces uses vertex 287 but vertices has only 4"),
        ("scores", [0.5, np.nan, 0.5], r"scores of person 1 contains numbers that are not finite"),
        ("K", np.eye(4), r"K must be \(3, 3\), got \(4, 4\)"),
        ("K_source", "guessed", r"K_source must be one of given, exif, predicted, assumed; got 'guessed'"),
    ],
)
def test_wrong_fields_are_refused_by_name(make_humans, field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_humans(*PLACES, **{field: value})


def test_arrays_are_read_only_copies(make_humans):
    mine = np.array([0.9, 0.8, 0.7])
    humans = make_humans(*PLACES, scores=mine)
    mine[:] = 0
    assert humans.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    with pytest.raises(ValueError, match="read-only"):
        humans.vertices[:] = 0


def test_keypoints_are_projected_by_K(make_humans):
    humans = make_humans(*PLACES)
    keypoints = humans.keypoints("poles")
    np.testing.assert_allclose(keypoints.xyz[:, 1], humans.translation, atol=1e-6)  # between both poles
    expected = project(torch.tensor(keypoints.xyz), torch.tensor(humans.K)).numpy()
    np.testing.assert_allclose(keypoints.xy, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="no keypoint set 'coco' for body 'ball'; known: coco17, poles"):
        humans.keypoints("coco")


def test_keypoints_may_be_made_of_joints_too():
    half = np.full((2, 1), 0.5)
    points = KeypointSet(("a", "b"), np.array([[0], [1]]), half, (), np.array([[1], [0]]), half)
    vertices, joints = np.eye(3)[None], -np.eye(3)[None]
    np.testing.assert_allclose(points.points(vertices, joints), [[[0.5, -0.5, 0], [-0.5, 0.5, 0]]])
    with pytest.raises(ValueError, match="made of joints, too"):
        points.points(vertices)
    with pytest.raises(ValueError, match="joint_indices and joint_weights must both be"):
        KeypointSet(("a", "b"), np.array([[0], [1]]), half, (), np.array([[1]]), half)


def test_to_dicts_has_the_names_of_the_first_release(make_humans):
    humans = make_humans(*PLACES)
    person = humans.to_dicts()[1]
    names = "scores loc transl transl_pelvis rotvec expression shape v3d j3d j2d"
    assert set(person) == set(names.split())
    np.testing.assert_array_equal(person["v3d"], humans.vertices[1])
    np.testing.assert_allclose(person["loc"], humans.joints_2d[1, 1], rtol=1e-5)
    assert person["rotvec"].shape == (2, 3)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 1.0, 3.0, np.pi - 1e-6, np.pi])
def test_rotvec_gives_the_rotation_back(angle):
    axes = np.random.default_rng(0).normal(size=(50, 3))
    axes = np.concatenate([axes, np.eye(3), -np.eye(3)])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    cross = np.cross(np.eye(3), axes[:, None])
    rotmat = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    np.testing.assert_allclose(rotvec_to_rotmat(axes * angle), rotmat, atol=1e-12)
    rotvec = rotmat_to_rotvec(rotmat)
    np.testing.assert_allclose(np.linalg.norm(rotvec, axis=1), angle, atol=1e-6)
    sign = np.sign(np.sum(rotvec * axes, 1, keepdims=True)) if angle == np.pi else 1  # both axes are right
    np.testing.assert_allclose(rotvec * sign, axes * angle, atol=2e-6)


def test_normals_point_outwards(make_humans):
    humans = make_humans(*PLACES, radius=0.5)
    outwards = (humans.vertices - humans.translation[:, None]) / 0.5
    assert (np.sum(humans.normals * outwards, -1) > 0.98).all()


def test_colors_follow_the_track(make_humans):
    humans = make_humans(*PLACES, track_ids=[4, 7, 9])
    np.testing.assert_array_equal(humans[[2, 1]].colors, humans.colors[[2, 1]])
    assert len(np.unique(make_humans(*PLACES).colors, axis=0)) == 3


def test_repr_is_one_line(make_humans):
    assert repr(make_humans(*PLACES)) == (
        "Humans(3 people, nearest at 2.00 m, body 'ball', 160x120 image, K given)"
    )
    assert "no people" in repr(make_humans())


def test_results_of_people_are_shown_in_one_line(make_humans):
    """Not as their arrays, of which one person has some 40,000 numbers."""
    from multihmr.preprocessing.image import LoadedImage

    humans = make_humans(*PLACES)
    assert repr(humans.in_frame("unreal")) == "InFrame('unreal', 3 people, in cm)"
    assert repr(humans[:1].in_frame("unity")) == "InFrame('unity', 1 person, in m)"
    points = Keypoints(("nose", "left_eye", "right_eye", "tail"), np.zeros((1, 4, 2)), np.zeros((1, 4, 3)))
    assert repr(points) == "Keypoints(1 person, 4 points: nose, left_eye, right_eye, ...)"
    loaded = LoadedImage(np.zeros((20, 30, 3), np.uint8), 41.6, "a.jpg")
    assert repr(loaded) == "LoadedImage('a.jpg', 30x20, focal length 42 pixels)"


def test_faulty_topologies_are_refused():
    with pytest.raises(ValueError, match="2 joint names but 1 parents"):
        Topology("t", np.zeros((0, 3)), ("a", "b"), (-1,), {}, (), ())
    with pytest.raises(ValueError, match=r"faces must be \(F, 3\)"):
        Topology("t", np.zeros((2, 4)), (), (), {}, (), ())
    with pytest.raises(ValueError, match=r"rest_pelvis must be \(3, 3\), got \(2, 3\)"):
        Topology("t", np.zeros((0, 3)), (), (), {}, ("a", "b"), (), rest_pelvis=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="vertex_indices and vertex_weights must both be"):
        KeypointSet(("a", "b"), np.zeros((1, 3), int), np.zeros((1, 3)))


def test_fields_are_given_by_name_alone(make_humans):
    with pytest.raises(TypeError, match="positional"):
        Humans(make_humans().scores)


def test_concatenated_people_are_the_parts_one_after_the_other(make_humans):
    humans = make_humans(*PLACES, track_ids=[4, 7, 9])
    again = Humans.concatenate([humans[2:], humans[:0], humans[:2]])
    assert again.track_ids.tolist() == [9, 4, 7]
    np.testing.assert_array_equal(again.vertices, humans[[2, 0, 1]].vertices)
    assert len(Humans.concatenate([humans[:0]])) == 0
    assert Humans.concatenate([make_humans(*PLACES)]).track_ids is None


def test_hands_that_were_not_looked_for_were_not_found(make_humans):
    refined = [[True, False, True]] * 3
    looked, not_looked = make_humans(*PLACES, refined=refined), make_humans(*PLACES)
    both = Humans.concatenate([not_looked[:1], looked, not_looked[:0]])
    assert both.refined.tolist() == [[False] * 3, *refined]
    assert Humans.concatenate([not_looked, not_looked]).refined is None
    with pytest.raises(ValueError, match=r"refined must be \(N, 3\)"):
        make_humans(*PLACES, refined=[True] * 3)


def test_people_who_do_not_belong_together_are_refused(make_humans):
    humans = make_humans(*PLACES)
    for parts, sentence in (
        ([], "needs at least one Humans"),
        ([humans, make_humans(*PLACES, image_size=(100, 100))], "people of one image and body"),
        ([humans, make_humans(*PLACES, body="other")], "people of one image and body"),
        ([humans, make_humans(*PLACES, track_ids=[1, 2, 3])], "only some of the parts have track_ids"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Humans.concatenate(parts)


def test_nearest_is_by_distance_not_by_depth(make_humans):
    humans = make_humans((2.5, 0, 3), (0, 0, 3.2))  # distances 3.91 and 3.2 m
    assert humans.nearest_first().translation[:, 2].tolist() == pytest.approx([3.2, 3])
    assert (np.diff(humans.nearest_first().distances) >= 0).all()


def test_people_are_numbered_from_one_or_by_track(make_humans):
    humans = make_humans(*PLACES)
    assert humans.numbers.tolist() == [1, 2, 3]
    tracked = make_humans(*PLACES, track_ids=[1, 2, 14])
    assert tracked.numbers.tolist() == [1, 2, 14]
    np.testing.assert_array_equal(humans.colors[:2], tracked.colors[:2])  # one palette for both
    np.testing.assert_array_equal(tracked.colors[2], tracked.colors[1])  # 12 colours


def test_the_old_name_of_in_frame_says_so(make_humans):
    humans = make_humans(*PLACES)
    with pytest.warns(DeprecationWarning, match=r"humans\.to\(frame\) is now humans\.in_frame\(frame\)"):
        there = humans.to("unity")
    np.testing.assert_array_equal(there.vertices, humans.in_frame("unity").vertices)


def test_masks_are_the_pixels_of_each_person(make_humans):
    humans = make_humans((0, 0, 2), (0.1, 0, 3), radius=0.3)  # the nearer hides most of the other
    near, far = humans.masks()
    assert near.shape == humans.image_size
    assert not (near & far).any()
    assert near.sum() == pytest.approx(np.pi * 15**2, rel=0.05)  # 0.3 m at 2 m with focal 100
    whole = humans.masks(occluded=True)
    assert whole[1].sum() == pytest.approx(np.pi * 10**2, rel=0.06)
    assert (whole[1] & near).sum() == whole[1].sum() - far.sum()
    assert humans[:0].masks().shape == humans[:0].masks(occluded=True).shape == (0, *humans.image_size)


def test_trimesh_has_a_coloured_mesh_for_each_person(make_humans):
    humans = make_humans(*PLACES, track_ids=[4, 7, 9])
    scene = humans.to_trimesh()
    assert sorted(scene.geometry) == ["person_4", "person_7", "person_9"]
    mesh = scene.geometry["person_7"]
    np.testing.assert_allclose(mesh.vertices * [1, -1, -1], humans.vertices[1], atol=1e-6)
    np.testing.assert_array_equal(mesh.visual.vertex_colors[0, :3], humans.colors[1])
    assert mesh.metadata["track_id"] == 7
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.3**3, rel=0.1)


def test_a_table_has_a_row_for_each_person(make_humans, tmp_path):
    pandas = pytest.importorskip("pandas")
    humans = make_humans(*PLACES)
    table = humans.to_pandas("poles")
    assert table["person"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(table["head_z_m"], humans.translation[:, 2])
    np.testing.assert_allclose(table["distance_m"], humans.distances)
    points = humans.keypoints("poles")
    np.testing.assert_allclose(table[f"{points.names[1]}_y_px"], points.xy[:, 1, 1])
    again = pandas.read_csv(humans.save(tmp_path / "people.csv"))
    assert list(again.columns) == list(humans.to_pandas().columns)
    np.testing.assert_allclose(again["pelvis_y_m"], humans.pelvis[:, 1], rtol=1e-6)
    assert len(pandas.read_csv(humans[:0].save(tmp_path / "people.csv"))) == 0
