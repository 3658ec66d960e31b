"""The target ``tensorrt``: an ONNX file with explicit quantization as NVIDIA's TensorRT wants it, and the rules for it.
Everything that is true of TensorRT alone may enter. What other engines want too belongs into
:mod:`ptq4vm.exporting.graph`, and no other target imports this."""

from ptq4vm.exporting.targets.tensorrt.target import TensorRTTarget

__all__ = ["TensorRTTarget"]
