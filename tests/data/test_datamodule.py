from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.data.base import ClipSets
from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.data.calibration.sampling import EpochShuffleSampler, draw_samples
from ptq4vm.data.datasets.folder import find_clips
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.flow.analytic import AnalyticFlow
from ptq4vm.flow.cache import FlowCache
from ptq4vm.flow.dis import DISFlow
from ptq4vm.ops.warp import warp
from ptq4vm.types import Clip, ClipBatch, EvalChunk, FlowPair


class Moving:
    """A smooth picture that moves by whole pixels, with its flow; the alpha is a disc that moves along."""

    def __init__(self, name: str = "moving", count: int = 8, size: tuple[int, int] = (48, 64)) -> None:
        self.name = name
        self.num_frames = count
        self.size = size
        self.reads = 0

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        self.reads += 1
        stop = self.num_frames if stop is None else stop
        rows, columns = torch.meshgrid(*(torch.arange(n).double() for n in self.size), indexing="ij")
        frames, alphas = [], []
        for time in range(start, stop):
            x, y = columns - 3 * time, rows - time
            frames.append(torch.stack([x * 7 % 256, y * 11 % 256, (x + y) * 5 % 256]))
            alphas.append(((12 - torch.hypot(x - 18, y - 20)) / 4 + 0.5).clamp(0, 1)[None] * 255)
        return Clip(self.name, torch.stack(frames).to(torch.uint8), torch.stack(alphas).to(torch.uint8))

    def read_flow(self, start: int = 0, stop: int | None = None) -> FlowPair:
        count = (self.num_frames if stop is None else stop) - start - 1
        flow = torch.tensor([-3.0, -1.0]).view(1, 2, 1, 1).expand(count, 2, *self.size)
        return FlowPair(flow.clone(), torch.ones(count, 1, *self.size, dtype=torch.bool))


class Fixed:
    def __init__(self, calibration: tuple = (), evaluation: tuple = ()) -> None:
        self.sets = ClipSets(calibration, evaluation)

    def clips(self) -> ClipSets:
        return self.sets


@pytest.fixture
def analytic(tmp_path: Path) -> FlowCache:
    return FlowCache(tmp_path / "flow", AnalyticFlow())


def make_module(analytic: FlowCache | None, **options: object) -> MattingDataModule:
    options = {"clip_length": 3, "crop": (32, 40), "clips": 7, "batch_size": 2, **options}
    return MattingDataModule(Fixed((Moving("a"), Moving("b"), Moving("c"))), analytic, **options)


def test_batches(analytic: FlowCache) -> None:
    module = make_module(analytic)
    module.prepare_data()
    module.setup()
    batch = module.calibration_batch()
    assert batch.frames.shape == (7, 3, 3, 32, 40) and batch.alpha.shape == (7, 3, 1, 32, 40)
    assert batch.flow is not None and batch.flow.shape == (7, 2, 2, 32, 40)
    assert batch.visible is not None and batch.visible.shape == (7, 2, 1, 32, 40)
    assert all(field.dtype == torch.float32 for field in batch[:4] if field is not None)
    assert 0.5 < batch.frames.max() <= 1 and batch.alpha.max() == 1 and batch.alpha.min() == 0
    assert batch.index is not None and batch.index.tolist() == list(range(7))
    clips = module.calibration_clips()
    assert len(clips) == 7 and torch.equal(clips[4].frames, batch.frames[4:5])
    assert make_module(None).calibration_batch([1]).flow is None


def test_the_draw_is_a_function_of_the_seed(analytic: FlowCache) -> None:
    first, again, other = (make_module(analytic, seed=seed) for seed in (5, 5, 6))
    assert first.samples == again.samples != other.samples
    assert first.content_hash() == again.content_hash() != other.content_hash()
    assert make_module(None, seed=5).content_hash() != first.content_hash(), "the flow provider counts"
    assert make_module(analytic, seed=5, clips=3).samples == first.samples[:3]


def test_clips_are_used_evenly() -> None:
    samples = draw_samples([Moving(str(i)) for i in range(5)], 23, 3, (32, 32), 0.5, 0)
    used = np.bincount([sample.clip for sample in samples])
    assert used.min() == 4 and used.max() == 5
    assert len({sample.start for sample in samples}) > 3
    assert {sample.flip for sample in samples} == {True, False}
    assert not any(sample.flip for sample in draw_samples([Moving()], 9, 3, None, 0.0, 0))


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flow_follows_crop_and_flip(analytic: FlowCache, flip: float) -> None:
    module = make_module(analytic, hflip=flip)
    batch = module.calibration_batch()
    assert batch.flow is not None and batch.visible is not None
    assert batch.flow[:, :, 0].eq(3 if flip else -3).all() and batch.flow[:, :, 1].eq(-1).all()
    before, after = batch.frames[:, :-1].flatten(0, 1), batch.frames[:, 1:].flatten(0, 1)
    gap = (warp(before, batch.flow.flatten(0, 1)) - after).abs() * batch.visible.flatten(0, 1)
    assert gap.max() == 0, "what the flow says is what the crop shows"
    assert batch.visible.mean() > 0.85, "only what the crop cannot show is masked"
    full = module.clip_sets.calibration[module.samples[0].clip].read().frames
    sample = module.samples[0]
    cut = full[sample.start : sample.stop, :, sample.top : sample.top + 32, sample.left : sample.left + 40]
    assert torch.equal(batch.frames[0], (cut.flip(-1) if flip else cut).float() / 255)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_enlarged_samples_keep_their_flow(analytic: FlowCache, flip: float) -> None:
    module = MattingDataModule(
        Fixed((Moving(),)), analytic, clip_length=3, crop=(32, 32), clips=8, hflip=flip, zoom=2.0
    )
    enlarged = [i for i, sample in enumerate(module.samples) if sample.output is not None]
    assert enlarged and len(enlarged) < 8
    for index in enlarged:
        sample, clip = module.samples[index], module.calibration[index]
        assert clip.frames.shape == (3, 3, 32, 32) and clip.flow is not None and clip.visible is not None
        factor = 32 / sample.size[1]
        expected = torch.tensor([(3.0 if flip else -3.0) * factor, -32 / sample.size[0]])
        assert torch.allclose(clip.flow[0, :, 16, 16], expected, atol=1e-2)
        warped = warp(clip.alpha[:-1], clip.flow)
        wrong = warp(clip.alpha[:-1], torch.zeros_like(clip.flow))
        error, still = (((clip.alpha[1:] - w).abs() * clip.visible).sum() for w in (warped, wrong))
        assert error < 0.35 * still


@pytest.mark.parametrize(("zoom", "crop"), [(0.5, (32, 32)), (2.0, None)])
def test_zoom_out_of_range(zoom: float, crop: tuple[int, int] | None) -> None:
    with pytest.raises(ConfigError, match=r"calibration\.zoom"):
        draw_samples([Moving()], 1, 3, crop, 0.5, 0, zoom)


def test_whole_frames_are_scaled_and_half_of_them_are_a_part() -> None:
    """One size for frames of all shapes: their middle, or with a zoom a smaller box of its shape."""
    sources = [Moving(), Moving("tall", size=(120, 64))]
    module = MattingDataModule(Fixed(tuple(sources)), clip_length=3, crop=None, clips=40, zoom=2.0, size=(24, 32))
    boxes = {"moving": (48, 64), "tall": (48, 64)}
    parts = 0
    for index, sample in enumerate(module.samples):
        clip, source = module.calibration[index], sources[sample.clip]
        assert clip.frames.shape == (3, 3, 24, 32) and clip.alpha.shape == (3, 1, 24, 32)
        if sample.size == boxes[source.name]:
            middle = (source.size[0] - 48) // 2, (source.size[1] - 64) // 2
            assert (sample.top, sample.left) == middle and sample.output == (24, 32)
        else:
            parts += 1
            assert 24 <= sample.size[0] < 48 and abs(sample.size[1] / sample.size[0] - 4 / 3) < 0.05
    assert 10 < parts < 30
    first = module.samples[0]
    whole = sources[first.clip].read(first.start, first.stop).alpha.float() / 255
    box = whole[..., first.top : first.top + first.size[0], first.left : first.left + first.size[1]]
    small = F.interpolate(box.flip(-1) if first.flip else box, (24, 32), mode="area")
    assert (module.calibration[0].alpha - small).abs().mean() < 0.02
    crops = draw_samples(sources, 20, 3, (32, 32), 0.5, 0, size=(16, 16))
    assert {(sample.size, sample.output) for sample in crops} == {((32, 32), (16, 16))}


@pytest.mark.parametrize(("longest", "shape"), [(32, (24, 32)), (64, (48, 64)), (200, (48, 64))])
def test_whole_frames_have_a_longest_side(longest: int, shape: tuple[int, int]) -> None:
    """That of the first clip; frames of another shape are cut to its, of another size scaled."""
    sources = (Moving(), Moving("tall", size=(120, 64)), Moving("large", size=(96, 128)))
    values = {"clip_length": 2, "clips": 9, "longest": longest}
    module = MattingDataModule(Fixed(sources), crop=None, **values)
    assert {tuple(module.calibration[index].frames.shape) for index in range(9)} == {(2, 3, *shape)}
    if shape == (48, 64):
        plain = MattingDataModule(Fixed(sources[:1]), crop=None, **values)
        bare = MattingDataModule(Fixed(sources[:1]), crop=None, clip_length=2, clips=9)
        assert plain.samples == bare.samples, "frames that are small enough stay as they are"


def test_crops_show_the_subject() -> None:
    for sample in draw_samples([Moving(count=3, size=(200, 300))], 40, 3, (32, 32), 0.5, 0):
        alpha = Moving(count=3, size=(200, 300)).read(sample.start, sample.stop).alpha
        box = alpha[..., sample.top : sample.top + 32, sample.left : sample.left + 32]
        assert (box > 13).any()


class Late(Moving):
    """Nobody is there before the last two frames."""

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        clip = super().read(start, stop)
        empty = torch.arange(start, start + len(clip.alpha)) < self.num_frames - 2
        alpha = clip.alpha.clone()
        alpha[empty] = 0
        return Clip(clip.name, clip.frames, alpha)


class Never(Moving):
    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        clip = super().read(start, stop)
        return Clip(clip.name, clip.frames, torch.zeros_like(clip.alpha))


def test_windows_show_the_subject() -> None:
    for sample in draw_samples([Late(count=30, size=(48, 200))], 12, 4, (32, 32), 0.5, 0):
        assert sample.stop >= 29


def test_empty_clips_are_refused() -> None:
    with pytest.raises(DataError, match="clip nobody has an alpha of zero"):
        draw_samples([Never("nobody")], 1, 4, (32, 32), 0.5, 0)
    with pytest.raises(DataError, match="clip nobody has an alpha of zero"):
        MattingDataModule(Fixed(evaluation=(Never("nobody"),))).setup("test")


def test_clips_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="clip moving has 8 frames but calibration needs 9"):
        draw_samples([Moving()], 1, 9, None, 0.5, 0)
    with pytest.raises(ConfigError, match="crop 65x10 does not fit into clip moving, 64x48"):
        draw_samples([Moving()], 1, 3, (10, 65), 0.5, 0)
    with pytest.raises(ConfigError, match=r"clip wide is 80x48 but moving is 64x48; set calibration\.crop"):
        draw_samples([Moving(), Moving("wide", size=(48, 80))], 1, 3, None, 0.5, 0)
    with pytest.raises(DataError, match="no calibration clips"):
        _ = MattingDataModule(Fixed()).samples
    with pytest.raises(DataError, match="no evaluation clips"):
        MattingDataModule(Fixed()).test_dataloader()


@pytest.mark.parametrize(
    "wrong",
    [
        {"clips": 0},
        {"batch_size": 0},
        {"clip_length": 0},
        {"crop": (0, 3)},
        {"crop": (3,)},
        {"hflip": 1.5},
        {"size": (4,)},
        {"longest": 0},
    ],
)
def test_numbers_out_of_range(wrong: dict) -> None:
    (key,) = wrong
    with pytest.raises(ConfigError, match=rf"calibration\.{key}"):
        MattingDataModule(Fixed(), **wrong)


def test_sampler_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochShuffleSampler(20, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 4) == order(1, 4) and sorted(order(1, 4)) == list(range(20))
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in range(5)}) == 10
    torch.manual_seed(0)
    before = torch.rand(3)
    torch.manual_seed(0)
    order(1, 1)
    assert torch.equal(before, torch.rand(3)), "the global generator is left alone"
    assert list(EpochShuffleSampler(4, shuffle=False)) == [0, 1, 2, 3]


class Recorder(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []

    def training_step(self, batch: ClipBatch, _: int) -> Tensor:
        assert batch.index is not None
        self.seen.append(batch.index.tolist())
        return self.weight * batch.alpha.mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_resumed_run_sees_the_same_order(tmp_path: Path) -> None:
    def fit(epochs: int, checkpoint: Path | None = None) -> tuple[Recorder, pl.Trainer]:
        recorder = Recorder()
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(recorder, datamodule=make_module(None, clips=6), ckpt_path=checkpoint)
        return recorder, trainer

    whole, _ = fit(4)
    first, trainer = fit(2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second, _ = fit(4, tmp_path / "half.ckpt")
    assert first.seen + second.seen == whole.seen
    assert whole.seen[:3] != whole.seen[3:6], "epochs differ"


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_streams_clips_in_order(workers: int) -> None:
    sources = (Moving("a", count=8), Moving("b", count=5, size=(20, 30)), Moving("c", count=1))
    module = MattingDataModule(Fixed(evaluation=sources), eval_chunk=3, num_workers=workers)
    chunks = list(module.test_dataloader())
    assert all(isinstance(chunk, EvalChunk) for chunk in chunks)
    listed = [(chunk.clip, chunk.start, len(chunk.frames), chunk.last) for chunk in chunks]
    assert listed == [
        (0, 0, 3, False), (0, 3, 3, False), (0, 6, 2, True), (1, 0, 3, False), (1, 3, 2, True), (2, 0, 1, True),
    ]  # fmt: skip
    assert torch.equal(torch.cat([chunk.frames for chunk in chunks[:3]]), sources[0].read().frames)
    assert chunks[3].frames.dtype == chunks[3].alpha.dtype == torch.uint8


@pytest.mark.parametrize(("memory", "kept"), [(100, True), (0, False)])
def test_memory_budget(memory: float, kept: bool) -> None:
    module = make_module(None, memory_mib=memory)
    first = module.calibration_batch()
    reads = sum(clip.reads for clip in module.clip_sets.calibration)
    second = module.calibration_batch()
    assert torch.equal(first.frames, second.frames)
    assert (sum(clip.reads for clip in module.clip_sets.calibration) == reads) is kept


def test_workers_give_the_same_batches(analytic: FlowCache) -> None:
    alone, helped = (list(make_module(analytic, num_workers=n).train_dataloader()) for n in (0, 2))
    for one, two in zip(alone, helped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_from_files_with_dis(tmp_path: Path, make_clip) -> None:
    folder = make_clip(tmp_path / "clips" / "one", count=5)
    smooth = Moving(count=5).read()
    for index in range(5):
        Image.fromarray(smooth.frames[index].permute(1, 2, 0).numpy()).save(folder / "com" / f"{index:04d}.png")
    cache = FlowCache(tmp_path / "flow", DISFlow("ultrafast"))
    module = MattingDataModule(Fixed(find_clips(tmp_path / "clips")), cache, clip_length=2, clips=3, crop=(32, 32))
    module.prepare_data()
    entries = {path: path.stat().st_mtime_ns for path in (tmp_path / "flow").glob("*.safetensors")}
    assert len(entries) == 1
    assert len(list(module.train_dataloader())) == 1
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "flow").glob("*.safetensors")} == entries


def test_constructor_has_no_config() -> None:
    parameters = inspect.signature(MattingDataModule).parameters.values()
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters)
    assert not {"cfg", "config"} & {parameter.name for parameter in parameters}
