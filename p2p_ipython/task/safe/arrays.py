"""The safe codec's numpy: arrays as their type, their shape and their bytes; see task/safe/codec.py.

``numpy.load`` would do much of it, but takes object arrays from pickles unless told otherwise, sizes from the file's
word, and truth values of 2 to 255, with which numpy's own indexing writes past what it has counted.

Imports numpy only to decode: a process that encodes an array has it already. The runner imports this module inside the
sandbox.
"""

from __future__ import annotations

import math
import re
import sys
from importlib import import_module
from typing import Any

from p2p_ipython.errors import NameMissing
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.task.safe.parts import Encode, Incoming, Unreadable, Unsupported, listed, package_of, texted, whole

_DTYPE = re.compile(
    r"\|b1|\|[iu]1|[<>][iu][248]|[<>]f[248]|[<>]c(8|16)|\|[SV][1-9][0-9]{0,8}|[<>]U[1-9][0-9]{0,7}"
    r"|[<>][mM]8(\[[1-9]?[0-9]{0,5}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
"""The types of fixed size and meaning. Not ``longdouble``, which is another thing on another processor."""

_MAX_FIELDS = 1000
_MAX_DIMENSIONS = 32
_MAX_ITEM = (1 << 31) - 1
_MAX_BYTES = 1 << 62


def numpy_type(cls: type) -> str:
    """ "array", "scalar", "text" or "bytes" for a class of numpy that is supported, else ""."""
    np = sys.modules.get("numpy")
    if np is None or package_of(cls) != "numpy":
        return ""
    if cls is np.ndarray:
        return "array"
    if cls in (np.str_, np.bytes_):
        return "text" if cls is np.str_ else "bytes"
    return "scalar" if issubclass(cls, np.generic) else ""


def encode_array(encode: Encode, array: Any) -> dict[str, Any]:
    """Encode an array as its type, shape, order and bytes, which are not copied if they lie in order."""
    dtype = _encode_dtype(array.dtype)
    order = "C" if array.flags.c_contiguous or not array.flags.f_contiguous else "F"
    np = sys.modules["numpy"]
    flat = np.ascontiguousarray(array if order == "C" else array.T).reshape(-1)
    view = memoryview(flat.view(np.uint8)) if flat.size else memoryview(b"")
    return {"!array": [dtype, list(array.shape), order, encode.data.put(view, array)]}


def encode_scalar(encode: Encode, scalar: Any) -> dict[str, Any]:
    """Encode a scalar as its type and bytes. Some have the type of another one's array: those are not supported."""
    dtype = scalar.dtype
    text = _encode_dtype(dtype)
    if dtype.kind == "V" or sys.modules["numpy"].dtype(text).type is not type(scalar):
        raise Unsupported(scalar)
    return {"!scalar": [text, encode.data.put(memoryview(scalar.tobytes()), scalar)]}


def decode_array(incoming: Incoming, args: object) -> Any:
    """Return the array, writable, where its bytes are. Raises ``Unreadable``."""
    dtype_text, shape, order, place = listed(args, 4)
    dtype = _decode_dtype(dtype_text)
    shape = [whole(length, 0, 1 << 40) for length in listed(shape)]
    if len(shape) > _MAX_DIMENSIONS or math.prod(length or 1 for length in shape) * dtype.itemsize > _MAX_BYTES:
        raise Unreadable("an array in it has an impossible shape")
    if order not in ("C", "F"):
        raise Unreadable("an array in it has an unknown order")
    data = incoming.take(place)
    if memoryview(data).nbytes != math.prod(shape) * dtype.itemsize:
        raise Unreadable("an array in it has another size than it says")
    _check_bytes(dtype, data, incoming)
    return numpy().ndarray(shape, dtype, buffer=data, order=order)


def decode_scalar(incoming: Incoming, args: object) -> Any:
    """Return the scalar. Raises ``Unreadable``."""
    dtype, place = listed(args, 2)
    if type(dtype) is not str or dtype[1:2] in ("V", "S", "U"):
        raise Unreadable("a scalar in it is of another type than scalars are")
    return decode_array(incoming, [dtype, [], "C", place])[()]


def numpy() -> Any:
    """Return the module numpy. Raises ``NameMissing``."""
    return imported("numpy")


def imported(name: str) -> Any:
    """Import a module that a result needs. Raises ``NameMissing``."""
    try:
        return import_module(name)
    except ImportError as error:
        raise NameMissing(
            f"the result needs the module {name!r}, which is not installed here",
            hint=f"Install it here (pip install {name}), or return plain data.",
        ) from error


def _encode_dtype(dtype: Any) -> str | list[Any]:
    if dtype.fields is None:
        if dtype.subdtype is None and _DTYPE.fullmatch(dtype.str):
            return str(dtype.str)
        raise Unsupported(f"numpy array of {dtype}"[:100])
    names = list(dtype.names)
    fields = [dtype.fields[name] for name in names]
    if len(names) > _MAX_FIELDS or any(len(field) > 2 or field[0].fields or field[0].subdtype for field in fields):
        raise Unsupported("numpy array of nested or titled fields")
    return [names, [_encode_dtype(field[0]) for field in fields], [field[1] for field in fields], dtype.itemsize]


def _decode_dtype(text: object) -> Any:
    """Return the type. All of it is checked here: numpy reads much more into a description than types."""
    np = numpy()
    if type(text) is str:
        if not _DTYPE.fullmatch(texted(text, 20)):
            raise Unreadable("an array in it is of an unknown or an unsafe type")
        return np.dtype(text)
    names, formats, offsets, size = listed(text, 4)
    if not 0 < len(listed(names)) <= _MAX_FIELDS or len(set(names)) != len(names):
        raise Unreadable("an array in it has no fields, or too many, or two of one name")
    if not len(names) == len(listed(formats)) == len(listed(offsets)):
        raise Unreadable("an array in it has fields without a name or a type")
    names = [texted(name, 1000) for name in names]
    types = [_decode_dtype(texted(each, 20)) for each in formats]
    for each, offset in zip(types, offsets, strict=True):
        whole(offset, 0, whole(size, 1, _MAX_ITEM) - each.itemsize)
    return np.dtype({"names": names, "formats": types, "offsets": offsets, "itemsize": size})


def _check_bytes(dtype: Any, data: Buffer, incoming: Incoming) -> None:
    """Refuse bytes that are no value of their type: numpy trusts its truth values and its characters."""
    np = numpy()
    flat = np.frombuffer(data, dtype) if len(data) else np.empty(0, dtype)
    parts = [flat] if dtype.fields is None else [flat[name] for name in dtype.names]
    for part in parts:
        if not part.size:
            continue
        if part.dtype.kind == "b" and part.view(np.uint8).max() > 1:
            raise Unreadable("a truth value in it is neither")
        if part.dtype.kind == "U":
            if part is not flat:
                incoming.charge(part.nbytes)
                part = np.ascontiguousarray(part)  # noqa: PLW2901 - the same characters, side by side
            if part.view(f"{part.dtype.str[0]}u4").max() > sys.maxunicode:
                raise Unreadable("a character in it is none")
