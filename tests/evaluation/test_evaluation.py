"""Streamed evaluation with a network simple enough to say what must come out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from ptq4vm.errors import ConfigError, DataError, TrainingError
from ptq4vm.evaluation.evaluator import MattingEvaluation, evaluate
from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.metrics.functional import METRIC_NAMES, frame_metrics
from ptq4vm.models.base import MattingNetwork
from ptq4vm.types import EvalChunk

LENGTHS = {"set/a": 5, "set/b": 3, "c": 1}


class Averager(MattingNetwork):
    """Alpha is the mean of the frame's brightness and the alpha before; the state is that alpha."""

    num_states = 1

    def __init__(self, broken_at: int = -1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.broken_at = broken_at
        self.ratios: set[float] = set()

    def forward(self, src, state=None, downsample_ratio=1.0):
        assert not self.training
        self.ratios.add(downsample_ratio)
        alphas = []
        for frame in src.unbind(1):
            alpha = frame.mean(1, keepdim=True) * self.weight
            state = alpha if state is None else (alpha + state) / 2
            alphas.append(state)
        alpha = torch.stack(alphas, 1)
        if 0 <= self.broken_at < alpha.shape[1]:
            alpha[:, self.broken_at, :, 0, 0] = torch.nan
        return [src, alpha, state]


class Stream:
    """A datamodule in miniature."""

    def __init__(self, chunk: int, lengths: dict[str, int] = LENGTHS) -> None:
        generator = torch.Generator().manual_seed(0)
        self.clips = {
            name: tuple(torch.randint(0, 256, (n, c, 12, 16), generator=generator, dtype=torch.uint8) for c in (3, 1))
            for name, n in lengths.items()
        }
        self.chunks = [
            EvalChunk(index, start, start + chunk >= len(frames), frames[start : start + chunk], alpha[start:][:chunk])
            for index, (frames, alpha) in enumerate(self.clips.values())
            for start in range(0, len(frames), chunk)
        ]
        self.was_set_up_for = ""

    @property
    def evaluation_clips(self):
        return [SimpleNamespace(name=name) for name in self.clips]

    def setup(self, stage=None):
        self.was_set_up_for = stage

    def test_dataloader(self):
        return DataLoader(self.chunks, batch_size=None, collate_fn=lambda chunk: chunk)


@pytest.fixture
def trainer(tmp_path):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )


def expected(stream: Stream) -> dict[str, dict[str, torch.Tensor]]:
    result = {}
    for name, (frames, alpha) in stream.clips.items():
        with torch.inference_mode():
            output = Averager().eval().matte(frames[None].float() / 255)
        result[name] = frame_metrics(output.alpha[0].clone(), alpha)
    return result


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_every_frame_is_measured_with_states_carried_inside_a_clip_only(trainer, chunk, threads):
    stream = Stream(chunk)
    module = MattingEvaluation(Averager(), list(stream.clips), metric_threads=threads)
    for _ in range(2):  # a module can be used again
        trainer.test(module, dataloaders=stream.test_dataloader(), verbose=False)
        for name, metrics in expected(stream).items():
            for metric, values in metrics.items():
                assert module.results.frames[name][metric] == pytest.approx(values.tolist(), rel=1e-5, abs=1e-9)
                assert module.results.clips[name][metric] == pytest.approx(values.mean().item(), rel=1e-5, abs=1e-9)
    logged = {key: value.item() for key, value in trainer.callback_metrics.items()}
    assert logged == pytest.approx({f"test/{name}": v for name, v in module.results.mean.items()})


def test_mean_is_over_clips_whatever_their_lengths():
    values = {"long": (1.0, 2.0, 3.0), "short": (8.0,)}
    result = EvaluationResult.from_frames({clip: dict.fromkeys(METRIC_NAMES, v) for clip, v in values.items()})
    assert result.clips["long"]["mad"] == 2.0
    assert result.mean == dict.fromkeys(METRIC_NAMES, 5.0)


def test_evaluate_makes_its_own_trainer_and_returns_the_network_as_it_was(trainer):
    stream, network = Stream(2), Averager().train()
    result = evaluate(network, stream, downsample_ratio=0.5, progress=False)
    assert stream.was_set_up_for == "test"
    assert network.training and network.weight.requires_grad and not network.weight.is_inference()
    assert network.ratios == {0.5}
    assert list(result.clips) == list(LENGTHS)
    assert evaluate(Averager(), stream, trainer) == result


def test_observers_see_every_frame_in_order(trainer):
    class Watch:
        def __init__(self):
            self.seen = []

        def on_frames(self, clip_index, start, frames, true_alpha, alpha, foreground):
            assert frames.dtype == true_alpha.dtype == torch.uint8
            assert alpha.dtype == torch.float32 and alpha.shape == true_alpha.shape
            assert foreground.shape == frames.shape
            self.seen += [(clip_index, start + i, int(frame.sum())) for i, frame in enumerate(frames)]

    stream, watch = Stream(2), Watch()
    evaluate(Averager(), stream, trainer, observers=[watch])
    assert watch.seen == [
        (index, i, int(frame.sum()))
        for index, (frames, _) in enumerate(stream.clips.values())
        for i, frame in enumerate(frames)
    ]


def test_only_a_few_chunks_are_held_at_a_time(trainer, monkeypatch):
    stream = Stream(1, {"long": 20})
    module = MattingEvaluation(Averager(), ["long"])
    most = []
    measure = MattingEvaluation._measure
    monkeypatch.setattr(
        MattingEvaluation, "_measure", lambda self, *a: (measure(self, *a), most.append(len(self._pending)))[0]
    )
    trainer.test(module, dataloaders=stream.test_dataloader(), verbose=False)
    assert len(most) == 20 and max(most) <= 3


@pytest.mark.parametrize("threads", [0, 1])
def test_nan_names_the_clip_and_the_frame(trainer, threads):
    stream = Stream(2)
    module = MattingEvaluation(Averager(broken_at=1), list(stream.clips), metric_threads=threads)
    with pytest.raises(TrainingError, match=r"frame 1 of clip set/a;") as caught:
        trainer.test(module, dataloaders=stream.test_dataloader(), verbose=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="no evaluation results"):
        _ = module.results


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ([1], "set/a goes on at frame 2 out of order"),
        ([0, 2], "set/a goes on at frame 4 out of order"),
        ([0, 3], "set/b starts while another is open"),
        ([0, 1, 2, 0], "set/a starts while another is open or twice"),
    ],
)
def test_a_shuffled_stream_is_refused(trainer, order, words):
    stream = Stream(2)
    stream.chunks = [stream.chunks[i] for i in order]
    with pytest.raises(DataError, match=words):
        evaluate(Averager(), stream, trainer)


def test_unknown_clip_is_refused(trainer):
    with pytest.raises(DataError, match="only 1 clips are named"):
        trainer.test(MattingEvaluation(Averager(), ["a"]), dataloaders=Stream(9).test_dataloader(), verbose=False)


def test_fast_dev_run_measures_what_it_saw(tmp_path):
    trainer = pl.Trainer(accelerator="cpu", fast_dev_run=1, enable_progress_bar=False, default_root_dir=tmp_path)
    result = evaluate(Averager(), Stream(2), trainer)
    assert list(result.clips) == ["set/a"] and len(result.frames["set/a"]["mad"]) == 2


@pytest.mark.parametrize("options", [{"downsample_ratio": 0.0}, {"downsample_ratio": 1.5}, {"metric_threads": -1}])
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        MattingEvaluation(Averager(), ["a"], **options)
