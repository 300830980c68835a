"""Does memory stay flat over a long video, over many pictures, and over a live stream?

    OMP_NUM_THREADS=1 python scripts/measure_memory.py [--frames 1000] [--pictures 2000]
    OMP_NUM_THREADS=1 python scripts/measure_memory.py --live 600

A film of noise is encoded and pictures are written into a temporary folder. `predict_video` and
`predict_many` run over them with a stand-in for the network that predicts two people in every image.

--live SECONDS instead reads the example film, which ffmpeg sends by HTTP over and over, with the bundled
model and all outputs of `multihmr live`: the page with a browser that looks, JSON lines, a WebSocket with a
client, OSC and VMC.
"""

import argparse
import contextlib
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from multihmr.bodies.loading import load_body
from multihmr.humans import Humans
from multihmr.video.predict import predict_video
from multihmr.video.predict_many import predict_many
from multihmr.video.writer import VideoWriter

SIZE = (180, 320)


class StandIn:
    """Predicts the same people in every image."""

    def __init__(self, body: Any, people: Humans) -> None:
        self.body, self.threshold, self.people = body, 0.3, people

    def predict_batch(self, images: list[Any], Ks: Any = None, **_: Any) -> list[Humans]:
        return [self.people for _ in images]


def resident() -> float:
    """Megabytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096 / 1e6


def people_of(body: Any) -> Humans:
    """Two people 3 and 4 m away, in the mean pose."""
    from measure_tracking import true_frame

    return true_frame(body, 60).humans[:2]


def report(what: str, results: Any) -> None:
    warm, most = 0.0, 0.0
    for number, _ in enumerate(results, start=1):
        if number == 100:
            warm = most = resident()
        elif number % 50 == 0:
            most = max(most, resident())
    print(f"{what}: {number}, {warm:.0f} MB after 100, at most {most:.0f} MB after", flush=True)


def measure_live(seconds: float) -> None:
    """Run all outputs on a stream; print memory after a minute and at most later, and the latency."""
    from websockets.sync.client import connect

    from multihmr import load_model
    from multihmr.live.osc import OscOutput, VmcOutput
    from multihmr.live.page import LivePage
    from multihmr.live.records import JsonLines, WebSocketOutput
    from multihmr.live.run import LiveStatistics, predict_live, run_live

    film = Path(__file__).parents[1] / "examples/images/walk.mp4"
    address = "http://127.0.0.1:8765/live.ts"
    command = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(film), "-c:v", "libx264"]
    command += [
        "-preset",
        "ultrafast",
        "-tune",
        "zerolatency",
        "-g",
        "30",
        "-an",
        "-f",
        "mpegts",
        "-listen",
        "1",
    ]
    model, memory = load_model(device="cpu"), []

    def progress(statistics: LiveStatistics) -> None:
        if len(memory) < statistics.seconds // 10:
            memory.append(resident())
            print(f"{statistics.seconds:.0f} s: {memory[-1]:.0f} MB; {statistics}", flush=True)

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stream = subprocess.Popen([*command, address])
        stack.callback(stream.kill)
        page, sockets = LivePage(), WebSocketOutput(0)
        outputs = [page, sockets, JsonLines(Path(folder) / "live.jsonl"), OscOutput("127.0.0.1", 9000)]
        outputs.append(VmcOutput(model.body, "127.0.0.1", 39539, people=2))
        for output in outputs:
            stack.callback(output.close)

        def look() -> None:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{page.address}/stream.mjpg") as pictures,
            ):
                while pictures.read(1 << 16):
                    pass

        def listen() -> None:
            with contextlib.suppress(Exception), connect(sockets.address, max_size=None) as client:
                for _ in client:
                    pass

        for target in (look, listen):
            threading.Thread(target=target, daemon=True).start()
        time.sleep(2)  # ffmpeg listens
        statistics = run_live(predict_live(model, address), outputs, seconds=seconds, progress=progress)
    warm = memory[5]
    print(f"live: {statistics}; {warm:.0f} MB after 60 s, at most {max(memory[5:]):.0f} MB after", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--live", type=float, metavar="SECONDS", help="measure a live stream instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.live:
        measure_live(args.live)
        raise SystemExit
    body = load_body("anny")
    model = StandIn(body, people_of(body))
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        with VideoWriter(film, 30) as writer:
            for i in range(args.frames):
                writer.write(random.integers(0, 255, (*SIZE, 3), np.uint8), i / 30)
        report("frames of a film", predict_video(model, film))
        film.unlink()
        for i in range(args.pictures):
            Image.fromarray(random.integers(0, 255, (*SIZE, 3), np.uint8)).save(Path(folder) / f"{i:05}.jpg")
        report("pictures of a folder", predict_many(model, folder))
