"""The target ``litert``: what LiteRT wants of a graph, and the file. Everything that is true of LiteRT alone may enter.
What other engines want too belongs into :mod:`ptq4vm.exporting.graph`, and no other target imports this."""

from ptq4vm.exporting.targets.litert.target import LiteRtTarget

__all__ = ["LiteRtTarget"]
