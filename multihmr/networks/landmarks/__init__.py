"""Landmark networks of MediaPipe in plain torch: hands, faces, and facial actions from points of a face."""
