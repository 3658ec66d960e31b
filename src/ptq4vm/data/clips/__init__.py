"""Clips as they lie on disk: sources, foregrounds and backgrounds, listed first and decoded when they are read. A
protocol of a clip, and what composites or moves pictures into one, may enter. No decoder may, which is
:mod:`ptq4vm.media`'s, and nothing random but what a seed decides."""
