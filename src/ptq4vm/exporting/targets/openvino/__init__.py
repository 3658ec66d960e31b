"""The target ``openvino``: what OpenVINO wants of a graph, and the two files. Everything that is true of OpenVINO alone
may enter. What other engines want too belongs into :mod:`ptq4vm.exporting.graph`, and no other target imports this."""

from ptq4vm.exporting.targets.openvino.target import OpenVinoTarget

__all__ = ["OpenVinoTarget"]
