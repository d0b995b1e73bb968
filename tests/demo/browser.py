"""Real browsers, who sits in front of them, and what is asked of every page."""

import re

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

__all__ = [
    "ARGUMENTS",
    "DESKTOP",
    "PHONE",
    "SHOWN_AS",
    "SITE_MODULE",
    "Cable",
    "Person",
    "connected",
    "try_now",
    "violations",
]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}

# A page that the reader doesn't look at: headless browsers say "visible" of every page.
SHOWN_AS = """state => {
    Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""

# One of the site's modules: the very one that the page has, under its version.
SITE_MODULE = """globalThis.siteModule = path => {
    const style = document.querySelector("link[href$='/millpond/millpond.css']");
    return import(new URL(`../${path}`, style.href));
};"""

expect.set_options(timeout=15_000)


class Person:
    """Somebody in front of a browser of their own, with any number of tabs."""

    def __init__(self, site, context):
        self.site = site
        self.context = context
        self.problems: list[str] = []
        context.on("console", self._console)
        context.on("weberror", lambda error: self.problems.append(str(error.error)))
        context.on("request", self._request)

    def _console(self, message):
        # What the browser itself says of a server that is away is no problem of the page.
        if message.type == "error" and "WebSocket connection to" not in message.text:
            self.problems.append(message.text)

    def _request(self, request):
        if not request.url.startswith((self.site.url, "data:")):
            self.problems.append(f"a request to {request.url}")

    async def tab(self, path: str):
        page = await self.context.new_page()
        await page.goto(self.site.url + path)
        return page

    async def enter(self, room: str):
        page = await self.tab(f"/chat/rooms/{room}/")
        await connected(page)
        return page


class Cable:
    """The WebSockets of a browser, which a test may pull out and put back."""

    def __init__(self):
        self.out = False
        self.routes = []

    async def lay(self, context):
        await context.route_web_socket(re.compile("/ws/"), self._connect)
        return self

    async def _connect(self, route):
        if self.out:
            await route.close()
        else:
            self.routes.append(route)
            route.connect_to_server()

    async def pull(self):
        self.out = True
        for route in self.routes:
            await route.close()
        self.routes.clear()


async def connected(page):
    await expect(page.locator(".connection")).to_have_attribute("data-state", "open")


async def try_now(page):
    """Have the page try to connect at once; that it has by itself meanwhile does no harm."""
    await page.locator("[data-retry]").dispatch_event("click")


async def violations(page):
    results = await Axe().run(page)
    return [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in results.response["violations"]
    ]
