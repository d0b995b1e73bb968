"""Attacks by the mere number of connections."""

import asyncio

from .enemy import (
    END,
    HELD,
    RESET,
    Attack,
    Enemy,
    Field,
    handshake,
    raise_descriptor_limit,
    request,
)

__all__ = ["Churn", "HalfOpen", "Vanishing"]


class HalfOpen(Attack):
    """Ten thousand connections, each with half a request."""

    key = "half-open"
    serve = ("--head-timeout", "3")
    deserves = frozenset({"408", "429", "503", END, RESET})
    least_s = 10.0
    number = 10_000
    memory_bytes = 160 * 2**20

    async def assail(self, field: Field) -> None:
        number = min(self.number, raise_descriptor_limit() - 100)
        enemies: list[Enemy] = []
        try:
            while len(enemies) < number and not field.over:
                try:
                    enemies.append(await field.connect())
                    await enemies[-1].send(b"GET / HTTP/1.1\r\nHost: local")
                    field.blows += 1
                except OSError:
                    field.outcomes[RESET] += 1
                    await asyncio.sleep(0)
            outcomes = await asyncio.gather(
                *(enemy.outcome_of(enemy.status(), max(1.0, field.left_s)) for enemy in enemies)
            )
            field.outcomes.update(outcome for outcome in outcomes if outcome)
        finally:
            for enemy in enemies:
                enemy.reset()


class Churn(Attack):
    """Handshakes as fast as they go, each of them abandoned at once."""

    key = "handshake-flood"
    deserves = frozenset({"101", "429", "503", END, RESET})

    async def assail(self, field: Field) -> None:
        async def one(enemy: Enemy) -> str | None:
            field.blows += 1
            return await enemy.open_websocket("/echo") or "101"

        await field.crowd(50, one)


class Vanishing(Attack):
    """Clients that vanish at every point of a request, a handshake, a message."""

    key = "vanishing"
    deserves = frozenset({HELD})
    whole = (
        request("POST / HTTP/1.1", "Content-Length: 10", body=b"x" * 10),
        handshake("/echo") + b"\x81\x85\x00\x00\x00\x00hello",
        handshake("/feed"),
        request("GET /big HTTP/1.1"),
    )

    async def assail(self, field: Field) -> None:
        async def one(enemy: Enemy) -> str | None:
            whole = field.chance.choice(self.whole)
            field.blows += 1
            await enemy.send(whole[: field.chance.randrange(len(whole) + 1)])
            if field.chance.random() < 0.5:
                await asyncio.sleep(field.chance.uniform(0, 0.02))
            return None

        await field.crowd(50, one)
        field.outcomes[HELD] += 1  # there is nobody left to be told anything
