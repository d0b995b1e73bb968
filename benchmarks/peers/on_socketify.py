"""uWebSockets through socketify: its own publish and subscribe."""

import sys

from socketify import App, OpCode


def echo(websocket, message, opcode):
    websocket.send(message, opcode)


def join(websocket):
    websocket.subscribe("group")


def publish(websocket, message, opcode):
    app.publish("group", message, OpCode.TEXT)


app = App()
app.ws("/echo/", {"message": echo})
app.ws("/group/", {"open": join, "message": publish})
app.listen({"port": int(sys.argv[1]), "host": "127.0.0.1"})
app.run()
