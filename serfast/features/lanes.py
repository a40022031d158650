"""Sixteen float32 values that a kernel handles as one: what is written for a single frame runs on 16 side by side.

LLVM holds them in one vector register, or in several narrower ones, whatever the processor has. Numba's own vectoriser
leaves loops as short as a register scalar; with these values a kernel says what runs. A lane depends on others
only where a function says so.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numpy.typing import NDArray

from serfast.features.compilation import kernel

__all__ = [
    "LANES",
    "empty",
    "even_lanes",
    "inverse_root",
    "largest",
    "load",
    "local_maxima",
    "logarithm",
    "lowest_bit",
    "maximum",
    "minimum",
    "odd_lanes",
    "product",
    "root",
    "splat",
    "store",
    "transpose_block",
    "zeros",
]

LANES = 16

_intrinsic: Callable[[Any], Any] = intrinsic  # a kernel calls it without the context that its definition takes
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_ROOT_HALF_BITS = 0x3F3504F3  # of float32 sqrt(1/2)
_INVERSE_ROOT_BITS = 0x5F1FFFF9  # less half the bits of x: near those of 1 / sqrt(x)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


_LANES_TYPE = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _Lanes) -> None:
        super().__init__(manager, kind, _FLOATS)  # type: ignore[no-untyped-call]


def _define(operation: Any, instruction: str) -> None:
    cases = [signature(_LANES_TYPE, _LANES_TYPE, _LANES_TYPE)]
    register: Any = infer_global(operation)
    register(type("_LanesTemplate", (ConcreteTemplate,), {"key": operation, "cases": cases}))
    implements: Any = lower_builtin(operation, _Lanes, _Lanes)

    @implements
    def lower(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        # "contract": a product and a sum may become one instruction
        return getattr(builder, instruction)(*arguments, flags=("contract",))


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
_define(operator.truediv, "fdiv")


@_intrinsic
def product(_context: Any, _left: Any, _right: Any) -> Any:
    """The product, rounded by itself: never one instruction with a sum."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments)

    return _LANES_TYPE(_LANES_TYPE, _LANES_TYPE), build


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _FLOATS.as_pointer())


@_intrinsic
def load(_context: Any, array: Any, _index: Any) -> Any:
    """The values ``array[index : index + LANES]`` of a contiguous float32 array of one dimension; unchecked."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], *arguments), align=4)

    return _LANES_TYPE(array, types.intp), build


@_intrinsic
def store(_context: Any, array: Any, _index: Any, _value: Any) -> Any:
    """Write ``value`` to ``array[index : index + LANES]``; unchecked."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _pointer(context, builder, signature.args[0], *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _LANES_TYPE), build


@_intrinsic
def splat(_context: Any, _value: Any) -> Any:
    """The same value in every lane."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), arguments[0], ir.IntType(32)(0))
        return builder.shuffle_vector(first, first, ir.Constant(_INTEGERS, [0] * LANES))

    return _LANES_TYPE(types.float32), build


@_intrinsic
def maximum(_context: Any, _left: Any, _right: Any) -> Any:
    """The larger value of each lane; ``right`` where one is NaN."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        left, right = arguments
        return builder.select(builder.fcmp_ordered(">", left, right), left, right)

    return _LANES_TYPE(_LANES_TYPE, _LANES_TYPE), build


@_intrinsic
def minimum(_context: Any, _left: Any, _right: Any) -> Any:
    """The smaller value of each lane; ``right`` where one is NaN."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        left, right = arguments
        return builder.select(builder.fcmp_ordered("<", left, right), left, right)

    return _LANES_TYPE(_LANES_TYPE, _LANES_TYPE), build


@_intrinsic
def root(_context: Any, _value: Any) -> Any:
    """The square root."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_FLOATS, [_FLOATS])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f32"), arguments)

    return _LANES_TYPE(_LANES_TYPE), build


@_intrinsic
def _guess_inverse_root(_context: Any, _value: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        halved = builder.lshr(builder.bitcast(arguments[0], _INTEGERS), ir.Constant(_INTEGERS, [1] * LANES))
        bits = builder.sub(ir.Constant(_INTEGERS, [_INVERSE_ROOT_BITS] * LANES), halved)
        return builder.bitcast(bits, _FLOATS)

    return _LANES_TYPE(_LANES_TYPE), build


@_intrinsic
def largest(_context: Any, _value: Any) -> Any:
    """The largest value of the lanes, a float32."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        width = LANES
        while width > 1:
            width //= 2
            order = [(lane + width) % LANES for lane in range(LANES)]
            turned = builder.shuffle_vector(value, value, ir.Constant(_INTEGERS, order))
            value = builder.select(builder.fcmp_ordered(">", value, turned), value, turned)
        return builder.extract_element(value, ir.IntType(32)(0))

    return types.float32(_LANES_TYPE), build


@_intrinsic
def local_maxima(_context: Any, _before: Any, _value: Any, _after: Any, _least: Any) -> Any:
    """A whole number with bit l set where lane l of ``value`` is a local maximum, at least ``least``."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        before, value, after, least = arguments
        is_peak = builder.and_(builder.fcmp_ordered(">=", value, before), builder.fcmp_ordered(">", value, after))
        is_peak = builder.and_(is_peak, builder.fcmp_ordered(">=", value, least))
        return builder.zext(builder.bitcast(is_peak, ir.IntType(LANES)), ir.IntType(64))

    return types.int64(_LANES_TYPE, _LANES_TYPE, _LANES_TYPE, _LANES_TYPE), build


@_intrinsic
def lowest_bit(_context: Any, _bits: Any) -> Any:
    """The place of the lowest bit that is set in a whole number other than 0."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.int64), build


@_intrinsic
def _exponent(_context: Any, _value: Any) -> Any:
    """The whole number e for which value / 2^e lies in [sqrt(1/2), sqrt(2)); values must be normal and positive."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.sitofp(_exponent_bits(builder, arguments[0]), _FLOATS)

    return _LANES_TYPE(_LANES_TYPE), build


@_intrinsic
def _scaled_mantissa(_context: Any, _value: Any) -> Any:
    """The value / 2^e in [sqrt(1/2), sqrt(2)) that belongs to :func:`_exponent`."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        shift = ir.Constant(_INTEGERS, [23] * LANES)
        bits = builder.bitcast(arguments[0], _INTEGERS)
        bits = builder.sub(bits, builder.shl(_exponent_bits(builder, arguments[0]), shift))
        return builder.bitcast(bits, _FLOATS)

    return _LANES_TYPE(_LANES_TYPE), build


@_intrinsic
def transpose_block(_context: Any, samples: Any, starts: Any, _offset: Any, rows: Any, _first: Any, _step: Any) -> Any:
    """``rows[first + place * step + lane] = samples[starts[lane] + offset + place]`` for 16 places; unchecked."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        samples, starts, offset, rows, first, step = arguments
        whole = ir.IntType(64)
        values = []
        for lane in range(LANES):
            begins = context.make_array(signature.args[1])(context, builder, starts).data
            begin = builder.load(builder.gep(begins, [whole(lane)]))
            at = _pointer(context, builder, signature.args[0], samples, builder.add(begin, offset))
            values.append(builder.load(at, align=4))

        for apart in (1, 2, 4, 8):  # exchange one bit of the lane with the same bit of the place
            taken = [place if not place & apart else LANES + place - apart for place in range(LANES)]
            orders = [ir.Constant(_INTEGERS, [place + shift for place in taken]) for shift in (0, apart)]
            values = [
                builder.shuffle_vector(values[place & ~apart], values[place | apart], orders[bool(place & apart)])
                for place in range(LANES)
            ]
        for place, value in enumerate(values):
            at = builder.add(first, builder.mul(step, whole(place)))
            builder.store(value, _pointer(context, builder, signature.args[3], rows, at), align=4)
        return context.get_dummy_value()

    return types.void(samples, starts, types.intp, rows, types.intp, types.intp), build


@_intrinsic
def even_lanes(_context: Any, _left: Any, _right: Any) -> Any:
    """Every other value of both: left 0, left 2, ..., right 0, right 2, ..."""
    return _LANES_TYPE(_LANES_TYPE, _LANES_TYPE), _shuffle(list(range(0, 2 * LANES, 2)))


@_intrinsic
def odd_lanes(_context: Any, _left: Any, _right: Any) -> Any:
    """The values between those of :func:`even_lanes`."""
    return _LANES_TYPE(_LANES_TYPE, _LANES_TYPE), _shuffle(list(range(1, 2 * LANES, 2)))


def _shuffle(order: list[int]) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.shuffle_vector(*arguments, ir.Constant(_INTEGERS, order))

    return build


def _exponent_bits(builder: Any, value: Any) -> Any:
    bits = builder.bitcast(value, _INTEGERS)
    centred = builder.sub(bits, ir.Constant(_INTEGERS, [_ROOT_HALF_BITS] * LANES))
    return builder.ashr(centred, ir.Constant(_INTEGERS, [23] * LANES))


@kernel()
def logarithm(value: Any) -> Any:
    """The natural logarithm; values must be normal and positive."""
    # log(2^e (1 + x)) = e log 2 + x - x^2 / 2 + x^3 P(x), x in [-0.293, 0.414); log 2 in two parts, the first exact.
    # Source: Moshier, Cephes Mathematical Library, logf.
    power = _exponent(value)
    x = _scaled_mantissa(value) - splat(np.float32(1))
    square = x * x
    series = splat(np.float32(7.0376836292e-2))
    series = series * x - splat(np.float32(1.1514610310e-1))
    series = series * x + splat(np.float32(1.1676998740e-1))
    series = series * x - splat(np.float32(1.2420140846e-1))
    series = series * x + splat(np.float32(1.4249322787e-1))
    series = series * x - splat(np.float32(1.6668057665e-1))
    series = series * x + splat(np.float32(2.0000714765e-1))
    series = series * x - splat(np.float32(2.4999993993e-1))
    series = series * x + splat(np.float32(3.3333331174e-1))
    tail = series * x * square - splat(np.float32(2.12194440e-4)) * power - splat(np.float32(0.5)) * square
    return x + tail + splat(np.float32(0.693359375)) * power


@kernel()
def inverse_root(value: Any) -> Any:
    """1 over the square root, to 8e-7; values must be normal and positive."""
    # A guess from the bits and two of Newton's steps, the first with constants that suit the guess. Source: Kadlec
    # (2010), Improving the fast inverse square root.
    guess = _guess_inverse_root(value)
    near = splat(np.float32(0.703952253)) * guess * (splat(np.float32(2.38924456)) - value * guess * guess)
    return near * (splat(np.float32(1.5)) - splat(np.float32(0.5)) * value * near * near)


@kernel()
def empty(count: int) -> NDArray[np.float32]:
    """An array of ``count`` void values that begins where a cache line does.

    Registers of 64 bytes that are loaded from other places take two lines each.
    """
    values: NDArray[np.float32] = _from_a_cache_line(np.empty(count + LANES, dtype=np.float32))
    return values


@kernel()
def zeros(count: int) -> NDArray[np.float32]:
    """As :func:`empty`, filled with 0."""
    values: NDArray[np.float32] = _from_a_cache_line(np.zeros(count + LANES, dtype=np.float32))
    return values


@kernel()
def _from_a_cache_line(room: NDArray[np.float32]) -> NDArray[np.float32]:
    first = LANES - np.intp(room.ctypes.data) // 4 % LANES
    return room[first : first + room.size - LANES]
