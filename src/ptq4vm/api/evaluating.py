"""Metrics of a network on clips."""

from __future__ import annotations

from collections.abc import Sequence

from ptq4vm.api.models import Model
from ptq4vm.data.base import ClipDataset, NeedsTruth
from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.errors import ConfigError
from ptq4vm.evaluation.evaluator import FrameObserver
from ptq4vm.evaluation.evaluator import evaluate as measure
from ptq4vm.evaluation.results import EvaluationResult, metric_set
from ptq4vm.models.base import MattingNetwork
from ptq4vm.pipeline.teacher import folded, make_truth
from ptq4vm.system.trainers import EVALUATING, TrainerFactory, trainers


def evaluate(
    model: Model | MattingNetwork,
    data: ClipDataset,
    *,
    downsample_ratio: float = 1.0,
    num_workers: int = 0,
    observers: Sequence[FrameObserver] = (),
    trainer: TrainerFactory | None = None,
    metrics: str = "lr",
    teacher: Model | None = None,
) -> EvaluationResult:
    """Measure a network on the evaluation clips of a data set.

    Args:
        model: A float :class:`Model`, or any network, such as ``RunResult.network``. A Model is measured with
            its batch norms folded, as quantization sees it.
        data: The data set, from :func:`load_data`.
        downsample_ratio: Size at which the network runs, as a fraction of the frames' size, in (0, 1].
        num_workers: How many processes decode; 0 decodes in this one.
        observers: Each is shown every prediction.
        trainer: Builds the Lightning Trainer; on the accelerator that there is, when not given.
        metrics: ``lr`` (MAD, MSE, Grad, Conn, dtSSD) or ``hr`` (MAD, MSE, Grad, dtSSD, SAD); besides the
            foreground's MSE where the true foreground is known.
        teacher: Float network whose alpha stands for the truth of ``footage``; ``model`` where that is a Model.

    Raises:
        DataError: There are no evaluation clips, or they are damaged.
        TrainingError: A prediction is not finite.
        ConfigError: ``metrics`` is unknown, or footage has no teacher.
    """
    names = metric_set(metrics)
    if isinstance(data, NeedsTruth):
        float_model = teacher or (model if isinstance(model, Model) else None)
        if float_model is None:
            raise ConfigError(f"{data.truth or 'some clips lack a truth'}: give the float network as teacher=")
        make_truth(data, float_model.network, float_model.partition, downsample_ratio)
    return measure(
        folded(model.network, model.partition) if isinstance(model, Model) else model,
        MattingDataModule(data, num_workers=num_workers),
        (trainer or trainers())(**EVALUATING),
        downsample_ratio,
        observers,
        metrics=names,
        foreground=True,
    )
