"""All that this process has to do with Redis, on the event loop of one thread of its own.

Rules of this file:

- What may be called on any thread says so. The rest is called on the network's loop, and awaits
  nothing between looking and acting.
- A tag has one node, for senders and for listeners: by ``shard_of`` among independent servers,
  by the map of its slots in a cluster. What is for a tag whose node is not known waits.
- Every order has a deadline from the moment it is given, wherever it waits.
"""

import asyncio
import contextlib
import dataclasses
import functools
import inspect
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from ...exceptions import ChannelFull, ChannelLayerUnavailable, InvalidChannelLayerError
from .arrivals import Arrivals
from .client import Unreachable, Wire
from .config import Cluster, Endpoint, Hook, Host, SentinelSet
from .envelopes import Envelopes
from .lane import Lane, delays
from .names import Names, shard_of, tag_of
from .orders import Order, Redirection, Sender, unavailable
from .subscription import Subscription
from .thread import Answer, LoopThread, Tell
from .topology import Address, SlotMap, address_of, ask_cluster, locate

__all__ = ["Application", "Network", "Plan"]

logger = logging.getLogger("headrace.layers.redis")

#: How much may wait for Redis, in bytes.
_WAITING_BYTES = 64 << 20
#: How often a cluster is asked at most, while its answers are of no use.
_LOOK_S = 0.2
#: Of names that a server refuses, one is logged in so many seconds.
_REFUSALS_S = 30.0
#: How many primaries of one set of servers are listened to, former ones among them.
_PRIMARIES = 3
#: What a forked child has inherited and can't use.
_left_behind: "list[Network]" = []


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the CONFIG says to the network."""

    hosts: tuple[Host, ...]
    names: Names
    keys: tuple[bytes, ...] = ()
    expiry_s: float = 60
    #: How long a sender waits for Redis.
    patience_s: float = 5.0
    on_disconnect: Hook | None = None
    on_reconnect: Hook | None = None

    @property
    def cluster(self) -> Cluster | None:
        """Return the cluster, if it is one."""
        return self.hosts[0] if isinstance(self.hosts[0], Cluster) else None

    def reply_timeout_s(self, host: Host) -> float:
        """Return how long an answer may take: short enough to ask once more in time."""
        return _options(host).option("socket_timeout", self.patience_s / 2)

    def interval_s(self, host: Host) -> float:
        """Return how long a connection may be silent before it is asked."""
        return _options(host).option("health_check_interval", 10.0)


def _options(host: Host) -> Endpoint:
    if isinstance(host, SentinelSet):
        return host.primary
    return host.nodes[0] if isinstance(host, Cluster) else host


class Application(Protocol):
    """Who the network is for. Called on the network's loop unless it says otherwise."""

    def home(self) -> asyncio.AbstractEventLoop | None:
        """Return the loop on which frames are to be taken; None: any."""

    def take(self, frames: list[bytes]) -> None:
        """Take frames from other processes. Called on that loop."""

    def has_members(self, group: str) -> bool:
        """Tell whether the group has members here."""

    def woken(self, channel: str) -> None:
        """Take note: there is something in the queue of a named channel."""

    def missed(self, groups: list[str] | None, reason: str) -> None:
        """Take note: something of these groups (None: of any channel) may have been missed."""

    def undecodable(self, reason: str) -> None:
        """Take note: something has come that is none of ours."""

    def count(self, name: str) -> None:
        """Count something."""


class Node:
    """One server, or the primary that Sentinels know: a lane to it, and what is heard from it.

    When the Sentinels name another primary, it is listened to as well as the former one, for as
    long as that lives: other processes may move later, and publish there until then.
    """

    def __init__(self, network: "Network", host: Endpoint | SentinelSet, label: str) -> None:
        plan = network.plan
        self._network = network
        self._host = host
        #: For people: where the server is, and the setting that says so.
        self.label = label
        self._mode = "cluster" if plan.cluster is not None else "standalone"
        self._was_lost = False
        self._next_refusal_logged = 0.0
        setting = plan.cluster or host
        self._interval_s = plan.interval_s(setting)
        self._reply_timeout_s = plan.reply_timeout_s(setting)
        self.lane = Lane(
            self._dial,
            network.new_sender(),
            reply_timeout_s=self._reply_timeout_s,
            patience_s=plan.patience_s,
            redirect=network.redirect,
            failed=self.failed,
        )
        #: With the tasks that run them, those of former primaries first.
        self._subscriptions: dict[Subscription, asyncio.Task[None]] = {}
        self.subscription = self._subscribe({})
        self._tasks = [network.supervise(self.lane.run, f"lane to {label}")]
        if isinstance(host, SentinelSet):
            follow = functools.partial(self._follow, host)
            self._tasks.append(network.supervise(follow, f"primary of {label}"))

    def close(self) -> None:
        """Have nothing to do with the server any more."""
        for task in (*self._tasks, *self._subscriptions.values()):
            task.cancel()

    async def _dial(self) -> Wire:
        wire = Wire(await locate(self._host), self._mode)
        await wire.open()
        self._network.wires.add(wire)
        # One connection has been made: so can the other be.
        self.lane.hurry()
        self.subscription.hurry()
        return wire

    def _subscribe(self, missed: Mapping[str, str]) -> Subscription:
        subscription = Subscription(
            self._dial,
            self,
            sharded=self._mode == "cluster",
            interval_s=self._interval_s,
            reply_timeout_s=self._reply_timeout_s,
            missed=missed,
        )
        task = self._network.supervise(subscription.run, f"subscription to {self.label}")
        self._subscriptions[subscription] = task
        return subscription

    async def _follow(self, host: SentinelSet) -> None:
        """See that the primary is the one that the Sentinels name."""
        while True:
            await asyncio.sleep(self._interval_s)
            here = self.subscription.endpoint
            if here is None:
                continue  # it will ask when it connects
            with contextlib.suppress(Unreachable, InvalidChannelLayerError):
                if address_of(await locate(host)) != address_of(here):
                    self._move()

    def _move(self) -> None:
        former = self.subscription
        if former.endpoint is None:
            return
        logger.info("%s: there is another primary", self.label)
        former.former = True
        missed = dict.fromkeys(former.heard, "there is another primary") | former.missed
        self.subscription = self._subscribe(missed)
        for name in former.wanted - missed.keys():
            self.subscription.want(name)
        self.lane.move()
        for oldest in list(self._subscriptions)[:-_PRIMARIES]:
            self._subscriptions[oldest].cancel()
            self._forget(oldest)

    # What is to be heard

    def want(self, name: str, missed: str | None = None) -> None:
        """Listen to the name; ``missed`` says why something there may have been missed."""
        for subscription in self._subscriptions:
            subscription.want(name, missed if subscription is self.subscription else None)

    def drop(self, name: str) -> str | None:
        """Listen to the name no more; return why something may have been missed, if so."""
        reasons = [subscription.drop(name) for subscription in self._subscriptions]
        return reasons[-1]

    # The listener of its subscriptions

    async def room(self) -> None:
        """See ``Listener``."""
        arrivals = self._network.arrivals
        if arrivals.crowded:
            await arrivals.room()

    def message(self, name: str, data: bytes) -> None:
        """See ``Listener``."""
        self._network.message(name, data)

    def heard(self, subscription: Subscription, name: str) -> None:
        """See ``Listener``."""
        del subscription
        if all(name in each.heard for each in self._subscriptions):
            self._network.note_heard(name)

    def unheard(self, subscription: Subscription, name: str) -> None:
        """See ``Listener``."""
        if subscription in self._subscriptions:
            self._network.heard.discard(name)

    def refused(self, name: str, error: Exception) -> None:
        """See ``Listener``."""
        now = time.monotonic()
        if now >= self._next_refusal_logged:
            self._next_refusal_logged = now + _REFUSALS_S
            logger.error("what is published to %s is not heard: %s", name, error)
        self._network.settle_waiters(name, error)

    def moved(self) -> None:
        """See ``Listener``."""
        self._network.look_again()

    def lost(self, subscription: Subscription, reason: str) -> None:
        """See ``Listener``."""
        network = self._network
        if subscription.former:
            self._forget(subscription)
            return
        if not self._was_lost:
            self._was_lost = True
            network.application.count("disconnects")
            logger.warning("the connection to Redis is lost: %s", reason)
            network.call_hook(network.plan.on_disconnect, "on_disconnect", self.label)
        network.look_again()

    def _forget(self, former: Subscription) -> None:
        del self._subscriptions[former]
        current = self.subscription
        current.miss(
            {*former.heard, *former.missed}, "the connection to a former primary has ended"
        )
        for name in list(current.heard):
            if name not in self._network.heard:
                self.heard(current, name)

    def back(self, names: list[str], reason: str) -> None:
        """See ``Listener``."""
        network = self._network
        if self._was_lost:
            self._was_lost = False
            network.application.count("reconnects")
            logger.info("the connection to %s is there again", self.label)
            network.call_hook(network.plan.on_reconnect, "on_reconnect", self.label)
        network.note_missed(names, f"{reason} ({self.label})")

    def failed(self, error: Exception) -> None:
        """See ``Listener``."""
        self._network.note_problem(error)
        self._network.look_again()


class Network:
    """The connections of one layer in this process, from when it is made until ``stop``.

    Args:
        plan: What the CONFIG says.
        process: The id of this process.
        envelopes: Of this process.
        new_sender: Makes a sender for each server.
        application: Who it is for.
    """

    def __init__(
        self,
        plan: Plan,
        process: str,
        envelopes: Envelopes,
        new_sender: Callable[[], Sender],
        application: Application,
    ) -> None:
        self.plan = plan
        self.application = application
        self._process = process
        self._envelopes = envelopes
        self.new_sender = new_sender
        names = plan.names
        self._own = frozenset({names.process(process), names.everyone()})
        #: The names that are heard now. Any thread may look.
        self.heard: set[str] = set()
        #: Groups whose state is to be looked at. Any thread may add one.
        self._unsettled: set[str] = set()
        #: Bytes that wait for Redis. Any thread may look.
        self._held = 0
        #: Why the last connection could not be made.
        self.problem: Exception | None = None
        self._nodes: dict[Address | int, Node] = {}
        self._slots = SlotMap(plan.cluster) if plan.cluster is not None else None
        self._homeless: deque[Order] = deque()
        #: Where each name is listened to.
        self._places: dict[str, Node | None] = {}
        self._waiters: dict[str, list[Tell]] = {}
        self._own_was_heard = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._look_asked = asyncio.Event()
        self.wires: weakref.WeakSet[Wire] = weakref.WeakSet()
        self.arrivals: Arrivals
        self.thread = LoopThread(self._live, f"headrace redis {process[:4]}")
        self.thread.start()

    # Its life

    async def _live(self) -> None:
        application = self.application
        self.arrivals = Arrivals(
            self._envelopes,
            home=application.home,
            take=application.take,
            undecodable=application.undecodable,
        )
        if self._slots is None:
            for index, host in enumerate(self.plan.hosts):
                assert not isinstance(host, Cluster)
                self._nodes[index] = Node(self, host, f"{host} ({host.setting})")
        else:
            self.look_again()
            self.supervise(self._look, "slots")
        self.thread.take_calls()
        try:
            await asyncio.Event().wait()
        finally:
            self.thread.over = True
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self.arrivals.hand_over()
            self._give_up()

    def _give_up(self) -> None:
        """Tell everybody who waits that it is over."""
        closed = _closed()
        orders = [*self._homeless]
        for node in self._nodes.values():
            orders += node.lane.take_back()
        for order in orders:
            if order.done is not None:
                order.done(None, closed)
        for name in list(self._waiters):
            self.settle_waiters(name, closed)
        self.heard.clear()

    @property
    def alive(self) -> bool:
        """Whether it can be used, in this process. Any thread."""
        return self.thread.alive

    def stop(self) -> None:
        """Close the connections, soon. Any thread."""
        self.thread.stop()

    def abandon(self) -> None:
        """Let go, in a forked child, of what the parent has."""
        # Not even as garbage may its loop be closed here: it has descriptors that are the
        # parent's as well.
        _left_behind.append(self)
        for wire in list(self.wires):
            wire.abandon()

    def start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a part of the network until it stops."""
        task = asyncio.get_running_loop().create_task(coroutine, name=f"headrace redis {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def supervise(
        self, run: Callable[[], Coroutine[Any, Any, None]], name: str
    ) -> asyncio.Task[None]:
        """Run a part of the network until it stops, or returns; begin anew when it fails."""
        return self.start(self._keep_running(run, name), name)

    async def _keep_running(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        for pause_s in delays():
            await asyncio.sleep(pause_s)
            try:
                return await run()
            except Exception:
                # Nobody has thought of it, and everybody depends on it.
                logger.exception("%s has failed, and begins anew", name)
        return None

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s has failed", task.get_name(), exc_info=error)

    def note_problem(self, error: Exception) -> None:
        """Take note of why a connection can't be made."""
        if type(error) is not type(self.problem):
            logger.warning("no connection: %s", error)
        self.problem = error
        if isinstance(error, InvalidChannelLayerError):
            # Nothing gets better by waiting.
            for name in list(self._waiters):
                self.settle_waiters(name, error)

    def call_hook(self, hook: Hook | None, setting: str, label: str) -> None:
        """Call a function of the project's."""
        if hook is not None:
            self.start(_call(hook, setting, label), setting)

    # Orders

    def submit(self, order: Order) -> asyncio.Future[Any]:
        """Have the order carried out; the future is of the caller's loop. Any thread with a loop.

        Raises ChannelFull when too much waits for Redis already.
        """
        if self._held and self._held + order.weight > _WAITING_BYTES:
            raise ChannelFull(
                f"{self._held} bytes wait for Redis ({self.problem or 'it is slow'}): send less"
            )
        return self._ask(self.carry_out, order)

    def _ask(self, function: Callable[..., None], *args: Any) -> asyncio.Future[Any]:
        answer = Answer(self.thread)
        if not self.thread.call(function, *args, answer):
            answer.future.set_exception(_closed())
        return answer.future

    def carry_out(self, order: Order, tell: Tell) -> None:
        """Have the order carried out, and tell what came of it."""
        if self.thread.over:
            tell(None, _closed())
            return
        self._held += order.weight
        timer = asyncio.get_running_loop().call_later(self.plan.patience_s, self._too_late, order)

        def done(result: Any, error: BaseException | None) -> None:
            order.done = None
            self._held -= order.weight
            timer.cancel()
            tell(result, error)

        order.done = done
        self._place(order)

    def _too_late(self, order: Order) -> None:
        node = self._node_of(order.tag)
        problem = (node.lane.problem if node is not None else None) or self.problem
        order.done(None, unavailable(order, problem, self.plan.patience_s))

    def _place(self, order: Order) -> None:
        node = self._node_of(order.tag)
        if node is not None:
            node.lane.add(order)
            return
        self._homeless.append(order)
        self.look_again()

    # Where things are

    def _node_of(self, tag: str) -> Node | None:
        if self._slots is None:
            return self._nodes[shard_of(tag, len(self.plan.hosts))]
        endpoint = self._slots.node_of(tag)
        return None if endpoint is None else self._node_at(endpoint)

    def _node_at(self, endpoint: Endpoint) -> Node:
        node = self._nodes.get(address_of(endpoint))
        if node is None:
            label = f"{endpoint} ({self.plan.hosts[0].setting})"
            node = self._nodes[address_of(endpoint)] = Node(self, endpoint, label)
        return node

    def redirect(self, order: Order, redirection: Redirection) -> None:
        """Let another node of the cluster carry the order out."""
        if self._slots is None:
            order.done(None, ChannelLayerUnavailable("a node of a cluster answers: see hosts"))
            return
        slot, host, port, order.asking = redirection
        if not order.asking:
            self._slots.moved(slot, host, port)
            self.look_again()
        self._node_at(self._slots.node_at(host, port)).lane.add(order)

    def look_again(self) -> None:
        """Ask the cluster, soon, who has what. Nothing to do where there is none."""
        self._look_asked.set()

    async def _look(self) -> None:
        cluster, slots = self.plan.cluster, self._slots
        assert cluster is not None
        assert slots is not None
        while True:
            await self._look_asked.wait()
            self._look_asked.clear()
            try:
                await ask_cluster(cluster, slots, self.plan.reply_timeout_s(cluster))
            except (Unreachable, InvalidChannelLayerError) as error:
                self.note_problem(error)
                self._refuse_homeless(error)
                self._look_asked.set()
            else:
                self._move_in()
            await asyncio.sleep(_LOOK_S)

    def _refuse_homeless(self, error: Exception) -> None:
        if isinstance(error, InvalidChannelLayerError):
            for order in self._homeless:
                if order.done is not None:
                    order.done(None, error)
        self._homeless = deque(order for order in self._homeless if order.done is not None)

    def _move_in(self) -> None:
        """Have everything where the map says that it is."""
        assert self._slots is not None
        orders = [*self._homeless]
        self._homeless.clear()
        for node in list(self._nodes.values()):
            for order in node.lane.take_back():
                gone = self._node_of(order.tag) is not node
                if order.done is not None and order.uncertain and order.once and gone:
                    order.done(None, unavailable(order, "its node is gone", self.plan.patience_s))
                order.asking = False
                orders.append(order)
        for order in orders:
            if order.done is not None:
                self._place(order)
        for name, old in list(self._places.items()):
            new = self._node_of(tag_of(name))
            if new is not old:
                self._places[name] = new
                missed = old.drop(name) if old is not None else None
                if new is not None:
                    new.want(name, missed)
        in_use = {address_of(endpoint) for endpoint in self._slots.nodes()}
        for address in [address for address in self._nodes if address not in in_use]:
            self._nodes.pop(address).close()

    # What is heard

    def message(self, name: str, data: bytes) -> None:
        """Take what was published."""
        if data:
            self.arrivals.add(data)
        else:
            self.application.woken(tag_of(name))

    def want(self, name: str) -> None:
        """Listen to a name."""
        if name not in self._places:
            node = self._places[name] = self._node_of(tag_of(name))
            if node is not None:
                node.want(name)

    def drop(self, name: str) -> None:
        """Listen to a name no more."""
        node = self._places.pop(name, None)
        if node is not None:
            node.drop(name)
        self.settle_waiters(name, None)

    def note_interest(self, group: str) -> None:
        """Take note that a group has its first member here, or none any more. Any thread."""
        self._unsettled.add(group)
        self.thread.call(self._look_at, group)

    def _look_at(self, group: str) -> None:
        if self.thread.over:
            return
        # In this order: whoever changes it from now on, says so once more.
        self._unsettled.discard(group)
        name = self.plan.names.group(group)
        if self.application.has_members(group):
            self.want(name)
        else:
            self.drop(name)

    def hears(self, group: str) -> bool:
        """Tell whether what is published to the group comes here. Any thread."""
        return self.plan.names.group(group) in self.heard and group not in self._unsettled

    def group_heard(self, group: str) -> asyncio.Future[None]:
        """Wait until what is published to the group comes here. Any thread with a loop."""
        return self._ask(self.await_name, self.plan.names.group(group))

    @property
    def listens(self) -> bool:
        """Whether what is sent to this process comes here. Any thread."""
        return self._own <= self.heard

    def listening(self) -> asyncio.Future[None]:
        """Wait until what is sent to this process comes here. Any thread with a loop."""
        return self._ask(self._await_own)

    def _await_own(self, answer: Tell) -> None:
        if self.thread.over:
            answer(None, _closed())
            return
        if self._own_was_heard:
            # The connection is being made again. Whoever is here by then will be told that
            # something may have been missed.
            answer(None, None)
            return
        for name in sorted(self._own):
            self.want(name)
        self.await_name(self.plan.names.process(self._process), answer)

    def await_name(self, name: str, tell: Tell) -> None:
        """Tell when the name is heard, or not wanted any more."""
        if self.thread.over:
            tell(None, _closed())
            return
        if name in self.heard or name not in self._places:
            tell(None, None)
            return
        waiters = self._waiters.setdefault(name, [])
        timer = asyncio.get_running_loop().call_later(
            self.plan.patience_s, self._no_longer, name, tell
        )

        def settle(result: Any, error: BaseException | None) -> None:
            timer.cancel()
            tell(result, error)

        waiters.append(settle)

    def _no_longer(self, name: str, tell: Tell) -> None:
        if isinstance(self.problem, InvalidChannelLayerError):
            tell(None, self.problem)
            return
        tell(
            None,
            ChannelLayerUnavailable(
                f"Redis can't be reached ({self.problem or 'no answer'}); waited "
                f"{self.plan.patience_s:g} s for it to listen to {name}. Is the server up? "
                "See hosts and send_timeout in the CONFIG of CHANNEL_LAYERS"
            ),
        )

    def note_heard(self, name: str) -> None:
        """Take note: what is published there from now on comes here."""
        self.heard.add(name)
        self._own_was_heard = self._own_was_heard or self._own <= self.heard
        self.problem = None
        self.settle_waiters(name, None)

    def settle_waiters(self, name: str, error: Exception | None) -> None:
        """Tell those who wait for the name."""
        for tell in self._waiters.pop(name, ()):
            tell(None, error)

    def note_missed(self, names: list[str], reason: str) -> None:
        """Take note: what was published there may have been missed."""
        prefix = self.plan.names.group("")[:-2]
        groups = [tag_of(name) for name in names if name.startswith(prefix)]
        others = [tag_of(name) for name in names if not name.startswith(prefix)]
        # Hand over first what came before.
        self.arrivals.hand_over()
        if not self._own.isdisjoint(names):
            self.application.missed(None, reason)
        elif groups:
            self.application.missed(groups, reason)
        for channel in others:
            self.application.woken(channel)


def _closed() -> ChannelLayerUnavailable:
    return ChannelLayerUnavailable("the channel layer was closed meanwhile")


async def _call(hook: Callable[[str], object], setting: str, label: str) -> None:
    try:
        outcome = hook(label)
        if inspect.isawaitable(outcome):
            await outcome
    except Exception:
        logger.exception("%s of the channel layer failed", setting)
