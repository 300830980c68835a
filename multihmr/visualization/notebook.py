"""3D view of people for notebooks and HTML files, without internet: `humans.show(image)`.

The view is that of trimesh (three.js, MIT). It comes whole in every page: 0.7 MB, and 0.7 MB for each person.
"""

from __future__ import annotations

import base64
import html
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..humans import Humans
from ..io.meshes import humans_to_view
from ..storage.atomic import write_text
from .draw import draw

WIDTH = 640  # pixels of the picture beside the view


@dataclass(frozen=True)
class Html:
    """HTML that a notebook displays and `save` writes to a file."""

    html: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"Html({len(self.html) / 1e6:.1f} MB: shown by notebooks, or saved by .save(path))"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a page that any browser opens, and give its path."""
        path = Path(path)
        head = "<!DOCTYPE html><html><head><meta charset='utf-8'><title>multihmr</title></head><body>"
        write_text(path, f"{head}{self.html}</body></html>")
        return path


def show(humans: Humans, image: Any = None) -> Html:
    """The people over `image`, as `draw` takes it, and beside it in 3D, first as the camera saw them."""
    picture = Image.fromarray(draw(humans, image, side_views=False, max_side=WIDTH))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    shape = f"max-width: {WIDTH}px; aspect-ratio: {picture.width} / {picture.height}"
    box = f"flex: 1 1 300px; min-width: 0; border: 0; {shape}"
    view = f"<iframe srcdoc='{html.escape(_view(humans))}' style='{box}'></iframe>" if len(humans) else ""
    overlay = f"<img src='{source}' alt='{html.escape(str(humans))}' style='{box}'>"
    return Html(f"<div style='display: flex; flex-wrap: wrap; gap: 8px'>{overlay}{view}</div>")


def _view(humans: Humans) -> str:
    """HTML page with trimesh's viewer, which shows a .glb from its first camera."""
    from trimesh.viewer.notebook import scene_to_html

    return scene_to_html(_Scene(humans))


class _Scene:
    """The part of trimesh.Scene that its viewer uses: it exports our .glb, with our camera."""

    camera = None

    def __init__(self, humans: Humans) -> None:
        self._content = humans_to_view(humans)

    def export(self, file_type: str) -> bytes:
        assert file_type == "glb", "the viewer of trimesh reads .glb"
        return self._content
