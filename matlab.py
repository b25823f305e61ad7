"""The variable `val` of MATLAB files, versions 4 to 7.2, without loading anything else that is in them."""

import io
import math
import struct
import zlib

import scipy.io

import bounds
from leads import listed
from shell import UserError

MATRIX, COMPRESSED = 14, 15  # types of elements
TYPES = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13}  # of elements that are numbers
COMPLEX = 8  # a flag of an array
BYTES = {6: 8, 7: 4, 8: 1, 9: 1, 10: 2, 11: 2, 12: 4, 13: 4, 14: 8, 15: 8}  # of a number, by the class of its array
OPAQUE = 17  # the class of tables, strings and other objects, which have no shape
CLASSES = {1: "cells", 2: "a structure", 3: "an object", 4: "text", 5: "a sparse array", OPAQUE: "an object"}
HEAD = 1024  # bytes in which an element tells its class, shape and name


def load(content, where):
    """The array `val` of numbers in the bytes of a MATLAB file, which `where` names in a `UserError`."""
    try:
        if scipy.io.matlab.matfile_version(io.BytesIO(content))[0] == 1:
            content = _only(content, where)
        found = scipy.io.loadmat(io.BytesIO(content), variable_names=["val"])
    except UserError:
        raise
    except Exception as error:  # loadmat raises whatever its parser stumbles on
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where} is not a MATLAB file ({why}); export or fetch it again") from error
    if "val" not in found:
        raise UserError(f"{where} has no variable 'val'; save the signal under that name")
    return found["val"]


def _only(content, where):
    """A file of version 5 that holds `val` alone, unpacked.

    loadmat would load what else there is, too, and cells in cells until the process runs out of stack.
    """
    order = "<" if content[126:128] == b"IM" else ">"
    view, at, names = memoryview(content), 128, []
    while at + 8 <= len(content):
        kind, length = struct.unpack_from(order + "II", content, at)
        element = view[at : at + 8 + length]
        head = zlib.decompressobj().decompress(element[8:], HEAD) if kind == COMPRESSED else bytes(element[:HEAD])
        name, array_class, shape, inner = _describe(head, order)
        if name == "val":
            if array_class not in BYTES:
                what = CLASSES.get(array_class, "no array")
                raise UserError(f"{where} holds {what} in 'val'; save an array of numbers under that name")
            bounds.check_size(max(inner, math.prod(shape) * BYTES[array_class]), where, "unpacks to")
            if kind == COMPRESSED:
                element = zlib.decompressobj().decompress(element[8:], 8 + inner)
            return content[:116] + bytes(8) + content[124:128] + bytes(element)
        names += [name] if name else []
        at += 8 + length
    told = f" but {listed(names)}" if names else ""
    raise UserError(f"{where} has no variable 'val'{told}; save the signal under that name")


def _describe(head, order):
    """(name, class, shape, bytes after the tag) of the array whose element begins with the bytes `head`."""
    kind, inner = struct.unpack_from(order + "II", head)
    if kind != MATRIX:
        return "", None, (), 0
    flags, at = _part(head, 8, order)
    array_class = struct.unpack_from(order + "I", flags)[0] & 0xFF
    shape = b""
    if array_class != OPAQUE:
        shape, at = _part(head, at, order)
    name, at = _part(head, at, order)
    if name == b"val" and array_class in BYTES:
        # loadmat takes as much memory as the numbers say they need, and crashes where their type is none.
        held, size = struct.unpack_from(order + "II", head, at)
        if flags[1 if order == "<" else 2] & COMPLEX or held & 0xFFFF not in TYPES or (not held >> 16 and size > inner):
            raise ValueError("its numbers are complex, of no type, or more than there is room for")
    return name.decode("latin-1"), array_class, struct.unpack(f"{order}{len(shape) // 4}i", shape), inner


def _part(head, at, order):
    """(data, where the next begins) of a part of an element; up to four bytes share the eight of the tag."""
    kind, length = struct.unpack_from(order + "II", head, at)
    if kind >> 16:
        return head[at + 4 : at + 4 + (kind >> 16)], at + 8
    return head[at + 8 : at + 8 + length], at + 8 + -(-length // 8) * 8
