"""Who is in this picture? With onnxruntime, numpy and pillow alone, from a file that multihmr wrote.

multihmr export --out people.onnx
python examples/predict_without_torch.py people.onnx [PICTURE]
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

onnxruntime.set_default_logger_severity(3)  # errors alone
network = onnxruntime.InferenceSession(sys.argv[1])
facts = network.get_modelmeta().custom_metadata_map  # sizes, names, licence; JSON where not a word
file = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "images/astronaut.jpg"

# The window: the whole picture in the middle of a square, grey around it
picture = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
size, grey = int(facts["image_size"]), int(facts["padding"])
window = ImageOps.pad(picture, (size, size), Image.Resampling.BICUBIC, color=(grey, grey, grey))
scale = size / max(picture.size)
shift = (size - scale * np.array(picture.size)) / 2

pixels = np.asarray(window, np.float32).transpose(2, 0, 1)[None] / 255
unknown = np.full((1, 3, 3), np.nan, np.float32)  # or your camera, in pixels of the window
said = network.run(None, {"pixels": pixels, "K": unknown})
found = {output.name: array[0] for output, array in zip(network.get_outputs(), said, strict=True)}

people = found["mask"]  # the rows that are people
print(f"{people.sum()} people")
for score, head in zip(found["scores"][people], found["translation"][people], strict=True):
    x, y = ((found["camera"] @ head)[:2] / head[2] - shift) / scale
    print(f"score {score:.2f}: head at pixel ({x:.0f}, {y:.0f}), {head[2]:.2f} m ahead")
