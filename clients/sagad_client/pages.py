"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page of a list."""

    items: Sequence[Item]
    """The items of the page."""
    next_page_token: str
    """Token of the next page; empty on the last one."""


class Pages(Generic[Item]):
    """A list on the server, read page by page as it is iterated over.

    `async for item in pages` gives the items, `async for page in pages.pages()` the pages, and `await pages.page()`
    the first page alone, whose `next_page_token` goes on later.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[Page[Item]]], page_token: str = "") -> None:
        self._fetch = fetch
        self._page_token = page_token

    async def page(self) -> Page[Item]:
        """The first page. Raises SagadError."""
        return await self._fetch(self._page_token)

    async def pages(self) -> AsyncIterator[Page[Item]]:
        """The pages, one after the other. Raises SagadError."""
        page = await self.page()
        yield page
        while page.next_page_token:
            page = await self._fetch(page.next_page_token)
            yield page

    async def __aiter__(self) -> AsyncIterator[Item]:
        async for page in self.pages():
            for item in page.items:
                yield item
