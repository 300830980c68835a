"""2D keypoints of a MoveNet backbone: read per person, told to the head, and bodies aligned to them."""
