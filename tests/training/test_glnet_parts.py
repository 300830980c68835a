from __future__ import annotations

import pytest
from toys import ToyBody

from multihmr.bodies.anny import Anny
from multihmr.training.glnet_parts import guiding_parts


@pytest.fixture(scope="module")
def topology():
    return Anny().topology


@pytest.mark.parametrize(("whole_body", "count"), [(False, 6), (True, 9)])
def test_every_rotation_has_one_part(topology, whole_body, count):
    parts = guiding_parts(topology, whole_body=whole_body)
    assert len(parts) == count
    assert sorted(r for _, moved in parts for r in moved) == list(range(104))


def test_limbs_go_with_what_guides_them(topology):
    names = topology.pose_names
    trunk, head, left_arm, right_arm, left_leg, _ = [
        ({names[j] for j in guides}, {names[r] for r in moved}) for guides, moved in guiding_parts(topology)
    ]
    assert {"root", "pelvis.L", "spine05", "shoulder01.R"} <= trunk[1]
    assert {"neck01", "head", "eye.L"} <= head[1]
    assert {"upperarm01.L", "lowerarm02.L", "finger3-2.L"} <= left_arm[1]
    assert not left_arm[1] & right_arm[1]
    assert {"lowerleg01.L", "toe5-3.L"} <= left_leg[1]
    assert {"upperarm01.L", "lowerarm01.L", "wrist.L"} <= left_arm[0]


def test_hands_and_face_are_parts_of_their_own(topology):
    names = topology.pose_names
    *body, left, _, face = guiding_parts(topology, whole_body=True)
    assert {names[j] for j in left[0]} > {"wrist.L", "finger1-1.L", "finger5-3.L"}
    assert {names[r] for r in left[1]} >= {"wrist.L", "finger5-3.L"}
    assert {names[r] for r in face[1]} == {"head", "eye.L", "eye.R"}
    assert not any("finger" in names[r] for _, moved in body for r in moved)


def test_a_body_without_known_joints_has_no_parts():
    with pytest.raises(ValueError, match="has none of the known joint sets"):
        guiding_parts(ToyBody().topology)
