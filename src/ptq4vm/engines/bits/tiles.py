"""What Numba has no words for, written in LLVM's: tiles of convolutions, atomic counters, addresses, a clock.

A tile is a convolution of :data:`ACROSS` neighbouring pixels for several outputs, whose sums stay in registers from the
first product to the last: what is read of the input serves all outputs, a weight all pixels. LLVM makes of a tile what
the CPU has: VPOPCNTD for 512 bits at once, shuffles of nibbles where there is AVX2 only. Numba's cache knows the CPU by
name and features, and both decide :data:`OUTPUTS`. Importing this needs Numba (the extra ``fast``).

Everything is called with addresses (int64) and distances in bytes; nothing is checked: the layout does that.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.extending import intrinsic

ACROSS = 32
"""Pixels of a tile; rows of floats lie a multiple of it apart."""
_features = vars(config)["CPU_FEATURES"]  # set by NUMBA_CPU_FEATURES
_wide = "+avx512f" in _features if _features else binding.get_host_cpu_features().get("avx512f", False)
OUTPUTS = 8 if _wide else 2
"""Outputs of a tile; as many as there are registers for."""
EXACT_OUTPUTS = 4 if _wide else 1
"""Outputs of a tile summed in float64."""

_I32, _I64, _F32, _F64 = ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.DoubleType()
_CONTRACT = ("contract",)  # a product and a sum may be rounded once


def _vector(kind: Any) -> Any:
    return ir.VectorType(kind, ACROSS)


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, ir.PointerType(kind))


def _load(builder: Any, address: Any, kind: Any, align: int = 4) -> Any:
    return builder.load(_at(builder, address, kind), align=align)


def _spread(builder: Any, value: Any) -> Any:
    """A value in every lane."""
    whole = ir.Constant(_vector(value.type), ir.Undefined)
    first = builder.insert_element(whole, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, whole, ir.Constant(ir.VectorType(_I32, ACROSS), [0] * ACROSS))


def _plus(builder: Any, address: Any, distance: Any, times: int) -> Any:
    return builder.add(address, builder.mul(distance, ir.Constant(_I64, times)))


class _Binary:
    """Differing bits of packed signs and packed weights."""

    outputs, sums, weight, size = OUTPUTS, _I32, _I32, 4

    def first(self, builder: Any, bias: Any) -> Any:
        return ir.Constant(_vector(_I32), [0] * ACROSS)

    def read(self, builder: Any, address: Any) -> Any:
        return _load(builder, address, _vector(_I32))

    def step(self, builder: Any, total: Any, value: Any, weight: Any) -> Any:
        name, kind = f"llvm.ctpop.v{ACROSS}i32", ir.FunctionType(_vector(_I32), [_vector(_I32)])
        count = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.add(total, builder.call(count, [builder.xor(value, weight)]))

    def last(self, builder: Any, total: Any, base: Any, factor: Any, bias: Any) -> Any:
        """The sum of signs is a whole number; its factor and its bias round once each."""
        twice = builder.shl(total, ir.Constant(_vector(_I32), [1] * ACROSS))
        whole = builder.sitofp(builder.sub(_load(builder, base, _vector(_I32)), twice), _vector(_F32))
        return builder.fadd(builder.fmul(whole, _spread(builder, factor)), _spread(builder, bias))


class _Float:
    """Products of floats, in float32, summed in any way."""

    outputs, sums, weight, size = OUTPUTS, _F32, _F32, 4

    def first(self, builder: Any, bias: Any) -> Any:
        return _spread(builder, bias)

    def read(self, builder: Any, address: Any) -> Any:
        return _load(builder, address, _vector(_F32))

    def step(self, builder: Any, total: Any, value: Any, weight: Any) -> Any:
        return builder.fadd(total, builder.fmul(value, weight, flags=_CONTRACT), flags=_CONTRACT)

    def last(self, builder: Any, total: Any, base: Any, factor: Any, bias: Any) -> Any:
        return total


class _Exact(_Float):
    """Products of floats, which float64 holds exactly, summed in float64 one after the other and rounded at the end."""

    outputs, sums, weight, size = EXACT_OUTPUTS, _F64, _F64, 8

    def first(self, builder: Any, bias: Any) -> Any:
        return _spread(builder, builder.fpext(bias, _F64))

    def read(self, builder: Any, address: Any) -> Any:
        return builder.fpext(_load(builder, address, _vector(_F32)), _vector(_F64))

    def last(self, builder: Any, total: Any, base: Any, factor: Any, bias: Any) -> Any:
        return builder.fptrunc(total, _vector(_F32))


def _tile(kind: Any) -> Any:
    def tile(typing: Any, source: Any, offsets: Any, steps: Any, weights: Any, base: Any, apart: Any, factor: Any,
             bias: Any, out: Any, far: Any) -> Any:  # fmt: skip
        """One tile.

        Args:
            source: Where the tile's first pixel would be read with no offset.
            offsets: Address of the offsets of what is read, one int64 for every step.
            steps: Number of steps.
            weights: Address of the weights, those of one step for all outputs behind one another.
            base: Address of int32 from which twice the differing bits are taken.
            apart: Distance of the ``base`` of one output from the next.
            factor: Address of the outputs' factors.
            bias: Address of their biases.
            out: Where the first output's pixels go.
            far: Distance of the next output's.
        """

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _loop(kind, builder, *args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), build

    return intrinsic(tile)


def _loop(kind: Any, builder: Any, source: Any, offsets: Any, steps: Any, weights: Any, base: Any, apart: Any,
          factor: Any, bias: Any, out: Any, far: Any) -> None:  # fmt: skip
    one, zero = ir.Constant(_I64, 1), ir.Constant(_I64, 0)
    numbers = range(kind.outputs)
    biases = [_load(builder, _plus(builder, bias, ir.Constant(_I64, 4), n), _F32) for n in numbers]
    firsts = [kind.first(builder, each) for each in biases]
    before, body, after = builder.block, builder.append_basic_block("products"), builder.append_basic_block("rest")
    builder.branch(body)
    builder.position_at_end(body)
    step, reading = builder.phi(_I64), builder.phi(_I64)
    totals = [builder.phi(_vector(kind.sums)) for _ in numbers]
    offset = _load(builder, _plus(builder, offsets, step, 8), _I64, 8)
    value = kind.read(builder, builder.add(source, offset))
    sums = []
    for n, total in zip(numbers, totals, strict=True):
        weight = _load(builder, builder.add(reading, ir.Constant(_I64, n * kind.size)), kind.weight, kind.size)
        sums.append(kind.step(builder, total, value, _spread(builder, weight)))
    following = builder.add(step, one)
    ahead = builder.add(reading, ir.Constant(_I64, kind.outputs * kind.size))
    builder.cbranch(builder.icmp_signed("<", following, steps), body, after)
    for phi, start, on in [(step, zero, following), (reading, weights, ahead), *zip(totals, firsts, sums, strict=True)]:
        phi.add_incoming(start, before)
        phi.add_incoming(on, body)
    builder.position_at_end(after)
    for n, total in zip(numbers, sums, strict=True):
        scale = _load(builder, _plus(builder, factor, ir.Constant(_I64, 4), n), _F32)
        value = kind.last(builder, total, _plus(builder, base, apart, n), scale, biases[n])
        builder.store(value, _at(builder, _plus(builder, out, far, n), _vector(_F32)), align=4)


binary_tile: Any = _tile(_Binary())
float_tile: Any = _tile(_Float())
exact_tile: Any = _tile(_Exact())


def _signs(twice: bool) -> Any:
    def tile(typing: Any, table: Any, channels: Any, along: Any, shifts: Any, limit: Any, out: Any) -> Any:
        """Signs of a tile of up to 32 channels, one bit each; of twice as many pixels where rows are to be widened.

        Args:
            table: Address of the addresses of the channels' rows; those to be widened begin a column before the first.
            channels: How many there are.
            along: Bytes from the rows' beginning to the tile.
            shifts: Address of what is added to the channels' values.
            limit: Address of the least float whose bit is set.
            out: Where the words go.
        """

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _collect(builder, _widened if twice else _as_it_is, 2 if twice else 1, *args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), build

    return intrinsic(tile)


def _as_it_is(builder: Any, address: Any) -> list[Any]:
    return [_load(builder, address, _vector(_F32))]


def _widened(builder: Any, address: Any) -> list[Any]:
    """Pixels at even and at odd places of a row that is enlarged: three quarters of one, and one of its neighbour."""
    before, here, behind = (
        _load(builder, builder.add(address, ir.Constant(_I64, 4 * n)), _vector(_F32)) for n in range(3)
    )
    quarter, most = (ir.Constant(_vector(_F32), [value] * ACROSS) for value in (0.25, 0.75))
    near = builder.fmul(here, most)
    return [builder.fadd(near, builder.fmul(other, quarter)) for other in (before, behind)]


def _collect(builder: Any, read: Any, parts: int, table: Any, channels: Any, along: Any, shifts: Any, limit: Any,
             out: Any) -> None:  # fmt: skip
    least = _spread(builder, _load(builder, limit, _F32))
    none = ir.Constant(_vector(_I32), [0] * ACROSS)
    before, body, after = builder.block, builder.append_basic_block("signs"), builder.append_basic_block("rest")
    builder.branch(body)
    builder.position_at_end(body)
    channel, words = builder.phi(_I64), [builder.phi(_vector(_I32)) for _ in range(parts)]
    row = _load(builder, _plus(builder, table, channel, 8), _I64, 8)
    shift = _spread(builder, _load(builder, _plus(builder, shifts, channel, 4), _F32))
    bit = _spread(builder, builder.shl(ir.Constant(_I32, 1), builder.trunc(channel, _I32)))
    found = []
    for value, word in zip(read(builder, builder.add(row, along)), words, strict=True):
        is_set = builder.fcmp_ordered(">=", builder.fadd(value, shift), least)
        found.append(builder.or_(word, builder.select(is_set, bit, none)))
    following = builder.add(channel, ir.Constant(_I64, 1))
    builder.cbranch(builder.icmp_signed("<", following, channels), body, after)
    for phi, start, on in (
        (channel, ir.Constant(_I64, 0), following),
        *((w, none, f) for w, f in zip(words, found, strict=True)),
    ):
        phi.add_incoming(start, before)
        phi.add_incoming(on, body)
    builder.position_at_end(after)
    if parts == 1:
        builder.store(found[0], _at(builder, out, _vector(_I32)), align=4)
        return
    order = [n // 2 + n % 2 * ACROSS for n in range(2 * ACROSS)]
    woven = builder.shuffle_vector(*found, ir.Constant(ir.VectorType(_I32, 2 * ACROSS), order))
    builder.store(woven, _at(builder, out, ir.VectorType(_I32, 2 * ACROSS)), align=4)


sign_tile: Any = _signs(twice=False)
wide_sign_tile: Any = _signs(twice=True)


def _pointer(kind: Any) -> Any:
    def pointer(typing: Any, address: Any) -> Any:
        """An address as a pointer."""

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), build

    return intrinsic(pointer)


floats_at: Any = _pointer(types.float32)
words_at: Any = _pointer(types.uint32)
numbers_at: Any = _pointer(types.int64)


def _take(typing: Any, counter: Any) -> Any:
    """Add 1 to the int64 at an address, which threads share; gives what it was."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _at(builder, args[0], _I64), ir.Constant(_I64, 1), "seq_cst")

    return types.int64(types.int64), build


def _look(typing: Any, counter: Any) -> Any:
    """The int64 at an address, which threads share."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_at(builder, args[0], _I64), "seq_cst", 8)

    return types.int64(types.int64), build


def _from_system(name: str, result: Any, *given: Any) -> Callable[[Any, Any], Any] | None:
    """Calls a function of the system's; ``None`` where it has none of that name."""
    symbol = f"ptq4vm_{name}"
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
    binding.add_symbol(symbol, ctypes.cast(function, ctypes.c_void_p).value)

    def call(builder: Any, values: Any) -> Any:
        kind = ir.FunctionType(result, list(given))
        found = builder.module.globals.get(symbol) or ir.Function(builder.module, kind, symbol)
        return builder.call(found, values)

    return call


_yields = _from_system("sched_yield", _I32)
_times = _from_system("clock_gettime", _I32, _I32, ir.PointerType(ir.IntType(8)))
_MONOTONIC = 6 if sys.platform == "darwin" else 1


def _touch(typing: Any, address: Any) -> Any:
    """Read four bytes at an address, only so that they are in the cache."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.load_atomic(_at(builder, args[0], _I32), "monotonic", 4)  # which LLVM does not leave out
        return context.get_dummy_value()

    return types.void(types.int64), build


def _give_way(typing: Any) -> Any:
    """Let another thread have the CPU, where the system can."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _yields is not None:
            _yields(builder, [])
        return context.get_dummy_value()

    return types.void(), build


def _nanoseconds(typing: Any) -> Any:
    """A clock that only goes forward; 0 where the system has none that is called so."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _times is None:
            return ir.Constant(_I64, 0)
        place = builder.alloca(ir.ArrayType(_I64, 2))
        _times(builder, [ir.Constant(_I32, _MONOTONIC), builder.bitcast(place, ir.PointerType(ir.IntType(8)))])
        seconds, rest = (
            builder.load(builder.gep(place, [ir.Constant(_I32, 0), ir.Constant(_I32, n)])) for n in range(2)
        )
        return builder.add(builder.mul(seconds, ir.Constant(_I64, 10**9)), rest)

    return types.int64(), build


take: Any = intrinsic(_take)
look: Any = intrinsic(_look)
touch: Any = intrinsic(_touch)
give_way: Any = intrinsic(_give_way)
nanoseconds: Any = intrinsic(_nanoseconds)
