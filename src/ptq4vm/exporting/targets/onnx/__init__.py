"""The target ``onnx``: what ONNX Runtime wants of a graph, and the file. Everything that is true of ONNX Runtime alone
may enter. What other engines want too belongs into :mod:`ptq4vm.exporting.graph`, and no other target imports this."""

from ptq4vm.exporting.targets.onnx.target import OnnxTarget

__all__ = ["OnnxTarget"]
