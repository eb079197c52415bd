"""Where results go: tables for a terminal, plain lines for a pipe, JSON or YAML where that is asked for."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO, TypeVar

import yaml
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sagad_client.terminal.text import instant


@dataclass(frozen=True, slots=True)
class When:
    """A time in UTC: exact in a pipe, short in a terminal."""

    time: Timestamp

    def __str__(self) -> str:
        return instant(self.time)

    def short(self) -> str:
        """The time of today, such as 12:00:00.250Z, or the day and the time to the second."""
        day, _, time = instant(self.time).partition("T")
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        return time if day == today else f"{day} {time[:8]}Z"


Cell = str | Text | When
_SHORT = 36  # characters of a cell; a UUID is as long

Item = TypeVar("Item", bound=Message)


class Form(enum.Enum):
    """Form of the output."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    MERMAID = "mermaid"
    """Only where there is something to draw."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Names and values, one a line."""

    fields: Sequence[tuple[str, Cell]]


@dataclass(frozen=True, slots=True)
class Rows:
    """A table with a line of headers."""

    headers: Sequence[str]
    rows: Iterable[Sequence[Cell]]
    optional: Collection[str] = ()
    """Headers of the columns that are left out where a terminal is too narrow for all."""


View = Fields | Rows


class Output:
    """Standard output in one form. Results go there; all else goes to standard error.

    Args:
        form: table, JSON or YAML. A table in a pipe is plain: tabs between the columns, no colour.
    """

    def __init__(self, form: Form, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self.form = form
        self.is_terminal = form is Form.TABLE and self._stdout.isatty()
        """Whether a person watches."""
        self.console = _console(self._stdout)
        """Standard output, for what only a terminal can show."""
        self.notes = _console(self._stderr)
        """Standard error."""

    def show(self, data: Any, *views: View) -> None:
        """Show a result: `data` (a message, or plain values) as JSON or YAML, or else the views."""
        if self.form is not Form.TABLE:
            self._document(plain(data))
            return
        for number, view in enumerate(views):
            if number:
                self.line("")
            self._view(view)

    async def stream(
        self,
        items: AsyncIterable[Item],
        headers: Sequence[str],
        row: Callable[[Item], Sequence[Cell]],
        optional: Collection[str] = (),
    ) -> None:
        """Show a list as it comes: one JSON array, one YAML list, or a table."""
        if self.form is Form.JSON:
            await _write_json_array(items, self._write)
        elif self.form is Form.YAML:
            count = 0
            async for item in items:
                self._write(_yaml([plain(item)]))
                count += 1
            self._write("" if count else "[]\n")
        elif self.is_terminal:
            self._view(Rows(headers, [row(item) async for item in items], optional))
        else:
            self.line("\t".join(headers))
            async for item in items:
                self.line(_plain_row(row(item)))

    def record(self, message: Message, line: str) -> None:
        """Show one record of an endless list at once: a line of JSON, a document of YAML, or a line of text."""
        match self.form:
            case Form.JSON:
                self.line(json.dumps(plain(message), ensure_ascii=False))
            case Form.YAML:
                self._write("---\n" + _yaml(plain(message)))
            case Form.TABLE:
                self.line(line)
        self._stdout.flush()

    def line(self, text: str) -> None:
        """Write one plain line."""
        self._write(text + "\n")

    def note(self, text: str) -> None:
        """Tell a person something beside the result, on standard error."""
        self.notes.print(Text(text), soft_wrap=True)

    def _document(self, data: Any) -> None:
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n" if self.form is Form.JSON else _yaml(data)
        self._write(text)

    def _view(self, view: View) -> None:
        if self.is_terminal:
            self.console.print(_grid(view) if isinstance(view, Fields) else _table(view, self.console.width))
        elif isinstance(view, Fields):
            for name, value in view.fields:
                self.line(f"{name}\t{value}")
        else:
            for row in [view.headers, *view.rows]:
                self.line(_plain_row(row))

    def _write(self, text: str) -> None:
        self._stdout.write(text)


def plain(data: Any) -> Any:
    """Messages as ProtoJSON, in lists and mappings too."""
    if isinstance(data, Message):
        return MessageToDict(data)
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, str) or not isinstance(data, Iterable):
        return data
    return [plain(item) for item in data]


async def _write_json_array(items: AsyncIterable[Item], write: Callable[[str], object]) -> None:
    before = "[\n"
    async for item in items:
        write(before + json.dumps(plain(item), indent=2, ensure_ascii=False))
        before = ",\n"
    write("\n]\n" if before == ",\n" else "[]\n")


def _yaml(data: Any) -> str:
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    return text


def _plain_row(row: Sequence[Cell]) -> str:
    return "\t".join(str(cell) for cell in row)


def _grid(view: Fields) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in view.fields:
        grid.add_row(Text(name, "dim"), _rich(value))
    return grid


def _table(view: Rows, width: int) -> Table:
    columns = [[Text(header), *cells] for header, cells in _columns(view)]
    widths = [max(map(len, column)) for column in columns]
    if sum(widths) + 2 * len(columns) > width:
        shown = [index for index, header in enumerate(view.headers) if header not in view.optional]
    else:
        shown = list(range(len(columns)))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index in shown:
        # What is short stays whole where the terminal is narrow; what is long gives way.
        table.add_column(columns[index][0], overflow="fold", no_wrap=widths[index] <= _SHORT)
    for row in zip(*(columns[index][1:] for index in shown), strict=True):
        table.add_row(*row)
    return table


def _columns(view: Rows) -> list[tuple[str, list[Text]]]:
    rows = [[_rich(cell) for cell in row] for row in view.rows]
    return [(header, [row[index] for row in rows]) for index, header in enumerate(view.headers)]


def _rich(cell: Cell) -> Text:
    if isinstance(cell, When):
        return Text(cell.short())
    return cell if isinstance(cell, Text) else Text(cell)


def _console(stream: TextIO) -> Console:
    # Whether it is a terminal decides alone, so that no setting brings colours into a pipe; rich honours NO_COLOR.
    return Console(file=stream, force_terminal=stream.isatty(), highlight=False, markup=False, emoji=False)
