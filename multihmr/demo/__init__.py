"""The web demo: app, server, sessions, videos."""

from ..storage.telemetry import disable_telemetry

disable_telemetry()  # before gradio is imported
