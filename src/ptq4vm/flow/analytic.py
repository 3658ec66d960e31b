"""Flow of clips whose motion was synthesised, and is therefore known."""

from __future__ import annotations

from ptq4vm.errors import ConfigError
from ptq4vm.flow.base import FLOWS
from ptq4vm.types import AnalyticFlowSource, ClipSource, FlowPair


@FLOWS.register("analytic")
class AnalyticFlow:
    """Hands on the flow that a clip source knows itself."""

    name = "analytic"

    def from_source(self, source: ClipSource, start: int, stop: int) -> FlowPair:
        """Exact flow between the consecutive frames of ``start:stop``.

        Raises:
            ConfigError: The source does not know its flow.
        """
        if not isinstance(source, AnalyticFlowSource):
            raise ConfigError(f"clip {source.name} does not know its exact flow; use flow=dis, or data=demo")
        return source.read_flow(start, stop)
