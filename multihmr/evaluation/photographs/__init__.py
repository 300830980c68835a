"""Accuracy on photographs with 2D keypoints drawn by humans (`multihmr evaluate --data coco@FOLDER`)."""
