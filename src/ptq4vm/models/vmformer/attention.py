"""Attention over the positions of a map, with a place for a quantizer at both factors of every product."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ptq4vm.models.rvm.layers import stack_time
from ptq4vm.ops.junction import Junction, Operand


def to_tokens(x: Tensor) -> Tensor:
    """A map ``(N, C, h, w)`` as tokens ``(N, h * w, C)``."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, like: Tensor) -> Tensor:
    """Tokens ``(N, h * w, C)`` as a map of the rows and columns of ``like``, ``(N, C, h, w)``.

    The number of channels is a constant in a traced graph: where it is open OpenVINO takes scales of channels for those
    of columns.
    """
    return tokens.transpose(1, 2).reshape(*tokens.shape[:1], int(tokens.shape[-1]), *like.shape[-2:])


def silent(layer: nn.Linear) -> nn.Linear:
    """A layer that gives 0 before it has learned: what it is added to begins as it is."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Attention(nn.Module):
    """Multi-head attention. Softmax stays in float; its result, like all that is multiplied, passes an ``Operand``.

    Args:
        width: Channels of tokens, a multiple of ``heads``.
        heads: In how many parts of the channels tokens are compared.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.factor = 1 / math.sqrt(width // heads)
        self.to_query = nn.Linear(width, width)
        self.to_key_value = nn.Linear(width, 2 * width)
        self.query, self.key, self.weight, self.value = Operand(), Operand(), Operand(), Operand()
        self.scores = Junction()
        self.joined = Junction()
        self.project = silent(nn.Linear(width, width))

    def _parts(self, x: Tensor) -> Tensor:
        """``(N, L, width)`` to ``(N, heads, L, width / heads)``."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, asking: Tensor, asked: Tensor) -> Tensor:
        """What ``asking`` ``(N, L, width)`` finds in ``asked`` ``(N, M, width)``, ``(N, L, width)``."""
        key, value = self.to_key_value(asked).chunk(2, -1)
        query = self.query(self._parts(self.to_query(asking) * self.factor))
        scores = self.scores(query @ self.key(self._parts(key)).transpose(-2, -1))
        weight = self.weight(torch.softmax(scores, -1))
        found = (weight @ self.value(self._parts(value))).transpose(1, 2).flatten(2)
        return self.project(self.joined(found))


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between them, over every token alone.

    Args:
        width: Channels of tokens.
        expansion: How many times more channels lie between.
    """

    def __init__(self, width: int, expansion: int) -> None:
        last = silent(nn.Linear(expansion * width, width))
        super().__init__(nn.Linear(width, expansion * width), nn.GELU(), last)


class Layer(nn.Module):
    """A layer of the transformer: positions by a depthwise convolution, attention, two linear layers; each is added.

    The convolution says where tokens are by what is around them, its zeros at the rim included (Chu et al.,
    "Conditional Positional Encodings for Vision Transformers", ICLR 2023), so that a map may have any size.

    Args:
        width: Channels of tokens.
        heads: Heads of the attention.
        expansion: See :class:`FeedForward`.
    """

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.placed = Junction()
        self.norm = nn.LayerNorm(width)
        self.normed = Junction()
        self.attention = Attention(width, heads)
        self.attended = Junction()
        self.last_norm = nn.LayerNorm(width)
        self.last_normed = Junction()
        self.feed = FeedForward(width, expansion)
        self.out = Junction()

    def attend(self, x: Tensor, *others: Tensor) -> Tensor:
        """Tokens of ``x`` ask themselves and those of further maps, all ``(N, C, h, w)``; gives such a map."""
        x = self.placed(x + self.position(x))
        tokens = to_tokens(x)
        asked = self.normed(self.norm(torch.cat([tokens, *map(to_tokens, others)], 1)))
        asking = asked[..., : tokens.shape[1], :] if others else asked
        tokens = self.attended(tokens + self.attention(asking, asked))
        tokens = self.out(tokens + self.feed(self.last_normed(self.last_norm(tokens))))
        return to_map(tokens, x)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` to the same shape."""
        return self.attend(x)


class MemoryLayer(Layer):
    """A layer whose tokens also ask what it gave for the frame before: that is the network's recurrent state.

    The state enters as keys and values only, behind a norm, so that nothing adds up over time.
    """

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__(width, heads, expansion)
        self.memory = Junction()

    def forward(self, x: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Run over a frame or a clip.

        Args:
            x: ``(B, C, h, w)`` or ``(B, T, C, h, w)``.
            memory: State ``(B, C, h, w)``, or ``None`` for zeros.

        Returns:
            Maps shaped as ``x``, and the last of them ``(B, C, h, w)``.
        """
        frames = x.unbind(1) if x.ndim == 5 else (x,)
        last = torch.zeros_like(frames[0]) if memory is None else memory
        found = []
        for frame in frames:
            found.append(self.attend(frame, self.memory(last)))
            last = self.memory(found[-1])
        return (stack_time(found) if x.ndim == 5 else found[0]), last


class Queries(nn.Module):
    """Learned queries ask the tokens of every frame how the weights of the matte's last projection shall change.

    Args:
        width: Channels of tokens.
        heads: Heads of the attention.
        expansion: See :class:`FeedForward`.
        count: How many queries there are.
        out: Channels of what the results are multiplied with.
    """

    def __init__(self, width: int, heads: int, expansion: int, count: int, out: int) -> None:
        super().__init__()
        self.learned = nn.Parameter(torch.randn(1, count, width))
        self.asking_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asking, self.normed = Junction(), Junction()
        self.attention = Attention(width, heads)
        self.attended = Junction()
        self.last_norm = nn.LayerNorm(width)
        self.last_normed = Junction()
        self.feed = FeedForward(width, expansion)
        self.out_norm = nn.LayerNorm(width)
        self.found = Junction()
        self.project = silent(nn.Linear(width, out))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` to ``(N, out, 1, count)``: a picture of one row, with a pixel for each query."""
        asked = self.normed(self.norm(to_tokens(x)))
        asking = self.asking(self.asking_norm(self.learned).expand(len(x), -1, -1))
        tokens = self.attended(self.learned + self.attention(asking, asked))
        tokens = tokens + self.feed(self.last_normed(self.last_norm(tokens)))
        return self.project(self.found(self.out_norm(tokens))).transpose(1, 2).unsqueeze(2)
