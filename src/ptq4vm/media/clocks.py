"""One clock for a file whose streams begin late, or begin again where films were joined."""

from __future__ import annotations

from fractions import Fraction

import av

_BACK = Fraction(1, 10)
"""Seconds by which times of one stream may run back without a new beginning: what muxers round."""
_AHEAD = 10
"""Seconds of nothing that are taken for a jump where a format's clock may jump, as FFmpeg does."""


class Clock:
    """Moves the times of packets so that a file begins at 0 and goes on where its clock jumps.

    Where films were joined, every stream jumps at its own packet. The first to do so says where the new part begins:
    after the end of all that came before. The others follow by as much, so that sound stays with its pictures.

    Args:
        start: Where the file's clock begins, seconds; below 0 (sound that codecs need to begin with) it stays.
        rate: Frames a second, for packets that do not say how long they are.
        jumps: Whether the format's clock may jump ahead (transport streams); elsewhere a gap is a gap.
    """

    def __init__(self, start: Fraction, rate: Fraction, jumps: bool) -> None:
        self._shifts = [-max(start, Fraction(0))]  # of each part of the file
        self._part: dict[int, int] = {}
        self._last: dict[int, Fraction] = {}
        self._end = Fraction(0)
        self._period = 1 / rate
        self._jumps = jumps

    def mend(self, packet: av.Packet) -> bool:
        """Move a packet's times; whether it can be used: not where it lies before its stream's last one."""
        if packet.dts is None or packet.time_base is None:
            return True
        stream, tick = packet.stream.index, Fraction(packet.time_base)
        part, last = self._part.get(stream, 0), self._last.get(stream)
        now = packet.dts * tick + self._shifts[part]
        while last is not None and self._has_jumped(now, last):
            part += 1
            if part == len(self._shifts):
                self._shifts.append(self._end - packet.dts * tick)
            now = packet.dts * tick + self._shifts[part]
        if last is not None and part and now <= last:
            return False
        self._part[stream], self._last[stream] = part, now
        self._end = max(self._end, now + (packet.duration * tick if packet.duration else self._period))
        moved = round(self._shifts[part] / tick)
        if moved:
            packet.pts = None if packet.pts is None else packet.pts + moved
            packet.dts += moved
        return True

    @property
    def end(self) -> Fraction:
        """Where the last of all packets so far ends, seconds."""
        return self._end

    def _has_jumped(self, now: Fraction, last: Fraction) -> bool:
        return now < last - _BACK or (self._jumps and now > last + _AHEAD)
