"""Optional packages report nothing when they are used through ours: no id files, no questions to hosts."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_REFUSE = """
import os, socket
def refuse(*args, **kwargs):
    open(os.path.join(os.environ["HOME"], "asked"), "a").write(repr(args) + "\\n")
    raise OSError("no network in this test")
inner = socket.getaddrinfo
def getaddrinfo(host, *args, **kwargs):
    return inner(host, *args, **kwargs) if host in ("localhost", "127.0.0.1", None) else refuse(host)
socket.getaddrinfo = getaddrinfo
"""
# extra -> a package that it needs, and what uses it
USES = {
    "export": ("openvino", "from multihmr.runtime.optional_imports import needed\nneeded('openvino').Core()"),
    "onnxruntime": (
        "onnxruntime",
        "from multihmr.runtime.optional_imports import needed\nneeded('onnxruntime')",
    ),
    "int8": ("nncf", "from multihmr.runtime.optional_imports import needed\nneeded('nncf')"),
    "demo": (
        "gradio",
        "import multihmr.demo.app, gradio as gr, time\nwith gr.Blocks() as page:\n    gr.Markdown('x')\n"
        "page.launch(prevent_thread_lock=True, quiet=True, server_name='127.0.0.1')\n"
        "time.sleep(1)\npage.close()",
    ),
    "cluster": (
        "ray",
        "import multihmr.cluster\nimport os\nassert os.environ['RAY_USAGE_STATS_ENABLED'] == '0'",
    ),
    "rerun": (
        "rerun",
        "import os\nfrom pathlib import Path\nfrom multihmr.visualization.rerun_recording import record\n"
        "with record(Path(os.environ['HOME']) / 'people.rrd'):\n    pass",
    ),
    "live": (
        "websockets",
        "from multihmr.live.records import WebSocketOutput\nWebSocketOutput(0).close()",
    ),
    "hub": (
        "huggingface_hub",
        "from multihmr.hub.huggingface import disable_telemetry as off\noff()\n"
        "from huggingface_hub import constants\nassert constants.HF_HUB_DISABLE_TELEMETRY",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("extra", USES)
def test_a_fresh_home_gets_no_id_and_no_host_is_asked(tmp_path: Path, extra: str) -> None:
    package, use = USES[extra]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    switches = ("CI", "DO_NOT_TRACK", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "TF_BUILD")
    switches += ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in switches}
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**kept, "HOME": str(tmp_path), "PYTHONPATH": paths, "XDG_CONFIG_HOME": str(tmp_path / "c")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _REFUSE + use],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    words = ("telemetry", "cid", "intel", "id", "microsoft")
    suspicious = [name for name in files if any(word in name.lower() for word in words)]
    assert not suspicious
    assert not (tmp_path / "asked").exists(), (tmp_path / "asked").read_text(encoding="utf-8")


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from multihmr.storage.telemetry import disable_telemetry

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    disable_telemetry()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
