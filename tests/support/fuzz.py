"""Requests as nobody should send them: fields that hold what breaks programs, and bytes that are no message."""

from collections.abc import Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_TEXTS = (
    "",
    "a",
    "order",
    "default",
    "1.0.0",
    "1.0",
    "99999999999999999999.0.0",
    "reserve",
    "do_reserve",
    "undo_reserve",
    "inventory",
    "payment",
    "\0",
    "a\0b",
    "\n",
    "ü",
    "\U0001f600" * 40,
    "\u202e",
    "\ufeff",
    "../../etc/passwd",
    "' OR 1=1; --",
    "%s%n{0}",
    "x" * 63,
    "x" * 64,
    "x" * 129,
    "x" * 501,
    "x" * 20_000,
    "input.a + steps.reserve.output",
    "[[[[1].map(x, x)].map(x, x)]",
    "grpc-timeout",
    "true",
)
_INTEGERS = (0, 1, -1, 2, 50, 1000, 1001, 10_000, 10_001, 2**31 - 1, -(2**31))
_LARGE = (*_INTEGERS, 10**12, 2**63 - 1, -(2**63))
_NUMBERS = (0.0, 1.0, -1.0, 2.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
_MAX_DEPTH = 8


class Fuzz:
    """Makes requests out of chance. `texts` are more values for strings, such as ids that exist."""

    def __init__(self, random: Random, texts: Sequence[str] = ()) -> None:
        self._random = random
        self._texts = (*_TEXTS, *texts)

    def message(self, descriptor: Descriptor) -> Message:
        """One that can be sent, whatever it means."""
        message: Message = GetMessageClass(descriptor)()
        self._fill(message, 0)
        return message

    def spoiled(self, good: Message) -> Message:
        """The message with one field, at any depth, that holds something else."""
        copy: Message = GetMessageClass(good.DESCRIPTOR)()
        copy.CopyFrom(good)
        node = copy
        while True:
            field = self._random.choice(node.DESCRIPTOR.fields)
            below = self._below(node, field)
            if below is None or self._random.random() < 0.2:
                break
            node = below
        self._set(node, field, depth=1)
        return copy

    def _below(self, node: Message, field: FieldDescriptor) -> Message | None:
        """A message that the field holds, if there is one."""
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            return None
        if field.is_repeated:
            children = getattr(node, field.name)
            return self._random.choice(children) if children else None
        child: Message = getattr(node, field.name)
        return child if node.HasField(field.name) and child.DESCRIPTOR.fields else None

    def _fill(self, message: Message, depth: int) -> None:
        for field in message.DESCRIPTOR.fields:
            if self._random.random() < (0.8 if depth == 0 else 0.5):
                self._set(message, field, depth)

    def _set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            self._set_map(getattr(message, field.name), entry, depth)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(self._random.choice((0, 1, 2, 3, 101) if depth < 2 else (0, 1, 2))):
                if entry is None:
                    values.append(self._scalar(field))
                elif depth < _MAX_DEPTH:
                    self._fill(values.add(), depth + 1)
        elif entry is None:
            setattr(message, field.name, self._scalar(field))
        elif depth < _MAX_DEPTH:
            child = getattr(message, field.name)
            child.SetInParent()
            self._fill(child, depth + 1)

    def _set_map(self, values: Any, entry: Descriptor, depth: int) -> None:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for _ in range(self._random.choice((0, 1, 2, 40))):
            if value.message_type is None:
                values[self._scalar(key)] = self._scalar(value)
            elif depth < _MAX_DEPTH:
                self._fill(values[self._scalar(key)], depth + 1)

    def _scalar(self, field: FieldDescriptor) -> Any:
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return self._random.random() < 0.5
        if kind == FieldDescriptor.CPPTYPE_DOUBLE:
            return self._random.choice(_NUMBERS)
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            return self._random.choice((-1, 0, 1, 2, 3, 7, 8, 99, 2**31 - 1))
        if kind == FieldDescriptor.CPPTYPE_INT64:
            return self._random.choice(_LARGE)
        if kind == FieldDescriptor.CPPTYPE_STRING:
            text = self._random.choice(self._texts)
            return text if field.type == FieldDescriptor.TYPE_STRING else text.encode()
        return self._random.choice(_INTEGERS)

    def mutated(self, data: bytes) -> bytes:
        """The bytes with a few of them changed, cut out or added."""
        mutable = bytearray(data)
        for _ in range(self._random.randint(1, 4)):
            at = self._random.randrange(len(mutable) + 1)
            change = self._random.randrange(5)
            if change == 0:
                del mutable[at:]
            elif change == 1:
                mutable[at:at] = self._random.randbytes(self._random.randint(1, 8))
            elif change == 2:
                del mutable[at : at + self._random.randint(1, 8)]
            elif change == 3 and at < len(mutable):
                mutable[at] ^= 1 << self._random.randrange(8)
            else:
                mutable += self._random.randbytes(self._random.randint(1, 64))
        return bytes(mutable)
