"""Images in: readers, letterbox and crop transforms, cameras, person crops."""
