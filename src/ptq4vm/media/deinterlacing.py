"""Whole frames from interlaced ones, whose two fields were seen at different moments, by FFmpeg's bwdif."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.filter import Graph


class Deinterlacer:
    """Lets progressive frames pass and makes one frame of every interlaced one.

    Args:
        stream: The stream that the frames come from.

    Attributes:
        used: Whether a frame was interlaced.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self._stream = stream
        self._graph: Graph | None = None
        self._form: tuple[int, int, str] | None = None
        self.used = False

    def frames(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """What can be shown once ``frame`` has come; the first interlaced frame is kept until its successor is here."""
        form = frame.width, frame.height, frame.format.name
        if self._graph is not None and form != self._form:
            yield from self.rest()
        if self._graph is None:
            if not frame.interlaced_frame:
                yield frame
                return
            self._graph, self._form, self.used = self._open(frame), form, True
        self._graph.push(frame)
        yield from self._ready(self._graph)

    def rest(self) -> Iterator[av.VideoFrame]:
        """What was kept, at the end of the stream."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.push(None)
            yield from self._ready(graph)

    def _open(self, frame: av.VideoFrame) -> Graph:
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._stream.time_base
        )
        graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
        graph.configure()
        return graph

    @staticmethod
    def _ready(graph: Graph) -> Iterator[av.VideoFrame]:
        while True:
            try:
                frame = graph.pull()
            except (av.BlockingIOError, av.EOFError):  # it wants more, or there is no more
                return
            assert isinstance(frame, av.VideoFrame)
            yield frame
