"""The server of `distill view`: on this machine alone, behind a token, and nothing it sends can load anything else."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from distill.errors import DistillError, UsageError
from distill.pages import render_page
from distill.pages.charts import curves
from distill.pages.text_diff import difference
from distill.view.conditions import Condition, number_of, parse_condition, teacher_tokens
from distill.view.library import Item, Library
from distill.view.rows import Order, Query, Show, is_cut
from distill.view.shown import shown_row
from distill.view.tokens import RowTokens, Tokenizers

if TYPE_CHECKING:
    from aiohttp import web

PER_PAGE = 50
_LONGEST = 20_000  # characters of an answer in which differences are marked

_ORDERS = {
    "file": "in the order of the file",
    "longest": "longest first",
    "shortest": "shortest first",
    "lowest": "lowest number first",
    "highest": "highest number first",
}
_SHOWS = {"all": "all rows", "cut": "cut answers", "failed": "failed rows"}
_SAMPLES = {"all": "all answers", "differs": "answers that differ", "endless": "answers that did not stop"}
_SAMPLE_ORDERS = {"file": "in the order of the data", "farthest": "farthest first", "closest": "closest first"}


class Viewer:
    """The pages about a library.

    Args:
        library: what there is to look at.
        token: the first part of every path; a request without it is not answered.
        tokenizers: make rows into tokens; None: their tokens are not shown.
    """

    def __init__(self, library: Library, token: str | None = None, tokenizers: Tokenizers | None = None):
        self.library = library
        self.token = token or secrets.token_urlsafe(16)
        self.tokenizers = tokenizers

    def app(self) -> web.Application:
        """The application, to be served on this machine."""
        from aiohttp import web

        app = web.Application(middlewares=[_guard(self.token)])
        routes = {
            "": self.index,
            "run/{item}": self.run,
            "run/{item}/live": self.live,
            "rows/{item}": self.rows,
            "rows/{item}/{row}": self.row,
            "comparison/{item}": self.comparison,
        }
        for path, handler in routes.items():
            app.router.add_get(f"/{{token}}/{path}", handler)
        return app

    async def index(self, request: web.Request) -> web.Response:
        """All there is."""
        await asyncio.to_thread(self.library.refresh)
        return self._page(request, "view_index", items=self.library.items, root=str(self.library.root))

    async def run(self, request: web.Request) -> web.Response:
        """A run: its state, its losses, its files."""
        item = self._item(request, "run")
        run = await asyncio.to_thread(self.library.run, item)
        await asyncio.to_thread(self.library.refresh)
        losses = await asyncio.to_thread(run.losses)
        return self._page(request, "view_run", item=item, run=run, curve=curves(losses), parts=self.library.parts(item))

    async def live(self, request: web.Request) -> web.Response:
        """The part of a run's page that changes while it trains."""
        run = await asyncio.to_thread(self.library.run, self._item(request, "run"))
        losses = await asyncio.to_thread(run.losses)
        return self._page(request, "view_live", run=run, curve=curves(losses))

    async def rows(self, request: web.Request) -> web.Response:
        """A page of the rows of a file."""
        item = self._item(request, "rows")
        (query, words), start = _query(request.query), _number(request.query.get("start"), 0)
        file, found = await asyncio.to_thread(self._search, item, query)
        numbers = found[start : start + PER_PAGE]
        rows = [
            shown_row(number, row := file.row(number), file.line(number), row is not None and is_cut(row))
            for number in numbers
        ]
        return self._page(
            request,
            "view_rows",
            item=item,
            rows=list(enumerate(rows, start)),
            words=words,
            example="logprob < -1",
            total=len(file),
            found=len(found),
            start=start,
            per_page=PER_PAGE,
            shows=_SHOWS,
            orders=_ORDERS,
        )

    async def row(self, request: web.Request) -> web.Response:
        """One row, with the way to its neighbours among those that were found."""
        from aiohttp import web

        item = self._item(request, "rows")
        (query, words), place = _query(request.query), _number(request.match_info["row"], -1)
        file, found = await asyncio.to_thread(self._search, item, query)
        if not 0 <= place < len(found):
            raise web.HTTPNotFound(text="no such row")
        number = found[place]
        row = file.row(number)
        shown = shown_row(number, row, file.line(number), row is not None and is_cut(row))
        return self._page(
            request,
            "view_row",
            item=item,
            row=shown,
            student=await asyncio.to_thread(self._tokens, item, row),
            teacher=teacher_tokens(row or {}),
            words=words,
            place=place,
            found=len(found),
            per_page=PER_PAGE,
        )

    def _tokens(self, item: Item, row: Mapping[str, Any] | None) -> RowTokens | None:
        if self.tokenizers is None or row is None:
            return None
        return self.tokenizers.tokens(row, self.library.run_of(item))

    def _search(self, item: Item, query: Query) -> tuple[Any, Any]:
        file = self.library.rows(item)
        return file, file.find(query)

    async def comparison(self, request: web.Request) -> web.Response:
        """A comparison's answers, searched and sorted."""
        item = self._item(request, "comparison")
        found = await asyncio.to_thread(self.library.comparison, item)
        given = request.query
        text, show = given.get("text", ""), _choice(given.get("show"), _SAMPLES)
        order, start = _choice(given.get("order"), _SAMPLE_ORDERS), _number(given.get("start"), 0)
        where = parse_condition(given.get("where", ""))
        samples = [one for one in found["samples"] if _sample_fits(one, text.lower(), show, where)]
        if order != "file":
            samples.sort(key=_closeness, reverse=order == "closest")
        shown = samples[start : start + PER_PAGE]
        return self._page(
            request,
            "view_comparison",
            item=item,
            comparison=found,
            samples=[_marked(one) for one in shown],
            words={"text": text, "show": show, "where": given.get("where", ""), "order": order},
            example="chrf < 50",
            found=len(samples),
            start=start,
            per_page=PER_PAGE,
            shows=_SAMPLES,
            orders=_SAMPLE_ORDERS,
        )

    def _item(self, request: web.Request, kind: Any) -> Item:
        from aiohttp import web

        item = self.library.item(_number(request.match_info["item"], -1), kind)
        if item is None:
            raise web.HTTPNotFound(text="there is no such thing here")
        return item

    def _page(self, request: web.Request, template: str, **values: Any) -> web.Response:
        from aiohttp import web

        html = render_page(template, nonce=request["nonce"], home=f"/{self.token}/", **values)
        return web.Response(text=html, content_type="text/html")


Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]


def _guard(token: str) -> Any:
    """Answer requests to this machine's own name with the token, with headers that keep the page from anything else."""
    from aiohttp import web

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        request["nonce"] = secrets.token_urlsafe(12)
        host = (request.host or "").rpartition(":")[0] or request.host
        given = request.path.split("/")[1]
        try:
            if host not in ("127.0.0.1", "localhost") or not secrets.compare_digest(given.encode(), token.encode()):
                raise web.HTTPForbidden(text="open the address that `distill view` printed")
            answer = await handler(request)
        except web.HTTPException as error:
            answer = web.Response(text=error.text or str(error.reason), status=error.status)
        except UsageError as error:
            answer = web.Response(text="\n".join(filter(None, (error.message, error.hint))), status=400)
        except (DistillError, OSError) as error:
            answer = web.Response(text=str(error), status=500)
        answer.headers.update(_headers(request["nonce"]))
        return answer

    return guard


def _headers(nonce: str) -> Mapping[str, str]:
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _query(given: Mapping[str, str]) -> tuple[Query, dict[str, str]]:
    """What is looked for, and the words of the address that say so."""
    show, order = _choice(given.get("show"), _SHOWS), _choice(given.get("order"), _ORDERS)
    text, where = given.get("text", ""), given.get("where", "")
    query = Query(text, cast(Show, show), parse_condition(where), cast(Order, order))
    return query, {"text": text, "show": show, "where": where, "order": order}


def _choice(word: str | None, choices: Mapping[str, str]) -> str:
    return word if word is not None and word in choices else next(iter(choices))


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 12 else otherwise


def _sample_fits(sample: Mapping[str, Any], text: str, show: str, where: Condition | None) -> bool:
    students = _students(sample)
    if where is not None and not any(where.fits(number_of(one, where.name)) for one in students):
        return False
    if show == "differs" and all(one.get("exact") for one in students):
        return False
    if show == "endless" and all(one.get("stopped", True) for one in students):
        return False
    said = [sample["reference"], *(one["text"] for one in sample["answers"].values())]
    said += [one.get("content") or "" for one in sample["messages"]]
    return not text or any(text in one.lower() for one in said)


def _closeness(sample: Mapping[str, Any]) -> float:
    return float(min((one.get("chrf", -1.0) for one in _students(sample)), default=-1.0))


def _students(sample: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The answers of the students: there are several where several were compared."""
    return [one for who, one in sample["answers"].items() if who not in ("base", "prompted_base", "teacher")]


def _marked(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample with the differences of each answer from the teacher's."""
    reference = sample["reference"]
    answers = {
        who: {**one, "stretches": difference(one["text"][:_LONGEST], reference[:_LONGEST])}
        for who, one in sample["answers"].items()
    }
    return {**sample, "answers": answers}


def serve(root: Path, port: int, ready: Callable[[str], None], tokenizers: Tokenizers | None = None) -> None:
    """Serve pages about a path until Ctrl-C.

    Args:
        root: see `Library`.
        port: on this machine; 0: any that is free.
        ready: told the address.
        tokenizers: see `Viewer`.

    Raises:
        UsageError: there is nothing to look at.
        DistillError: the port is taken.
    """
    viewer = Viewer(Library(root), tokenizers=tokenizers)
    asyncio.run(_serve(viewer, port, ready))


async def _serve(viewer: Viewer, port: int, ready: Callable[[str], None]) -> None:
    from aiohttp import web

    runner = web.AppRunner(viewer.app(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        try:
            await site.start()
        except OSError as error:
            raise DistillError(
                f"port {port}: {error.strerror or error}", "choose another --port, or leave it out"
            ) from None
        ready(f"http://127.0.0.1:{runner.addresses[0][1]}/{viewer.token}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
