from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_standin import StandIn, open_stand_in
from huggingface_hub import ModelCard
from huggingface_hub.errors import EntryNotFoundError
from toys import ToyBody, tiny_anny_model, tiny_model

from multihmr import Model, load_model
from multihmr.evaluation.report import Counts
from multihmr.evaluation.results import BenchmarkResult
from multihmr.hub import huggingface as sharing
from multihmr.hub import loading as hub
from multihmr.hub.checkpoint import own_state
from multihmr.model import TopDownModel
from multihmr.storage import paths

REAL_LOAD_BODY = hub.load_body

# What two people do: one uploads and tells the licence, the other loads. Run with the environment of a user.
SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from toys import ToyBody, tiny_model
from multihmr import Model, load_model
from multihmr.hub import loading as hub
hub.load_body = lambda name, **_: ToyBody()
model = tiny_model()
model.licence = "CC-BY-4.0"
said = {"url": model.push_to_hub("me/people", half=True)}
again = [Model.from_pretrained("me/people", device="cpu"), load_model("hf:me/people@main", device="cpu")]
said["licences"] = [model.licence for model in again]
tensors = zip(*(model.state_dict().values() for model in (model, *again)), strict=True)
said["largest"] = max(float((a - b).abs().max() + (a - c).abs().max()) for a, b, c in tensors)
model.push_to_hub("me/secret", half=True, private=True)
refused = {
    "reader": lambda: model.push_to_hub("me/people", token="read"),
    "stranger": lambda: model.push_to_hub("me/other", token="nobody"),
    "secret": lambda: Model.from_pretrained("me/secret", token="nobody"),
    "revision": lambda: Model.from_pretrained("me/people", revision="v7"),
    "absent": lambda: Model.from_pretrained("me/nothing"),
}
for name, act in refused.items():
    try:
        act()
    except OSError as error:
        said[name] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


ASK_THE_HUB = sharing._check_reachable


@pytest.fixture(autouse=True)
def toy_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_check_reachable", lambda: None)  # hf_hub_download is replaced as well
    monkeypatch.setattr(
        hub, "load_body", lambda name, **o: REAL_LOAD_BODY(name, **o) if name == "anny" else ToyBody()
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], StandIn]:
    """What `SCRIPT` said, and the stand-in for the Hub after it."""
    home = tmp_path_factory.mktemp("home")
    own = {"HF_HOME": str(home), "HF_TOKEN": "write", "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    taken_away = ("HF_HUB_OFFLINE", "MULTIHMR_HOME", "http_proxy", "HTTP_PROXY")
    kept = {name: value for name, value in os.environ.items() if name not in taken_away}
    with open_stand_in() as stand_in:
        command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parents[1])]
        environment = {**kept, **own, "HF_ENDPOINT": stand_in.url}
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, encoding="utf-8"
        )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout), stand_in


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """The folder of an evaluation, written by what writes them."""
    figures = {"mpjpe": 123.26, "f1": 0.9041, "recall": 0.836, "face_pve": float("nan")}
    settings, nobody = {"protocol": {"given_camera": True}}, np.zeros((0, 0))
    counts = Counts(found=762, missed=149, false=12)
    BenchmarkResult("synth-test", "tiny", settings, counts, figures, [], (), nobody, []).save(
        tmp_path / "results"
    )
    return tmp_path / "results"


@pytest.mark.slow
def test_a_model_goes_to_the_hub_and_comes_back(shared: tuple[dict, StandIn]) -> None:
    said, stand_in = shared
    files = stand_in.repositories["me/people"]
    assert set(files) == {"model.safetensors", "config.json", "README.md"}
    assert said["url"].startswith(f"{stand_in.url}/me/people/commit/")
    assert said["licences"] == ["CC-BY-4.0"] * 2
    assert 0 < said["largest"] < 0.01  # it went with 16 bits
    assert 'Model.from_pretrained("me/people")' in files["README.md"].decode()
    fetched = [line for line in stand_in.asked if line.startswith("GET /me/people/resolve")]
    assert fetched == [f"GET /me/people/resolve/main/{name}" for name in ("config.json", "model.safetensors")]


@pytest.mark.slow
def test_the_hub_says_no_in_one_sentence(shared: tuple[dict, StandIn]) -> None:
    said, stand_in = shared
    assert stand_in.private == {"me/secret"}
    assert "me/other" not in stand_in.repositories
    assert said["reader"].startswith("PermissionError: cannot upload to 'me/people': your token may not")
    assert said["stranger"].startswith("PermissionError: cannot upload to 'me/other': there is no such")
    for name in ("secret", "absent"):
        assert said[name].startswith("ConnectionError: cannot get model.safetensors of 'hf:me/")
        assert said[name].endswith("log in with `hf auth login` or set HF_TOKEN")
    assert said["revision"].endswith("'hf:me/people': it has no such revision")


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_model, tiny_anny_model])
def test_a_folder_comes_back(make, tmp_path: Path) -> None:
    model = make()
    folder = model.save_pretrained(tmp_path / "mine")
    again = Model.from_pretrained(folder, device="cpu")
    assert type(again) is type(model)
    for key, value in own_state(model.network).items():
        torch.testing.assert_close(own_state(again.network)[key], value, rtol=0, atol=0)
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert described["config"] == json.loads(json.dumps(dataclasses.asdict(model.config)))
    assert described["architectures"] == [type(model.network).__name__]


def test_the_card_has_the_figures_that_were_measured(evaluation: Path, tmp_path: Path) -> None:
    folder = tiny_model().save_pretrained(tmp_path / "mine", evaluation=evaluation)
    card = ModelCard.load(folder / "README.md")
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        "mpjpe": 123.3,
        "f1": 0.9041,
        "recall": 83.6,
    }
    assert card.data.eval_results[0].dataset_name == "synth-test"
    assert (evaluation / "table.md").read_text(encoding="utf-8") in card.text
    assert (card.data.library_name, card.data.license) == ("multihmr", "unknown")


def test_without_an_evaluation_the_card_has_no_figure(tmp_path: Path) -> None:
    card = ModelCard.load(tiny_model().save_pretrained(tmp_path / "mine") / "README.md")
    assert "Not measured." in card.text
    assert card.data.eval_results is None


@pytest.mark.slow
def test_the_bundled_model_goes_with_its_own_card(tmp_path: Path) -> None:
    model = load_model(device="cpu")
    bundled = paths.bundled_file(hub.RELEASES[hub.DEFAULT].file)
    folder = model.save_pretrained(tmp_path / "mine")
    assert (folder / "model.safetensors").read_bytes() == bundled.read_bytes()
    card = ModelCard.load(folder / "README.md")
    assert card.text.strip() == bundled.with_name("README.md").read_text(encoding="utf-8").strip()
    assert card.data.license == "apache-2.0"
    next(model.parameters()).data.mul_(1.01)  # another model, of which nothing is known
    assert "Not measured." in (model.save_pretrained(folder) / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("licence", "header"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("My Own, v2", {"license": "other", "license_name": "my-own-v2"}),
        (
            "non-commercial (NAVER)",
            {
                "license": "other",
                "license_name": "non-commercial-naver",
                "license_link": "https://github.com/naver/multi-hmr",
            },
        ),
    ],
)
def test_licences_in_the_words_of_the_hub(licence: str, header: dict[str, str]) -> None:
    assert sharing._licence(licence) == header


def test_what_is_no_evaluation_is_refused(evaluation: Path, tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(FileNotFoundError, match=r"holds no evaluation .* `multihmr evaluate --out"):
        model.save_pretrained(tmp_path / "mine", evaluation=tmp_path)
    (evaluation / "result.json").write_text('{"data": "ehf"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"result\.json is not what `multihmr evaluate` writes"):
        model.save_pretrained(tmp_path / "mine", evaluation=evaluation)
    assert not (tmp_path / "mine").exists()


@pytest.mark.slow
def test_nothing_is_published_without_a_licence_or_a_name() -> None:
    with pytest.raises(ValueError, match=r"model\.licence = 'CC-BY-4\.0'"):
        tiny_model().push_to_hub("me/people")
    for name in ("people", "me/", "a/b/c"):
        with pytest.raises(ValueError, match="is called 'owner/name', got"):
            tiny_model().push_to_hub(name, private=True)


@pytest.mark.slow
def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    folder = tiny_anny_model().save_pretrained(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"holds a Model, not a TopDownModel; Model\.from_pretrained"):
        TopDownModel.from_pretrained(folder, device="cpu")
    with pytest.raises(ValueError, match="has no revisions"):
        Model.from_pretrained(folder, revision="main")
    with pytest.raises(ValueError, match="'people' is neither a folder here nor 'owner/repo' on the Hub"):
        Model.from_pretrained("people")
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors; save_pretrained writes"):
        Model.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("described", "error", "sentence"),
    [
        ({"family": "glnet-2"}, ValueError, "of family 'glnet-2'; this version knows: multihmr"),
        ({"family": "multihmr", "body": "smplx"}, FileNotFoundError, "register at"),
    ],
)
def test_what_is_lacking_is_said_before_the_weights_are_fetched(
    described: dict[str, str], error: type, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(described), encoding="utf-8")
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda _, file, **o: asked.append(file) or tmp_path / file
    )
    monkeypatch.setenv("MULTIHMR_HOME", str(tmp_path))
    with pytest.raises(error, match=sentence):
        load_model("hf:someone/people")
    assert asked == ["config.json"]


@pytest.mark.slow
def test_a_repository_without_config_json_still_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_model().save_pretrained(tmp_path / "mine")
    (folder / "config.json").unlink()

    def download(repository: str, file: str, **_: object) -> Path:
        if not (folder / file).exists():
            raise EntryNotFoundError(file)
        return folder / file

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load_model("hf:someone/people", device="cpu").config == tiny_model().config


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ["http://no-such-host.invalid", "http://127.0.0.1:9", "silent"])
def test_without_a_network_one_sentence_comes_soon(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_check_reachable", ASK_THE_HUB)
    monkeypatch.setattr(sharing, "repository_cache", lambda: tmp_path)
    acts = [
        lambda: Model.from_pretrained("me/people"),
        lambda: tiny_model().push_to_hub("a/b", private=True),
    ]
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and never answers
        url = endpoint.replace("silent", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        for act in acts:
            start = time.monotonic()
            with pytest.raises(ConnectionError, match=f"cannot be reached at {re.escape(url)}") as caught:
                act()
            assert "\n" not in str(caught.value)
            assert time.monotonic() - start < 5 + 3  # the second for what a busy machine does besides
