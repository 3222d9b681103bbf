"""`magister pull`, against a hub on this machine: what it makes, how it goes on, what it says when it cannot."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from tests.cli import checkpoints, fake_hub
from tests.cli.fake_hub import Hub
from typer.testing import CliRunner

import magister
from magister.cli import places, quantize
from magister.cli.hub import pull, remote, shelf
from magister.cli.hub import source as layouts
from magister.cli.main import app
from magister.kernels.quantized import Quantized, dequantize
from magister.model import weights
from magister.model.config import MAGISTRAL_SMALL
from magister.model.quantize import Plan
from magister.model.quantized_files import INDEX, Writer

REPOSITORY = "mistralai/Magistral-Small-2509"
NAME = "magistral-small-2509"
SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text and vision in three Hugging Face shards."""
    return checkpoints.hf(tmp_path_factory.mktemp("shards"), checkpoints.WITH_VISION, 3)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with fake_hub.serving() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        monkeypatch.delenv("MAGISTER_MODELS", raising=False)
        # Warnings of a cut connection are meant for people.
        monkeypatch.setattr(logging.getLogger("huggingface_hub.file_download"), "disabled", True)
        yield served


def models(tmp_path: Path) -> Path:
    return tmp_path / "data" / "magister" / "models"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, with the name of the source taken out of the index."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    index = json.loads(found[INDEX])
    index["source"].pop("name")
    return found | {INDEX: json.dumps(index).encode()}


def numbers(folder: Path) -> dict[str, torch.Tensor]:
    return {name: dequantize(v) if isinstance(v, Quantized) else v.clone() for name, v in weights.stream(folder)}


@pytest.mark.parametrize("layout", ["hf", "native"])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_pulled_model_is_the_quantised_source_byte_for_byte(
    layout: str, bits: int, server: Hub, tmp_path: Path
) -> None:
    make = checkpoints.hf if layout == "hf" else checkpoints.native
    source = make(tmp_path / "source", checkpoints.TEXT)
    commit = server.add(REPOSITORY, source)
    assert quantize.run(str(source), tmp_path / "quantised", Plan(bits=bits)) == 0
    result = CliRunner().invoke(app, ["pull", NAME, "--bits", str(bits)])
    assert result.exit_code == 0, result.output
    pulled = models(tmp_path) / f"{NAME}-int{bits}"
    assert contents(pulled) == contents(tmp_path / "quantised")
    assert json.loads((pulled / INDEX).read_text())["source"]["name"] == f"{REPOSITORY}@{commit}"
    assert [path.name for path in models(tmp_path).iterdir()] == [pulled.name], "nothing of the pull is left"
    assert f"magister chat --model {NAME}-int{bits}" in result.output


def test_shard_by_shard_gives_the_same_numbers(shards: Path, server: Hub, tmp_path: Path) -> None:
    server.add(REPOSITORY, shards)
    quantize.run(str(shards), tmp_path / "quantised", Plan())
    pull.run(REPOSITORY, 4, tmp_path / "pulled", None)
    made, wanted = numbers(tmp_path / "pulled"), numbers(tmp_path / "quantised")
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], value) for name, value in wanted.items())
    both = [json.loads((tmp_path / name / INDEX).read_text())["source"]["sha256"] for name in ("pulled", "quantised")]
    assert both[0] == both[1]


def test_as_published_it_is_the_repositorys_files(shards: Path, server: Hub, tmp_path: Path) -> None:
    (shards / "README.md").write_text("not part of the checkpoint")
    server.add(REPOSITORY, shards)
    pull.run(NAME, 16, None, None)
    found = {path.name: path.read_bytes() for path in (models(tmp_path) / NAME).iterdir()}
    said = json.loads(found.pop("pulled.json"))
    assert said["repository"] == REPOSITORY
    published = {path.name: path.read_bytes() for path in shards.iterdir() if path.name != "README.md"}
    assert found == published
    assert said["sha256"] == {name: hashlib.sha256(content).hexdigest() for name, content in published.items()}


def test_the_shelf_is_where_a_person_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert shelf.folder() == tmp_path / "data" / "magister" / "models"
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shelf.folder() == tmp_path / ".local" / "share" / "magister" / "models"
    monkeypatch.setenv("MAGISTER_MODELS", "~/big disk")
    assert shelf.folder() == tmp_path / "big disk"
    (tmp_path / "big disk" / "mine").mkdir(parents=True)
    assert places.find("mine") == tmp_path / "big disk" / "mine"


def test_pulled_models_are_found_by_name(server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"nor one of nano; `magister pull magistral-small-2509` fetches it"):
        places.find(NAME)
    server.add(REPOSITORY, checkpoints.native(tmp_path / "source", checkpoints.TEXT))
    pull.run(NAME, 4, None, None)
    four = models(tmp_path) / f"{NAME}-int4"
    for name in (f"{NAME}-int4", NAME, REPOSITORY, "Magistral-Small-2509"):
        assert places.find(name) == four
    with magister.load(NAME) as model:
        assert model.chat("Say something", temperature=0.0, max_tokens=8).usage.completion_tokens == 8
    asked = server.gets.total()
    assert pull.run(NAME, 4, None, None) == 0
    assert "is there already, whole" in capsys.readouterr().out
    assert server.gets.total() == asked
    pull.run(NAME, 8, None, None)
    with pytest.raises(ValueError, match=f"is here as {NAME}-int4 and as {NAME}-int8; name one of them"):
        places.find(NAME)
    pull.run(NAME, 16, None, None)
    assert places.find(NAME) == models(tmp_path) / NAME
    with pytest.raises(ValueError, match=f"nor one of nano, {NAME}, {NAME}-int4, {NAME}-int8$"):
        places.find("other")


def test_one_shard_at_a_time_lies_on_the_disk(
    shards: Path, server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(REPOSITORY, shards)
    originals: set[int] = set()
    most = 0
    add, close = Writer.add, Writer.close_part

    def look() -> None:
        nonlocal most
        files = [path for path in models(tmp_path).rglob("*.safetensors*") if not path.is_symlink()]
        originals.add(sum(path.name.startswith("model-") for path in files))
        most = max(most, sum(path.stat().st_size for path in files))

    def watched_add(self: Writer, name: str, tensor: torch.Tensor) -> None:
        look()
        add(self, name, tensor)

    def watched_close(self: Writer) -> None:
        close(self)
        look()

    monkeypatch.setattr(Writer, "add", watched_add)
    monkeypatch.setattr(Writer, "close_part", watched_close)
    pull.run(NAME, 4, None, None)
    assert originals <= {0, 1}
    headers = 4096 * len(SHARDS)
    listing = remote.look_up(REPOSITORY, None)
    said = layouts.disk_needed(
        checkpoints.WITH_VISION, Plan(), listing, layouts.choose(listing), shards / "model.safetensors.index.json"
    )
    assert said * 0.9 < most <= said + headers


def test_a_cut_connection_goes_on_inside_the_file(
    shards: Path, server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(REPOSITORY, shards)
    # What is fetched is kept in whole pieces of this size, 10 MB as huggingface-hub sets it.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    server.cuts[SHARDS[1]] = [50_500]
    pull.run(NAME, 4, tmp_path / "cut", None)
    assert server.ranges == ["bytes=50000-"]
    assert server.sent[SHARDS[1]] == (shards / SHARDS[1]).stat().st_size + 500
    pull.run(NAME, 4, tmp_path / "whole", None)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_hub_that_goes_away_is_one_sentence_and_what_was_done_stays(
    shards: Path, server: Hub, tmp_path: Path
) -> None:
    server.add(REPOSITORY, shards)
    server.damage = {SHARDS[1]}
    with pytest.raises(ValueError, match=r"came damaged: its sha256 is \w+, must be \w+; run the same command again"):
        pull.run(NAME, 4, None, None)
    server.damage = set()
    server.refuse = (503, "")
    with pytest.raises(ValueError, match=r"answers with status 503 .* run the same command again"):
        pull.run(NAME, 4, None, None)
    server.refuse = None
    pull.run(NAME, 4, None, None)
    assert [server.gets[name] for name in SHARDS] == [1, 2, 1]
    assert not list(models(tmp_path).glob(".*"))


CHILD = """
import os, signal, sys
from pathlib import Path
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 1000
from magister.cli.hub import pull
from magister.model.quantized_files import Writer
adds, until, add = 0, int(sys.argv[1]), Writer.add
def counted(self, name, tensor):
    global adds
    adds += 1
    if adds == until:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, name, tensor)
Writer.add = counted
sys.exit(pull.run(sys.argv[2], 4, Path(sys.argv[3]), None))
"""


def test_killed_while_fetching_and_while_quantising_it_goes_on(shards: Path, server: Hub, tmp_path: Path) -> None:
    server.add(REPOSITORY, shards)
    pull.run(NAME, 4, tmp_path / "undisturbed", None)
    before, target = server.gets.copy(), tmp_path / "killed"

    def start(until: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", CHILD, str(until), NAME, str(target)], stdout=subprocess.DEVNULL)

    reached = threading.Event()
    server.holds[SHARDS[1]] = (50_500, reached)
    with start(0) as fetching:
        assert reached.wait(60)
        with pytest.raises(ValueError, match=r"another pull is at work in .*\.killed\.pull; wait for it, or stop it"):
            pull.run(NAME, 4, target, None)
        part = remote.part_of(tmp_path / ".killed.pull" / SHARDS[1])
        while part.stat().st_size < 40_000:
            time.sleep(0.01)
        fetching.send_signal(signal.SIGKILL)
    assert fetching.returncode == -signal.SIGKILL
    there = part.stat().st_size
    server.add(REPOSITORY, checkpoints.hf(tmp_path / "newer", checkpoints.WITH_VISION, 3, seed=8))
    with start(5) as quantising:
        pass
    assert quantising.returncode == -signal.SIGKILL, "in the middle of the second shard"
    assert [server.gets[name] - before[name] for name in SHARDS] == [1, 2, 0], "a second request for the killed one"
    assert server.ranges == [f"bytes={there}-"], "for what it lacked"
    assert pull.run(NAME, 4, target, None) == 0
    assert [server.gets[name] - before[name] for name in SHARDS] == [1, 2, 1]
    assert contents(target) == contents(tmp_path / "undisturbed"), "from the commit that it was begun with"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def begun(server: Hub, shards: Path) -> str:
    """A pull that stopped in the second shard; returns its commit."""
    commit = server.add(REPOSITORY, shards)
    server.damage = {SHARDS[1]}
    with pytest.raises(ValueError, match="came damaged"):
        pull.run(NAME, 4, None, None)
    server.damage = set()
    return commit


def test_another_commit_is_refused(shards: Path, server: Hub, tmp_path: Path) -> None:
    first = begun(server, shards)
    second = server.add(REPOSITORY, checkpoints.hf(tmp_path / "newer", checkpoints.WITH_VISION, 3, seed=8))
    with pytest.raises(ValueError, match=f"was begun from commit {first}, main is now {second}; remove .* --revision"):
        pull.run(NAME, 4, None, "main")
    with pytest.raises(ValueError, match=r"has no revision nowhere; see http"):
        pull.run(NAME, 4, None, "nowhere")
    gone = server.commits[REPOSITORY].pop(first)
    with pytest.raises(ValueError, match=f"was begun from commit {first}: .* has no revision {first}; .* begin anew"):
        pull.run(NAME, 4, None, None)
    server.commits[REPOSITORY] = {first: gone, second: server.commits[REPOSITORY][second]}
    with pytest.raises(ValueError, match=r"in 4 bits, now it is me/other in 4; remove"):
        pull.run("me/other", 4, models(tmp_path) / f"{NAME}-int4", None)
    assert pull.run(NAME, 4, None, first) == 0
    with pytest.raises(ValueError, match=f"holds commit {first}, main is {second}; name another folder with --to"):
        pull.run(NAME, 4, None, "main")


def test_a_disk_without_room_is_refused_before_any_weights(
    shards: Path, server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(REPOSITORY, shards)
    disk = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk._replace(free=64 << 20))
    for bits in (4, 16):
        with pytest.raises(ValueError, match=r"needs 67,\d+,\d+ bytes of disk at the most, 67,108,864 are free there"):
            pull.run(NAME, bits, None, None)
    assert not any(name.endswith(".safetensors") for name in server.gets)


def test_what_the_disk_must_hold_is_the_most_at_any_time(shards: Path, server: Hub) -> None:
    server.add(REPOSITORY, shards)
    listing = remote.look_up(REPOSITORY, None)
    source, config = layouts.choose(listing), checkpoints.WITH_VISION
    plan, sizes = Plan(), [listing.files[name].size for name in SHARDS]
    exact = layouts.disk_needed(config, plan, listing, source, shards / "model.safetensors.index.json")
    whole = plan.bytes(config, torch.float32)
    assert whole < exact <= whole + max(sizes) == layouts.disk_needed(config, plan, listing, source, None)


def test_twenty_gigabytes_serve_for_the_24b() -> None:
    files = {f"model-{n:05}-of-00010.safetensors": remote.RemoteFile(4_802_000_000, None) for n in range(1, 11)}
    listing = remote.Listing(REPOSITORY, "0", files | {"config.json": remote.RemoteFile(1, None)})
    source = layouts.choose(listing)
    assert layouts.disk_needed(MAGISTRAL_SMALL, Plan(), listing, source, None) < 20.5e9


def test_the_layout_in_more_files_is_chosen() -> None:
    some = remote.RemoteFile(1, None)
    names = ["config.json", "params.json", "consolidated.safetensors", *SHARDS, "tekken.json", "chat_template.jinja"]
    source = layouts.choose(remote.Listing("a/b", "0", dict.fromkeys(names, some)))
    assert (source.description, source.weights) == ("config.json", tuple(SHARDS))
    assert source.beside == ("tekken.json", "chat_template.jinja")
    without = {name: some for name in names if not name.startswith("model")}
    assert layouts.choose(remote.Listing("a/b", "0", without)).weights == ("consolidated.safetensors",)


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((404, "RepoNotFound"), r"there is no mistralai/.* at http://.*, or it is private: check the name, or log in"),
        ((403, "GatedRepo"), r"is for people who agreed to its terms: do so at http://\S+2509, then log in with"),
        ((403, ""), r"refuses to give .* \(status 403\): log in with `hf auth login` or set HF_TOKEN"),
        ((401, ""), r"log in with `hf auth login` or set HF_TOKEN"),
    ],
)
def test_a_hub_that_says_no_is_one_sentence(
    refusal: tuple[int, str], message: str, server: Hub, tmp_path: Path
) -> None:
    server.refuse = refusal
    with pytest.raises(ValueError, match=message) as caught:
        pull.run(NAME, 4, None, None)
    assert "\n" not in str(caught.value)
    assert not list(models(tmp_path).iterdir())


def test_no_network_is_one_sentence(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"cannot be fetched from http://127.0.0.1:9 \(.*\): check the connection"):
        pull.run(NAME, 4, None, None)
    child = [sys.executable, "-c", "from magister.cli.main import main; main()", "pull", NAME]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    asked = subprocess.run(child, env=offline, capture_output=True, text=True, check=False)
    assert asked.returncode == 1
    assert asked.stderr == f"magister: {REPOSITORY} cannot be fetched: HF_HUB_OFFLINE is set; unset it\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"model-Q4_K_M.gguf": b"GGUF"},
            r"is no checkpoint in native or Hugging Face layout: it has model-Q4_K_M.gguf;",
        ),
        ({"README.md": b"words"}, r"it has no weights; name another repository"),
        (
            {
                "config.json": b'{"model_type": "mistral", "quantization_config": {"bits": 4}}',
                "model.safetensors": b"x",
            },
            r"is quantised already: pull it as it is, with --bits 16, or name the original",
        ),
        (
            {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"x"},
            r"model_type is 'llama'; this network",
        ),
    ],
)
def test_other_repositories_are_refused_before_their_weights(
    files: dict[str, bytes], message: str, server: Hub, tmp_path: Path
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    server.add("me/other", folder)
    with pytest.raises(ValueError, match=message):
        pull.run("me/other", 4, None, None)
    assert not any(name.endswith((".safetensors", ".gguf")) for name in server.gets)


def test_folders_of_others_are_left_alone(shards: Path, server: Hub, tmp_path: Path) -> None:
    server.add(REPOSITORY, shards)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    for bits in (4, 16):
        with pytest.raises(ValueError, match="is not empty and"):
            pull.run(NAME, bits, foreign, None)
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]
    assert not server.gets


def test_other_bits_than_are_there_are_refused(shards: Path, server: Hub, tmp_path: Path) -> None:
    server.add(REPOSITORY, shards)
    for there, asked in ((4, 8), (16, 4)):
        pull.run(NAME, there, tmp_path / f"in {there}", None)
        with pytest.raises(ValueError, match=f"in {there} is in {there} bits, now it is {asked}; name another folder"):
            pull.run(NAME, asked, tmp_path / f"in {there}", None)


def test_another_name_of_a_folder_is_that_folder(shards: Path, server: Hub, tmp_path: Path) -> None:
    server.add(REPOSITORY, shards)
    (tmp_path / "large disk" / "m").mkdir(parents=True)
    (tmp_path / "m").symlink_to(tmp_path / "large disk" / "m")
    assert pull.run(NAME, 16, tmp_path / "m", None) == 0
    assert (tmp_path / "m").is_symlink()
    assert (tmp_path / "m" / "pulled.json").is_file()
    assert [path.name for path in (tmp_path / "large disk").iterdir()] == ["m"]
    with pytest.raises(ValueError, match="/proc is a mount point, which no folder can take the place of"):
        pull.run(NAME, 16, Path("/proc"), None)


def test_killed_before_its_last_step_it_leaves_nothing(shards: Path, server: Hub, tmp_path: Path) -> None:
    server.add(REPOSITORY, shards)
    pull.run(NAME, 4, tmp_path / "m", None)
    staging = tmp_path / ".m.pull"
    staging.mkdir()
    layouts.State(staging, REPOSITORY, "c" * 40, 4, {}).write()
    (staging / "config.json").write_text("{}")
    assert pull.run(NAME, 4, tmp_path / "m", None) == 0
    assert not staging.exists()


def test_some_shards_of_many_are_no_model(shards: Path, server: Hub, tmp_path: Path) -> None:
    server.add(REPOSITORY, shards)
    shutil.copytree(shards, tmp_path / "m")
    assert pull.run(NAME, 16, tmp_path / "m", None) == 0
    (tmp_path / "m" / SHARDS[1]).unlink()
    with pytest.raises(ValueError, match="m is not empty and is no model that was pulled"):
        pull.run(NAME, 16, tmp_path / "m", None)


@pytest.mark.parametrize("name", ["magistral", "../up", "a/b/c", "", "/etc"])
def test_names_that_mean_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=r"is neither owner/name nor one of magistral-small-2509, "):
        shelf.repository(name)
    assert CliRunner().invoke(app, ["pull", "a/b", "--bits", "5"]).exit_code == 2
