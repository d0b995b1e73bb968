import inspect

import pytest
import uvicorn
from asgiref.compatibility import is_double_callable

from headrace.middleware import BaseMiddleware, Stage


async def endpoint(scope, receive, send):
    return scope, receive, send


async def receive():
    raise AssertionError("nobody reads here")


async def send(message):
    raise AssertionError("nobody writes here")


class Adding(BaseMiddleware):
    """A middleware as people write them."""

    async def __call__(self, scope, receive, send):
        scope["added"] = scope.get("added", 0) + 1
        return await super().__call__(scope, receive, send)


class Waiting(BaseMiddleware):
    """A stage that has something to wait for."""

    async def enter(self, scope, receive, send):
        scope["waited"] = True
        return self.inner, scope, receive, send


def frames(coroutine):
    """The coroutines that wait for one another, from the outermost on."""
    while inspect.iscoroutine(coroutine):
        yield coroutine
        coroutine = coroutine.cr_await


async def test_it_hands_on_what_it_was_given_and_returns_the_result():
    scope = {"type": "websocket"}
    assert await BaseMiddleware(endpoint)(scope, receive, send) == (scope, receive, send)


async def test_the_application_behind_it_has_a_scope_of_its_own():
    async def scribble(scope, receive, send):
        scope["user"] = "somebody else"
        return scope

    scope = {"type": "websocket", "user": "me"}
    result = await BaseMiddleware(scribble)(scope, receive, send)
    assert result["user"] == "somebody else"
    assert scope == {"type": "websocket", "user": "me"}


async def test_a_subclass_adds_to_the_scope_and_calls_the_base():
    scope, *_ = await BaseMiddleware(Adding(Adding(endpoint)))({}, receive, send)
    assert scope == {"added": 2}


async def test_an_overridden_call_is_never_passed_over():
    calls = []

    class Instrumented(Waiting):
        async def __call__(self, scope, receive, send):
            calls.append("in")
            try:
                return await super().__call__(scope, receive, send)
            finally:
                calls.append("out")

    scope, *_ = await BaseMiddleware(Instrumented(endpoint))({}, receive, send)
    assert scope == {"waited": True}
    assert calls == ["in", "out"]


async def test_super_can_pass_over_a_class_as_in_any_python():
    class Hasty(Waiting):
        async def __call__(self, scope, receive, send):
            return await super(Waiting, self).__call__(scope, receive, send)

    scope, *_ = await Hasty(endpoint)({}, receive, send)
    assert scope == {}


async def test_a_subclass_of_a_stage_inherits_its_step():
    class Eager(Waiting):
        pass

    scope, *_ = await BaseMiddleware(Eager(endpoint))({}, receive, send)
    assert scope == {"waited": True}


async def test_an_error_arrives_when_the_call_is_awaited():
    class Failing(BaseMiddleware):
        def enter(self, scope, receive, send):
            raise LookupError("not here")

    coroutine = Failing(endpoint)({}, receive, send)
    with pytest.raises(LookupError):
        await coroutine


async def test_however_many_stages_there_are_one_frame_waits():
    class Parked:
        def __await__(self):
            yield

    async def consumer(scope, receive, send):
        await Parked()

    application = BaseMiddleware(Waiting(BaseMiddleware(Waiting(BaseMiddleware(consumer)))))
    coroutine = application({"type": "websocket"}, receive, send)
    coroutine.send(None)
    assert [frame.cr_code.co_name for frame in frames(coroutine)] == ["__call__", "consumer"]
    waiting = coroutine.cr_frame.f_locals
    assert set(waiting) <= {"self", "scope", "receive", "send", "app", "step", "enter"}
    coroutine.close()


async def test_a_stage_must_say_where_it_leads():
    class Unfinished(Stage):
        pass

    with pytest.raises(NotImplementedError):
        await Unfinished()({}, receive, send)
    with pytest.raises(NotImplementedError):
        Unfinished().enter({}, receive, send)


@pytest.mark.parametrize("application", [BaseMiddleware(endpoint), Waiting(endpoint)])
def test_foreign_servers_take_it_for_an_asgi_3_application(application):
    assert inspect.iscoroutinefunction(application.__call__)
    assert not is_double_callable(application)
    config = uvicorn.Config(application, lifespan="off", ws="none", log_config=None)
    config.load()
    assert config.interface == "asgi3"
