"""The live view of ``headrace top``, drawn by Textual.

Rules of this file:

- One task asks the server; keys change what is shown, and wait for nothing.
- A server that is gone is said to be, and is looked for until somebody quits.
- Whatever ends the view, a signal or an error of ours, leaves the terminal as it was.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.coordinate import Coordinate
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Label, OptionList, Static
from textual.widgets.option_list import Option

from ..exceptions import ControlError
from ..figures import Figures, Meter
from ..server import control
from ..server.desk import ORDERS
from .words import (
    CONNECTIONS,
    GROUPS,
    HANDLERS,
    SHOWN,
    WORKERS,
    Table,
    clean,
    named,
    summary,
    title,
    with_age,
)

__all__ = ["Top", "watch"]

#: An answer that takes longer says that there is none.
TIMEOUT_S = 5.0

_HELP = """\
headrace top

  s  S    sort the connections by the next column, the one before
  r       the other way round
  p       pause, and go on
  tab     the next table; arrows and page keys move in it
  ?       this help
  q       quit (so does Ctrl-C)

Lag is how late the event loop came to a timer: the longest of the last seconds.
A rate is of the time since the last look. A dash is what the server does not say.

Any key goes back."""


class Help(ModalScreen[None]):
    """What the keys do."""

    def compose(self) -> ComposeResult:
        """Show the text."""
        yield Static(_HELP, id="help", markup=False)

    def on_key(self, event: Any) -> None:
        """Go back."""
        event.stop()
        self.dismiss()


class Choice(ModalScreen[str]):
    """Which of several servers."""

    BINDINGS: ClassVar[list[BindingType]] = [("q", "app.quit", "Quit")]

    def __init__(self, servers: Sequence[str]) -> None:
        super().__init__()
        self._servers = servers

    def compose(self) -> ComposeResult:
        """List them."""
        with Vertical(id="choice"):
            yield Label("Several servers of yours run. Which one?")
            yield OptionList(
                *(Option(clean(path), id=str(i)) for i, path in enumerate(self._servers))
            )

    async def on_mount(self) -> None:
        """Ask each what it is, for paths say little."""
        options = self.query_one(OptionList)
        options.focus()
        for number, path in enumerate(self._servers):
            with contextlib.suppress(ControlError):
                link = await control.connect(path)
                try:
                    answer = await link.ask("snapshot", timeout_s=1.0)
                finally:
                    link.close()
                figures = Meter().take(answer, at=time.time(), clock_s=0.0)
                options.replace_option_prompt(
                    str(number), f"{Path(path).stem:>8}  {title(figures)}"
                )

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Take it."""
        self.dismiss(self._servers[int(event.option.id or 0)])


class Places:
    """The widgets of the view: held here, for a search looks in the foremost screen alone."""

    def __init__(self) -> None:
        self.title = Static("headrace", id="title", markup=False)
        self.state = Static("connecting …", id="state", markup=False)
        self.summary = Static("", id="summary", markup=False)
        self.workers = _widget("workers", WORKERS)
        self.connections = _widget("connections", CONNECTIONS)
        self.groups = _widget("groups", GROUPS)
        self.handlers = _widget("handlers", HANDLERS)


class Top(App[int]):
    """A running server."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #title { height: 1; text-style: bold; padding: 0 1; }
    #state { height: 1; padding: 0 1; }
    #state.trouble { text-style: reverse; }
    #summary { height: auto; padding: 0 1 1 1; }
    DataTable { height: 1fr; border: round $secondary; background: $background; }
    DataTable:focus { border: round $accent; }
    #workers { height: auto; max-height: 30%; }
    #lower { height: 30%; }
    #lower DataTable { width: 1fr; height: 1fr; }
    Help, Choice { align: center middle; }
    #help, #choice { width: auto; max-width: 95%; height: auto; max-height: 90%; padding: 1 2;
                     border: round $accent; background: $surface; }
    #choice OptionList { width: 90; max-width: 100%; height: auto; max-height: 20; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
        Binding("p,space", "pause", "Pause", key_display="p"),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", "Sort back", show=False),
        Binding("r", "reverse", "Reverse"),
        Binding("question_mark,h", "help", "Help", key_display="?"),
    ]

    def __init__(self, servers: Sequence[str], interval_s: float) -> None:
        super().__init__()
        self._servers = servers
        self._path: str | None = servers[0] if len(servers) == 1 else None
        self._interval_s = interval_s
        self._orders = [column.order for column in CONNECTIONS.columns if column.order]
        self._order = "since"
        self._descending = True
        self._paused = False
        self._rows: list[dict[str, Any]] = []
        self._meter = Meter()
        self._link: control.Link | None = None
        self._places = Places()

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield self._places.title
        yield self._places.state
        yield self._places.summary
        yield self._places.workers
        yield self._places.connections
        with Horizontal(id="lower"):
            yield self._places.groups
            yield self._places.handlers
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(each, self.exit, 128 + each)
        for widget, table in (
            (self._places.workers, WORKERS),
            (self._places.connections, CONNECTIONS),
            (self._places.groups, GROUPS),
            (self._places.handlers, HANDLERS),
        ):
            for column in table.columns:
                head = Text(column.head, justify="right" if column.is_number else "left")
                widget.add_column(head, key=column.head)
        self._places.connections.focus()
        self._show_order()
        if self._path is None:
            self.push_screen(Choice(self._servers), self._chosen)
        else:
            self.run_worker(self._read(), name="read")

    def _chosen(self, path: str | None) -> None:
        self._path = path
        self.run_worker(self._read(), name="read")

    async def _read(self) -> None:
        try:
            while True:
                if not self._paused:
                    try:
                        await self._look()
                    except ControlError as error:
                        self._say(f"{error}; trying again", trouble=True)
                await asyncio.sleep(self._interval_s)
        finally:
            if self._link is not None:
                self._link.close()

    async def _look(self) -> None:
        if self._link is None or not self._link.is_open:
            self._link = await control.connect(self._path)
            self._meter = Meter()
        answer = await self._link.ask("snapshot", timeout_s=TIMEOUT_S)
        figures = self._meter.take(answer, at=time.time(), clock_s=time.monotonic())
        listed = await self._link.ask(
            "connections", timeout_s=TIMEOUT_S, limit=SHOWN, order=self._asked_order
        )
        if self._paused:
            return
        self._rows = with_age(listed, figures.at)
        self._show(figures)

    @property
    def _asked_order(self) -> str:
        """What the server lists the first of, where it has more than are shown."""
        if self._order == "since" and not self._descending:
            return "newest"
        return self._order if self._order in ORDERS else "since"

    def _show(self, figures: Figures) -> None:
        self._places.title.update(title(figures))
        self._say(f"live, every {self._interval_s:g} s")
        self._places.summary.update("\n".join(named(row) for row in summary(figures)))
        _fill(self._places.workers, WORKERS, figures.workers)
        _fill(self._places.groups, GROUPS, figures.groups)
        _fill(self._places.handlers, HANDLERS, figures.handlers)
        self._show_connections()

    def _show_connections(self) -> None:
        valued = [row for row in self._rows if row.get(self._order) is not None]
        # The youngest has the largest ``since``: by age, the oldest comes first.
        descending = self._descending != (self._order == "since")
        valued.sort(key=lambda row: row[self._order], reverse=descending)
        rest = [row for row in self._rows if row.get(self._order) is None]
        _fill(self._places.connections, CONNECTIONS, [*valued, *rest])

    def _say(self, text: str, *, trouble: bool = False) -> None:
        self._places.state.update(clean(text))
        self._places.state.set_class(trouble, "trouble")

    def _show_order(self) -> None:
        head = next(each.head for each in CONNECTIONS.columns if each.order == self._order)
        arrow = "▼" if self._descending else "▲"
        self._places.connections.border_title = f"{CONNECTIONS.name}, by {head} {arrow}"

    # Keys

    def action_pause(self) -> None:
        """Hold still, or go on."""
        self._paused = not self._paused
        self._say("paused: p goes on" if self._paused else "going on …")

    def action_sort(self, step: int) -> None:
        """Sort the connections by another column."""
        place = self._orders.index(self._order) + step
        self._order = self._orders[place % len(self._orders)]
        self._show_order()
        self._show_connections()

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._descending = not self._descending
        self._show_order()
        self._show_connections()

    def action_help(self) -> None:
        """Say what the keys do."""
        self.push_screen(Help())


def _widget(identity: str, table: Table) -> DataTable[Text]:
    """Return the widget of a table, without rows."""
    widget: DataTable[Text] = DataTable(id=identity, cursor_type="row", zebra_stripes=True)
    widget.border_title = table.name
    return widget


def _fill(widget: DataTable[Text], table: Table, rows: Sequence[Any]) -> None:
    """Write rows where others stand: what somebody looks at stays where it is."""
    while widget.row_count > len(rows):
        last = widget.coordinate_to_cell_key(Coordinate(widget.row_count - 1, 0))
        widget.remove_row(last.row_key)
    for number, row in enumerate(rows):
        cells = [
            Text(text, justify="right" if column.is_number else "left")
            for column, text in zip(table.columns, table.cells(row), strict=True)
        ]
        if number == widget.row_count:
            widget.add_row(*cells)
            continue
        for place, cell in enumerate(cells):
            at = Coordinate(number, place)
            if widget.get_cell_at(at) != cell:
                widget.update_cell_at(at, cell, update_width=True)


def watch(servers: Sequence[str], interval_s: float) -> int:
    """Show one of these servers until somebody quits; return the exit status."""
    app = Top(servers, interval_s)
    status = app.run()
    return app.return_code or status or 0
