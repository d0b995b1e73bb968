"""What Channels 4 doesn't run any more, and Headrace doesn't either: remarks, no changes."""

import libcst as cst

from .module import Module, dotted

__all__ = ["remark_idioms"]

_ROUTES = frozenset({"path", "re_path", "url"})
_SETTINGS = {
    "DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE": "--websocket-max-message-size",
    "DAPHNE_WEBSOCKET_MAX_FRAME_SIZE": "--websocket-max-frame-size",
}


def remark_idioms(module: Module, *, name: str = "") -> None:
    """Remark upon routes to bare consumers, routers without HTTP, and Daphne's settings."""
    for call in module.all(cst.Call):
        function = dotted(call.func).rpartition(".")[2]
        if function in _ROUTES and len(call.args) > 1:
            _route(module, call)
        elif function == "ProtocolTypeRouter" and name in ("asgi.py", "routing.py"):
            _protocols(module, call)
    for target in module.all(cst.AssignTarget):
        option = _SETTINGS.get(dotted(target.target))
        if option is not None:
            module.remark(
                target, f"{dotted(target.target)} is the option {option} of headrace serve"
            )


def _route(module: Module, call: cst.Call) -> None:
    consumer = dotted(call.args[1].value)
    if consumer.endswith("Consumer"):
        module.remark(
            call.args[1],
            f"a route to {consumer} itself is of Channels 2: write {consumer}.as_asgi()",
        )


def _protocols(module: Module, call: cst.Call) -> None:
    table = call.args[0].value if call.args else None
    if not isinstance(table, cst.Dict):
        return
    keys = {
        element.key.raw_value
        for element in table.elements
        if isinstance(element, cst.DictElement) and isinstance(element.key, cst.SimpleString)
    }
    if "websocket" in keys and "http" not in keys and len(keys) == len(table.elements):
        module.remark(
            call,
            'this router has no "http": since Channels 3 pages need '
            '"http": get_asgi_application() of django.core.asgi',
        )
