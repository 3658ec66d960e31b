"""Statistics of batch norms in stages of training: followed, or measured anew."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ptq4vm import api
from ptq4vm.methods.binary.matting import BinaryMatting
from ptq4vm.methods.binary.norms import FOLLOW, MEASURE, NormStatistics
from ptq4vm.methods.binary.schedule import MattingStage
from ptq4vm.types import ClipBatch


def pictures(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 2, 6, 6, generator=generator) * (1 + seed) + seed


@pytest.fixture
def network() -> nn.Sequential:
    norm = nn.BatchNorm2d(2, momentum=0.01)
    norm.running_mean += 50  # type: ignore[operator]
    return nn.Sequential(norm)


def test_measured_statistics_are_the_mean_of_all_batches(network: nn.Sequential) -> None:
    statistics = NormStatistics(network, MEASURE)
    statistics.begin(anew=True)
    batches = [pictures(seed) for seed in range(3)]
    for batch in batches:
        network(batch)
    statistics.end()
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    variance = torch.stack([batch.var((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(network[0].running_mean, mean)
    torch.testing.assert_close(network[0].running_var, variance)
    assert network[0].momentum == 0.01


def test_a_stage_that_goes_on_keeps_what_was_measured(network: nn.Sequential) -> None:
    for number in range(2):
        statistics = NormStatistics(network, MEASURE)
        statistics.begin(anew=number == 0)
        network(pictures(number))
        statistics.end()
    both = torch.stack([pictures(number).mean((0, 2, 3)) for number in range(2)]).mean(0)
    torch.testing.assert_close(network[0].running_mean, both)


def test_followed_statistics_move_a_little(network: nn.Sequential) -> None:
    statistics = NormStatistics(network, FOLLOW)
    statistics.begin(anew=True)
    network(pictures())
    assert float(network[0].running_mean.mean()) == pytest.approx(49.5, abs=0.1)


def fit(network: nn.Module, stage: MattingStage) -> None:
    generator = torch.Generator().manual_seed(0)
    clip = ClipBatch(torch.rand(1, 2, 3, 32, 32, generator=generator), torch.ones(1, 2, 1, 32, 32))
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    loader = DataLoader([clip], batch_size=None, collate_fn=lambda item: item)
    trainer.fit(BinaryMatting(network, None, stage), loader)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [FOLLOW, MEASURE])
def test_a_stage_that_measures_learns_nothing(mode: str) -> None:
    network = api.untrained("bivm").network
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fit(network, MattingStage(norms=mode, clip_length=2, encoder_lr=1e-3, lr=1e-3))
    after = network.state_dict()
    changed = {key for key, value in before.items() if not torch.equal(after[key], value)}
    assert any("running_mean" in key for key in changed)
    assert any("weight" in key for key in changed) is (mode == FOLLOW)
    assert {norm.momentum for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.1}
