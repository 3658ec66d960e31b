"""What a tensor of the ONNX graph is in a LiteRT graph: floats, or codes, which several scales may be read into.

Pictures are ``(1, C, H, W)`` there and ``(1, H, W, C)`` here; codes from 0 to 255 there, from -128 to 127 here. A
LiteRT tensor of integers always has a scale, where codes in an ONNX graph get theirs from whoever reads them. So codes
may have several tensors, all of the same bytes: a RESHAPE to the same shape is how LiteRT gives them another scale, and
is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.errors import ExportError
from ptq4vm.exporting.graph.editor import Editor
from ptq4vm.exporting.targets.litert.model import Model, Tensor

TOP = 255
"""The largest code."""
SHIFT = 128
"""What is taken off a code."""
_AXES = (0, 3, 1, 2)
"""Where the dimensions of a picture are, in the order in which ONNX has them."""
_RANK = 4


@dataclass
class Codes:
    """Codes of the graph.

    Attributes:
        shape: ``(1, H, W, C)``.
        zero: The code of 0, from 0 to 255.
        top: The largest code that there can be.
        tensors: The tensors that they are, by their scale.
    """

    shape: tuple[int, ...]
    zero: int
    top: int = TOP
    tensors: dict[float, int] = field(default_factory=dict)

    @property
    def usual(self) -> tuple[int, float]:
        """The tensor that they were made as, and its scale."""
        scale, number = next(iter(self.tensors.items()))
        return number, scale


class Values:
    """The tensors of a graph that is being written for LiteRT.

    Args:
        editor: Editor of the ONNX graph, whose sizes are all known.

    Attributes:
        model: The LiteRT graph.
        codes: Integers by the name that they have in the ONNX graph.
        dequantized: Floats that nobody has needed as such yet: the codes that they are of, and their scales.
        taken: Tensors of the ONNX graph whose node was taken in by the one before it.
    """

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.model = Model()
        self.codes: dict[str, Codes] = {}
        self.dequantized: dict[str, tuple[str, NDArray[np.float32]]] = {}
        self.taken: set[str] = set()
        self._floats: dict[str, int] = {}
        self._shared: dict[Any, int] = {}
        self._shapes = editor.known_shapes()

    def shape(self, name: str) -> tuple[int, ...]:
        """``(N, H, W, C)`` of a tensor of the ONNX graph. Raises :class:`ExportError` for what is no picture."""
        shape = self._shapes.get(name)
        if shape is None or len(shape) != _RANK:
            raise ExportError(
                f"target=litert: {name!r} is of {shape}, and only pictures of a known size can be written"
            )
        return tuple(shape[axis] for axis in (0, 2, 3, 1))

    def axis(self, axis: int) -> int:
        """A dimension of a picture by where ONNX has it."""
        return _AXES[axis % _RANK]

    # tensors

    def floats(self, name: str) -> int:
        """The tensor of floats with this name, constants and dequantized codes included."""
        if name not in self._floats:
            if name in self.dequantized:
                self._floats[name] = self._dequantize(*self.dequantized[name])
            else:
                value = self.editor.value(name)
                if value is None:
                    raise ExportError(f"target=litert: {name!r} is no float tensor: this graph cannot be written")
                self._floats[name] = self.constant(_last_axis(value.astype(np.float32)))
        return self._floats[name]

    def new_floats(self, shape: Sequence[int], name: str = "") -> int:
        """A new tensor of floats; by its name it is found again."""
        number = self.model.tensor(Tensor(name or f"float{len(self.model.tensors)}", tuple(shape), "float32"))
        if name:
            self._floats[name] = number
        return number

    def name(self, number: int, name: str) -> None:
        """Let a tensor of floats be found by one more name."""
        self._floats[name] = number

    def constant(self, value: NDArray[Any]) -> int:
        """A constant of ``float32`` or ``int32``, kept once."""
        key = (str(value.dtype), value.shape, value.tobytes())
        if key not in self._shared:
            made = Tensor(f"constant{len(self.model.tensors)}", value.shape, str(value.dtype), data=value)
            self._shared[key] = self.model.tensor(made)
        return self._shared[key]

    def sizes(self, *values: int) -> int:
        """A constant of whole numbers."""
        return self.constant(np.array(values, np.int32))

    def new_codes(self, name: str, scale: float, zero: int, top: int = TOP, shape: Sequence[int] = ()) -> int:
        """New codes under a name, as a tensor of this scale."""
        found = self.codes[name] = Codes(tuple(shape) or self.shape(name), zero, top)
        return self._tensor_of(found, name, scale)

    def view(self, name: str, scale: float) -> int:
        """Codes as a tensor of this scale."""
        found = self.codes[name]
        scale = float(np.float32(scale))
        if scale not in found.tensors:
            source = found.usual[0]
            made = self._tensor_of(found, f"{name}:{scale:.6g}", scale)
            self.model.operation("RESHAPE", [source, self.sizes(*found.shape)], [made])
        return found.tensors[scale]

    def _tensor_of(self, codes: Codes, name: str, scale: float) -> int:
        scale = float(np.float32(scale))
        made = Tensor(name, codes.shape, "int8", np.array([scale], np.float32), codes.zero - SHIFT)
        codes.tensors[scale] = self.model.tensor(made)
        return codes.tensors[scale]

    # between the two

    def quantize(self, x: int, name: str, scale: NDArray[np.float32], zero: int, top: int = TOP) -> None:
        """Round floats to the codes ``name``, with one scale or one for each channel."""
        if scale.size > 1:
            x = self.floats_by("DIV", x, self.constant(scale.reshape(1, 1, 1, -1)))
            scale = np.ones(1, np.float32)
        self.model.operation("QUANTIZE", [x], [self.new_codes(name, float(scale.ravel()[0]), zero, top)])

    def bare(self, codes: str) -> int:
        """Codes as floats, 0 where they are the code of 0."""
        return self.floats_by_scale(codes, 1.0)

    def floats_by_scale(self, codes: str, scale: float) -> int:
        """Codes as floats, with one scale for all channels."""
        return self._dequantize(codes, np.array([scale], np.float32))

    def _dequantize(self, codes: str, scale: NDArray[np.float32]) -> int:
        key = (codes, scale.tobytes())
        if key not in self._shared:
            one = float(scale.ravel()[0]) if scale.size == 1 else 1.0
            made = self.new_floats(self.codes[codes].shape)
            self.model.operation("DEQUANTIZE", [self.view(codes, one)], [made], 2)
            if scale.size > 1:
                made = self.floats_by("MUL", made, self.constant(scale.reshape(1, 1, 1, -1)))
            self._shared[key] = made
        return self._shared[key]

    def floats_by(self, kind: str, *inputs: int, **options: Any) -> int:
        """The result of an operation of floats element by element."""
        sizes = [self.model.tensors[each].shape for each in inputs]
        made = self.new_floats(np.broadcast_shapes(*sizes))
        self.model.operation(kind, inputs, [made], 1, **options)
        return made


def _last_axis(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """A constant that is broadcast against pictures, with its channels last."""
    if value.size == 1:
        return value.reshape(1)
    whole = value.reshape((1,) * (_RANK - value.ndim) + value.shape)
    return np.ascontiguousarray(whole.transpose(0, 2, 3, 1))
