"""Bone names of other skeletons: Mixamo, VRM and SMPL-X.

Bones without a counterpart keep their own names; of Anny these are the second halves of limbs, the lower
spine, metacarpals and most toes. Names alone do not make a retargeting, for rest poses differ, too.

mixamo  https://www.mixamo.com, as its files name bones, with the prefix "mixamorig:"
vrm     https://github.com/vrm-c/vrm-specification, VRMC_vrm-1.0, humanoid
smplx   the first 55 names of the smplx package
"""

from __future__ import annotations

STANDARDS = ("mixamo", "smplx", "vrm")

# Anny and MakeHuman, SMPL-X, Mixamo, VRM. Rows of the left side are for both sides; a dash: none. Anny
# and SMPL-X correspond as in bodies/keypoint_sets.py; toe3-1 is the ball of the foot.
_TABLE = """
root         pelvis          Hips             hips
spine03      spine1          Spine            spine
spine02      spine2          Spine1           chest
spine01      spine3          Spine2           upperChest
neck01       neck            Neck             neck
head         head            Head             head
jaw          jaw             -                jaw
eye.L        left_eye_smplhf LeftEye          leftEye
upperleg01.L left_hip        LeftUpLeg        leftUpperLeg
lowerleg01.L left_knee       LeftLeg          leftLowerLeg
foot.L       left_ankle      LeftFoot         leftFoot
toe3-1.L     left_foot       LeftToeBase      leftToes
clavicle.L   left_collar     LeftShoulder     leftShoulder
upperarm01.L left_shoulder   LeftArm          leftUpperArm
lowerarm01.L left_elbow      LeftForeArm      leftLowerArm
wrist.L      left_wrist      LeftHand         leftHand
finger1-1.L  left_thumb1     LeftHandThumb1   leftThumbMetacarpal
finger1-2.L  left_thumb2     LeftHandThumb2   leftThumbProximal
finger1-3.L  left_thumb3     LeftHandThumb3   leftThumbDistal
finger2-1.L  left_index1     LeftHandIndex1   leftIndexProximal
finger2-2.L  left_index2     LeftHandIndex2   leftIndexIntermediate
finger2-3.L  left_index3     LeftHandIndex3   leftIndexDistal
finger3-1.L  left_middle1    LeftHandMiddle1  leftMiddleProximal
finger3-2.L  left_middle2    LeftHandMiddle2  leftMiddleIntermediate
finger3-3.L  left_middle3    LeftHandMiddle3  leftMiddleDistal
finger4-1.L  left_ring1      LeftHandRing1    leftRingProximal
finger4-2.L  left_ring2      LeftHandRing2    leftRingIntermediate
finger4-3.L  left_ring3      LeftHandRing3    leftRingDistal
finger5-1.L  left_pinky1     LeftHandPinky1   leftLittleProximal
finger5-2.L  left_pinky2     LeftHandPinky2   leftLittleIntermediate
finger5-3.L  left_pinky3     LeftHandPinky3   leftLittleDistal
"""
_OURS = {"anny": 0, "anny-163": 0, "smplx": 1}
_THEIRS = {"smplx": 1, "mixamo": 2, "vrm": 3}


def bone_names(body: str, standard: str) -> dict[str, str]:
    """Our bone -> theirs, for a body ("anny", "anny-163", "smplx") and "mixamo", "smplx" or "vrm".

    ValueError lists what there is.
    """
    if body not in _OURS or standard not in _THEIRS:
        raise ValueError(
            f"no bone names of {standard!r} for body {body!r}: there are {', '.join(STANDARDS)}, "
            f"for the bodies {', '.join(_OURS)}"
        )
    names = {}
    for row in (line.split() for line in _TABLE.strip().splitlines()):
        for ours, theirs in _sides(row[_OURS[body]], row[_THEIRS[standard]]):
            if theirs != "-":
                names[ours] = f"mixamorig:{theirs}" if standard == "mixamo" else theirs
    return names


def _sides(ours: str, theirs: str) -> list[tuple[str, str]]:
    """A row of the left side, and the same of the right; one of the middle alone."""
    if not (ours.endswith(".L") or ours.startswith("left_")):
        return [(ours, theirs)]
    right = ours.replace(".L", ".R").replace("left_", "right_")
    return [(ours, theirs), (right, theirs.replace("left", "right").replace("Left", "Right"))]
