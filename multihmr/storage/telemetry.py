"""Switches off the usage reports of optional packages; called before each of them is imported."""

from __future__ import annotations

import os
import sys

# variable -> value that switches the reports of a package off; what the user has set stays
_SWITCHES = {
    "DO_NOT_TRACK": "1",  # several packages, https://consoledonottrack.com
    "GRADIO_ANALYTICS_ENABLED": "False",  # also its question for the newest version
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime 1.30 and later: a device id and a database of events
    "RAY_USAGE_STATS_ENABLED": "0",
}


def disable_telemetry() -> None:
    """Let packages imported from now on report nothing.

    These are gradio, huggingface_hub, onnxruntime, ray, OpenVINO and nncf.
    OpenVINO and nncf have no variable for it. They write a client id to the home folder and send events
    unless their package openvino_telemetry is missing, so it is hidden from them.
    """
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
