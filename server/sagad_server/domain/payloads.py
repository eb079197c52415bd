"""What JSON in a payload may hold: only what PostgreSQL can store and every participant can read."""

import math

from google.protobuf.struct_pb2 import Value

MAX_PAYLOAD_BYTES = 256 * 1024
MAX_JSON_DEPTH = 24
"""Protobuf parsers stop at 100 nested messages, an object needs three, and payloads travel inside other messages."""


def json_fault(value: Value) -> str | None:
    """What is wrong with the JSON value, as the end of a sentence, or None. Costs about 0.6 us for each node."""
    level = [value]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_JSON_DEPTH + 1:
            return f"is nested deeper than {MAX_JSON_DEPTH} levels"
        below: list[Value] = []
        for node in level:
            kind = node.WhichOneof("kind")
            if kind == "string_value":
                if "\0" in node.string_value:
                    return f"holds a NUL character, which cannot be stored, in {_shown(node.string_value)}"
            elif kind == "struct_value":
                fields = node.struct_value.fields
                for key in fields:  # not .items(), which protobuf makes in Python
                    if "\0" in key:
                        return f"holds a NUL character, which cannot be stored, in the key {_shown(key)}"
                    below.append(fields[key])
            elif kind == "list_value":
                below.extend(node.list_value.values)
            elif kind == "number_value" and not math.isfinite(node.number_value):
                return f"holds {node.number_value}, which is no JSON number"
        level = below
    return None


def most_elements(value: Value) -> int:
    """The number of elements of the largest list or map within the value, itself included."""
    largest = 0
    pending = [value]
    while pending:
        node = pending.pop()
        kind = node.WhichOneof("kind")
        if kind == "struct_value":
            largest = max(largest, len(node.struct_value.fields))
            pending.extend(node.struct_value.fields.values())
        elif kind == "list_value":
            largest = max(largest, len(node.list_value.values))
            pending.extend(node.list_value.values)
    return largest


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
