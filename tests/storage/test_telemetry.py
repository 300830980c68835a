"""No package of any extra reports that it is used: no id in a fresh home folder, no question to others."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fresh_home import ROOT, Left, own_network, run_in_fresh_home

PEOPLE = """
import os
from pathlib import Path
import numpy as np
from multihmr import load_model
humans = load_model(device="cpu").predict(IMAGES / "astronaut.jpg")
"""
BACKEND = """
import numpy as np
from multihmr import load_model
usual = np.zeros((480, 640, 3), np.uint8)  # whose graph is made when a model is loaded
"""
# the block of docs/guides/export.md that loads it as `model`, which tests/test_docs.py leaves to this file
PAGE = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/guides/export.md").read_text(encoding="utf-8"), flags=re.DOTALL
)[0]
COMMAND = """
import os
from pathlib import Path
from multihmr.cli.main import run
"""
# extra -> (packages that its case needs, its main path); a new extra needs one
CASES = {
    "timm": (
        ("timm",),
        "from multihmr.networks.backbones.timm_backbones import HRNet\nHRNet('hrnet_w32')\n"
        "from huggingface_hub import constants\nassert constants.HF_HUB_DISABLE_TELEMETRY",
    ),
    "synthetic": (
        ("warp", "skimage"),
        COMMAND
        + "assert run(['generate', '--count', '1', '--size', '64', '--out', 'out', '--workers', '1']) == 0",
    ),
    "train": (
        ("tensorboard", "warp", "skimage"),
        "from pathlib import Path\nfrom multihmr.training.logger import _summary_writer\n"
        "with _summary_writer(Path('runs')) as log:\n    log.add_scalar('loss', 1.0, 0)",
    ),
    "datasets": (
        ("scipy",),
        COMMAND + "import multihmr.data.datasets.mupots, scipy.io\nassert run(['data', 'list']) == 0",
    ),
    "video": (
        ("av", "scipy"),
        COMMAND + "assert run(['video', str(IMAGES / 'walk.mp4'), '--count', '2', '--out', 'out']) == 0",
    ),
    "anny": (("anny",), "import anny\nanny.Anny()"),
    "smplx": (
        ("smplx",),
        "import sys\nsys.path.insert(0, str(ROOT / 'tests'))\nimport numpy as np\n"
        "from parity.weights import fake_smplx\nnp.savez('SMPLX_NEUTRAL.npz', **fake_smplx())\n"
        "from multihmr.bodies.loading import load_body\nload_body('smplx', smplx='SMPLX_NEUTRAL.npz')",
    ),
    "demo": (
        ("gradio", "av", "scipy"),
        "import time, urllib.request\nfrom multihmr.demo.server import running\n"
        "from multihmr.demo.sessions import Models\n"
        "with running(Models(device='cpu')) as url:\n    time.sleep(1)\n"
        "    assert urllib.request.urlopen(url).status == 200",
    ),
    "cluster": (
        ("ray", "pyarrow"),
        COMMAND
        + "assert run(['cluster', str(IMAGES / 'astronaut.jpg'), '--out', 'out', '--workers', '1']) == 0",
    ),
    "export": (
        ("onnx", "onnxscript", "onnxruntime"),
        BACKEND + "load_model(backend='onnxruntime').predict(usual, closeups=False, any_rotation=False)",
    ),
    "usd": (("pxr",), PEOPLE + "humans.save('people.usdz')"),
    "supervision": (
        ("supervision",),
        PEOPLE + "import supervision\n_, found = humans.to_supervision()\n"
        "supervision.VertexAnnotator().annotate(np.zeros((512, 512, 3), np.uint8), found)",
    ),
    "fbx": (("bpy",), PEOPLE + "humans.save('people.fbx')"),
    "rerun": (
        ("rerun",),
        PEOPLE + "humans.to_rerun(IMAGES / 'astronaut.jpg')\nhumans.to_rerun().save('people.rrd')",
    ),
    "live": (
        ("av", "scipy", "pythonosc", "websockets"),
        COMMAND + "assert run(['live', str(IMAGES / 'walk.mp4'), '--seconds', '3', '--port', '0', "
        "'--websocket', '0', '--osc', '127.0.0.1:9000', '--jsonl', 'people.jsonl']) == 0",
    ),
    "xformers": (
        ("xformers",),
        "from multihmr import load_model\n"
        "try:\n    load_model(device='cpu', attention='xformers')\n"
        "except ValueError as error:\n    assert 'no attention kernel' in str(error)",
    ),
    "tables": (("pandas",), PEOPLE + "humans.to_pandas().to_csv('people.csv')"),
    "notebooks": (
        ("ipykernel", "matplotlib"),
        PEOPLE + "import matplotlib\nmatplotlib.use('agg')\nfrom matplotlib import pyplot\n"
        "from ipykernel.inprocess.manager import InProcessKernelManager\n"
        "pyplot.imsave('people.png', humans.draw(IMAGES / 'astronaut.jpg'))\nhumans.show()._repr_html_()",
    ),
    "docs": (
        ("zensical", "mkdocstrings"),
        "import subprocess, sys, shutil\nfrom pathlib import Path\n"
        "Path('docs').mkdir()\nshutil.copy(ROOT / 'docs/coordinates.md', 'docs/index.md')\n"
        "Path('mkdocs.yml').write_text('site_name: x\\n', encoding='utf-8')\n"
        "subprocess.run([sys.executable, '-m', 'zensical', 'build'], check=True)",
    ),
    "test": (
        ("hypothesis", "pytest"),
        "import pytest\nfrom pathlib import Path\n"
        "Path('test_it.py').write_text('from hypothesis import given, strategies\\n'\n"
        "    '@given(strategies.integers())\\ndef test_it(x): assert x == x\\n', encoding='utf-8')\n"
        "assert pytest.main(['-q', '-p', 'no:cacheprovider', '--rootdir', '.', 'test_it.py']) == 0",
    ),
}
# what extras have beside their main path
MORE = {
    "openvino": (
        ("openvino", "onnx", "onnxscript"),
        BACKEND + PAGE + "import sys\nassert 'openvino' in sys.modules\n"
        "model.predict(usual, closeups=False, any_rotation=False)",
    ),
    "nncf": (
        ("openvino", "nncf"),
        "import numpy as np\nfrom multihmr.runtime.int8 import _keep_to_ourselves\n"
        "from multihmr.runtime.optional_imports import needed\n"
        "openvino, nncf = needed('openvino'), needed('nncf')\n_keep_to_ourselves(nncf)\n"
        "from openvino import opset13 as ops\n"
        "x, weights = ops.parameter([1, 3, 8, 8], np.float32), np.ones((4, 3, 3, 3), np.float32)\n"
        "y = ops.convolution(x, ops.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])\n"
        "nncf.quantize(openvino.Model([y], [x]), nncf.Dataset([np.ones((1, 3, 8, 8), np.float32)]))",
    ),
    "hub": (
        ("huggingface_hub",),
        "from multihmr.hub.huggingface import disable_telemetry\ndisable_telemetry()\n"
        "from huggingface_hub import constants\nassert constants.HF_HUB_DISABLE_TELEMETRY",
    ),
    "bundled model": ((), PEOPLE + "humans.save('people.glb')"),
}
# What may run one after the other in one process: two of a group do not report through the same package, so
# that what one imports or switches off cannot hide what another does.
JOINED = (
    ("bundled model", "tables", "supervision", "usd", "notebooks", "rerun"),
    ("train", "datasets", "anny", "smplx", "video", "live"),
    ("export", "openvino"),
)
# between two of them: what the first has switched off is on again
AGAIN = """
import os as _os, sys as _sys
_at_first = globals().get("_at_first", dict(_os.environ))
_os.environ.clear()
_os.environ.update(_at_first)
if "openvino_telemetry" in _sys.modules and _sys.modules["openvino_telemetry"] is None:
    del _sys.modules["openvino_telemetry"]
"""
# caches, without an id of this machine or user
ALLOWED = (".cache/anny/", ".cache/fontconfig/", ".cache/matplotlib/", ".cache/mesa_shader_cache")
ALLOWED += (".cache/multihmr/", ".cache/torch/", ".cache/warp/", ".config/blender/", ".config/matplotlib/")
ALLOWED += (".ray/auth_token",)  # a password that protects a cluster, which only its own processes are sent


def extras() -> list[str]:
    """Names of the extras that the package has."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return list(settings["options.extras_require"])


def missing(extra: str) -> list[str]:
    return [name for name in (CASES | MORE)[extra][0] if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def left_by(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Left]:
    """left_by(*extras): what the cases of these leave that they must not, run in one process, once."""
    known: dict[tuple[str, ...], Left] = {}

    def run(*extras: str) -> Left:
        if extras not in known:
            code = (
                f"from pathlib import Path\nROOT = Path({str(ROOT)!r})\nIMAGES = ROOT / 'examples/images'\n"
            )
            for extra in extras:
                own = (CASES | MORE)[extra][1]
                code += AGAIN + (own.removeprefix(PEOPLE) if PEOPLE in code else own) + "\n"
            left = run_in_fresh_home(code, tmp_path_factory.mktemp("fresh") / "home")
            bad = [name for name in left.files if not name.startswith(ALLOWED)]
            known[extras] = Left(bad, left.hosts)
        return known[extras]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("extra", [*extras(), *MORE])
def test_a_fresh_home_gets_no_id_and_no_other_machine_is_asked(
    extra: str, left_by: Callable[..., Left]
) -> None:
    assert extra in CASES | MORE, f"the extra {extra} needs a case here: its main path in a few lines"
    if missing(extra):
        pytest.skip(f"{missing(extra)[0]} is not installed")
    group = next((group for group in JOINED if extra in group), (extra,))
    group = tuple(name for name in group if not missing(name))
    together = left_by(*group)
    if together != Left([], []):  # of which of them it is
        assert left_by(extra) == Left([], [])
        assert any(left_by(name) != Left([], []) for name in group), (
            f"{together} of {group}, but of none alone"
        )


@pytest.mark.slow
def test_what_one_case_has_switched_off_is_on_again_for_the_next(tmp_path: Path) -> None:
    code = "import os, sys\nfrom multihmr.storage.telemetry import disable_telemetry\n"
    code += AGAIN + "disable_telemetry()\nassert 'DO_NOT_TRACK' in os.environ\n"
    code += AGAIN + "assert 'DO_NOT_TRACK' not in os.environ and 'openvino_telemetry' not in sys.modules\n"
    code += "assert os.environ['HOME']"
    assert run_in_fresh_home(code, tmp_path / "home") == Left([], [])


@pytest.mark.slow
def test_what_is_looked_for_would_be_seen(tmp_path: Path) -> None:
    """An id, a name that is looked up, and in a network of its own an address."""
    code = (
        "import os, socket\nfrom pathlib import Path\n"
        "(Path.home() / '.config').mkdir()\n(Path.home() / '.config/id').touch()\n"
        "for host in ('reports.example.org', '192.0.2.1'):\n"
        "    try:\n        socket.create_connection((host, 80), timeout=5)\n"
        "    except OSError:\n        pass\n"
    )
    left = run_in_fresh_home(code, tmp_path / "home")
    assert left.files == [".config/id"]
    assert any("reports.example.org" in host for host in left.hosts)
    assert any("192.0.2.1" in host for host in left.hosts)
    if own_network():  # native code is seen, too
        left = run_in_fresh_home(
            "import os\nos.system('getent hosts native.example.org')", tmp_path / "native"
        )
        assert any("native.example.org" in host for host in left.hosts)


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from multihmr.storage.telemetry import disable_telemetry

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    disable_telemetry()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
