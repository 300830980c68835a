"""2D keypoints of a MoveNet backbone: per person, as input of the head, and bodies aligned to them."""
