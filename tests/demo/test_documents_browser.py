"""The documents in real browsers: CodeMirror and Yjs's own client, over Headrace."""

import asyncio
import os
import random
import re
import time

import pytest
from playwright.async_api import expect

from .browser import DESKTOP, PHONE, Cable, connected, try_now, violations
from .site import PATIENCE_S

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(180),
]

# How long two people type at random; a minute says more than a few seconds.
TYPING_S = float(os.environ.get("DOCUMENTS_TYPING_S", "4"))

WHOLE_TEXT = """async () => {
    const { EditorView } = await siteModule("documents/vendor/editor.js");
    return EditorView.findFromDOM(document.querySelector(".cm-editor")).state.doc.toString();
}"""
# Asked of the editor and not of what is shown: that has others' names in it, and not every line.
UNTIL = """async ([whole, parts]) => {
    const { EditorView } = await siteModule("documents/vendor/editor.js");
    const view = EditorView.findFromDOM(document.querySelector(".cm-editor"));
    const isIt = (text) =>
        (whole === null || text === whole) && parts.every((each) => text.includes(each));
    await new Promise((resolve) => {
        const look = () => {
            if (isIt(view.state.doc.toString())) resolve();
            else requestAnimationFrame(look);
        };
        look();
    });
}"""
SELECT = """async ([from, to]) => {
    const { EditorView } = await siteModule("documents/vendor/editor.js");
    const view = EditorView.findFromDOM(document.querySelector(".cm-editor"));
    const { length } = view.state.doc;
    // Not between the halves of a pair: nobody gets there by keys, and half of one is no text.
    const place = (at) => (/[\\udc00-\\udfff]/.test(view.state.sliceDoc(at, at + 1)) ? at + 1 : at);
    const anchor = place(Math.round(from * length));
    view.focus();
    view.dispatch({ selection: { anchor, head: place(Math.min(length, anchor + to)) } });
}"""


async def new_document(site, everyone=""):
    """Begin a document of Maya's with nothing in it, and return its path."""
    maya = await site.visitor().log_in("maya")
    path = (await maya.post("/documents/", title="Written by browsers")).path
    if everyone:
        await maya.post(f"{path}everyone/", on=path, everyone=everyone)
    return path


async def open_document(somebody, path):
    page = await somebody.tab(path)
    await connected(page)
    return page


def editor(page):
    return page.locator(".cm-content")


async def says(page, whole=None, *parts):
    """Wait until the document is a text, or has these parts in it."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await page.evaluate(UNTIL, [whole, parts])
    except TimeoutError:
        pytest.fail(f"it says {await page.evaluate(WHOLE_TEXT)!r}, not {whole!r} with {parts}")


def others(page):
    return page.get_by_role("list", name="Also here").get_by_role("listitem")


@pytest.mark.main_path
async def test_two_people_write_and_see_each_other(site, person):
    path = await new_document(site, "editor")
    maya = await open_document(await person(site, "maya"), path)
    jonas = await open_document(await person(site, "jonas"), path)
    await expect(others(maya)).to_contain_text(["Jonas Lindqvist"])
    await expect(others(jonas)).to_contain_text(["Maya Okafor"])
    await editor(maya).click()
    await maya.keyboard.type("# Soup")
    await says(jonas, "# Soup")
    await expect(jonas.locator(".md-title").last).to_have_text(" Soup")
    # The cursor of the other bears a name and a colour: the policy of the page lets them through.
    cursor = jonas.locator(".cm-ySelectionCaret")
    await expect(cursor.locator(".cm-ySelectionInfo")).to_have_text("Maya Okafor")
    await expect(cursor).to_have_css("background-color", "rgb(10, 111, 106)")
    await editor(jonas).click()
    await jonas.keyboard.press("End")
    await jonas.keyboard.type(" of the week")
    await expect(maya.locator("#words")).to_have_text("4 words")
    await jonas.context.close()
    await expect(others(maya)).to_have_count(0)
    await expect(maya.locator(".cm-ySelectionCaret")).to_have_count(0)


async def test_undo_takes_back_what_one_wrote_oneself(site, person):
    path = await new_document(site, "editor")
    maya = await open_document(await person(site, "maya"), path)
    jonas = await open_document(await person(site, "jonas"), path)
    undo, redo = (maya.get_by_role("button", name=name) for name in ("Undo", "Redo"))
    await expect(undo).to_have_attribute("aria-disabled", "true")
    await editor(maya).click()
    await maya.keyboard.type("Mine.")
    await says(jonas, "Mine.")
    await editor(jonas).click()
    await jonas.keyboard.press("End")
    await jonas.keyboard.type(" Theirs.")
    await says(maya, "Mine. Theirs.")
    await undo.click()
    await says(jonas, " Theirs.")
    await redo.click()
    await says(jonas, "Mine. Theirs.")
    await maya.keyboard.press("Control+z")
    await says(jonas, " Theirs.")


async def test_what_was_written_offline_is_merged(site, person):
    path = await new_document(site, "editor")
    somebody = await person(site, "maya")
    cable = await Cable().lay(somebody.context)
    maya = await open_document(somebody, path)
    jonas = await open_document(await person(site, "jonas"), path)
    await editor(maya).click()
    await maya.keyboard.type("Middle")
    await says(jonas, "Middle")
    await cable.pull()
    await expect(maya.get_by_role("button", name="Try now")).to_be_visible()
    await maya.keyboard.press("End")
    await maya.keyboard.type(", end")
    await expect(maya.locator("#fate")).to_contain_text("stays on this page")
    await editor(jonas).click()
    await jonas.keyboard.press("Home")
    await jonas.keyboard.type("Beginning, ")
    cable.out = False
    await try_now(maya)
    await connected(maya)
    await expect(maya.locator("#fate")).to_have_text("")
    for page in (maya, jonas):
        await says(page, "Beginning, Middle, end")


async def test_who_may_only_read_can_only_read(site, person):
    path = await new_document(site, "viewer")
    maya = await open_document(await person(site, "maya"), path)
    jonas = await open_document(await person(site, "jonas"), path)
    await expect(others(maya)).to_contain_text(["reads along"])
    await expect(editor(jonas)).to_have_attribute("contenteditable", "false")
    await expect(editor(jonas)).to_have_attribute("aria-readonly", "true")
    await expect(jonas.get_by_role("button", name="Undo")).to_have_count(0)
    await editor(maya).click()
    await maya.keyboard.type("For your eyes.")
    await says(jonas, "For your eyes.")
    # What the page does not offer, somebody may do all the same; the server does not.
    await jonas.evaluate(
        """async () => {
            const { EditorView } = await siteModule("documents/vendor/editor.js");
            const view = EditorView.findFromDOM(document.querySelector(".cm-editor"));
            view.dispatch({ changes: { from: 0, insert: "Forged! " } });
        }"""
    )
    await expect(jonas.locator("#fate")).to_contain_text("only read")
    await maya.keyboard.type(" Only.")
    await says(jonas, "Forged! For your eyes. Only.")
    await says(maya, "For your eyes. Only.")


async def test_a_page_is_told_when_its_rights_change(site, person):
    path = await new_document(site)
    maya = await open_document(await person(site, "maya"), path)
    await maya.get_by_label("User name").fill("nobody-here")
    await maya.get_by_role("button", name="Share", exact=True).click()
    await expect(maya.get_by_role("alert")).to_contain_text("Nobody here")
    await maya.get_by_label("User name").fill("wen")
    await maya.get_by_label("They").select_option("viewer")
    await maya.get_by_role("button", name="Share", exact=True).click()
    await expect(maya.get_by_role("main")).to_contain_text("Wen Li")
    wen = await open_document(await person(site, "wen"), path)
    await expect(wen.get_by_text("You may read this.")).to_be_visible()
    await maya.get_by_label("User name").fill("wen")
    await maya.get_by_label("They").select_option("editor")
    await maya.get_by_role("button", name="Share", exact=True).click()
    await expect(wen.locator(".connection")).to_contain_text("What you may do here has changed.")
    await wen.get_by_role("link", name="Go on").click()
    await connected(wen)
    await editor(wen).click()
    await wen.keyboard.type("Thank you.")
    await says(maya, "Thank you.")
    await maya.get_by_role("button", name="Share it with Wen Li no longer").click()
    await expect(wen.locator(".connection")).to_contain_text("no longer shared with you")
    await wen.get_by_role("link", name="All documents").first.click()
    await expect(wen.get_by_role("heading", name="Documents", level=1)).to_be_visible()
    await expect(wen.get_by_role("link", name="House rules")).to_be_visible()
    await expect(wen.locator(f"a[href='{path}']")).to_have_count(0)


async def type_at_random(page, cable, until, chance):
    """Write, delete, go elsewhere, undo; and be cut off now and then."""
    while time.monotonic() < until:
        what = chance.random()
        if what < 0.6:
            await page.keyboard.type(
                "".join(chance.choices("abcdefgh äö😄水\n", k=chance.randint(1, 12)))
            )
        elif what < 0.75:
            await page.evaluate(SELECT, [chance.random(), 0])
        elif what < 0.9:
            await page.evaluate(SELECT, [chance.random(), chance.randint(1, 20)])
            await page.keyboard.press("Delete")
        elif what < 0.96:
            await page.keyboard.press(chance.choice(["Control+z", "Control+y"]))
        elif cable.out:
            cable.out = False
        else:
            await cable.pull()
    cable.out = False


async def test_two_who_type_at_random_end_with_the_same_text(site, person):
    """With disconnections, for DOCUMENTS_TYPING_S seconds (4)."""
    seed = random.randrange(2**32)
    path = await new_document(site, "editor")
    pages, cables = [], []
    for username in ("maya", "jonas"):
        somebody = await person(site, username)
        cables.append(await Cable().lay(somebody.context))
        pages.append(await open_document(somebody, path))
        await editor(pages[-1]).click()
    until = time.monotonic() + TYPING_S
    # Each is cut off once at least, however short it is.
    typing = [
        asyncio.create_task(type_at_random(page, cable, until, random.Random(seed + n)))
        for n, (page, cable) in enumerate(zip(pages, cables, strict=True))
    ]
    for cable in cables:
        await asyncio.sleep(TYPING_S / 4)
        await cable.pull()
    await asyncio.gather(*typing)
    for page in pages:
        await try_now(page)
        await connected(page)
    # What each wrote last is on its way: behind it, each writes a word, which comes to both.
    for n, page in enumerate(pages):
        await page.evaluate(SELECT, [1, 0])
        await page.keyboard.type(f" last{n} ")
        for each in pages:
            await says(each, None, f"last{n}")
    # What was deleted while a page was cut off is told when the server asks, and it may come behind
    # the word; but it comes.
    later = await open_document(await person(site, "wen"), path)
    texts = []
    async with asyncio.timeout(PATIENCE_S):
        while len(set(texts)) != 1:
            texts = [await page.evaluate(WHOLE_TEXT) for page in (*pages, later)]
            print(f"seed {seed}: {texts}")
    one = texts[0]
    print(f"{TYPING_S:.0f} s of typing: {len(one)} characters in the end, the same in all")


async def test_only_this_page_allows_styles_and_none_allows_scripts(site):
    maya = await site.visitor().log_in("maya")
    path = await new_document(site)
    pages = [await maya.get(path) for _ in range(2)]
    policies = [page.headers["Content-Security-Policy"] for page in pages]
    nonces = [re.search("'nonce-([^']+)'", policy)[1] for policy in policies]
    assert nonces[0] != nonces[1]
    for page, nonce, policy in zip(pages, nonces, policies, strict=True):
        assert f'data-nonce="{nonce}"' in page.text
        assert "script-src 'self';" in policy
        assert policy.count("unsafe") == policy.count("style-src-attr 'unsafe-inline'") == 1
    assert "unsafe" not in (await maya.get("/documents/")).headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("scheme", "device"), [("light", DESKTOP), ("dark", PHONE)], ids=["desktop", "phone"]
)
async def test_it_is_for_everyone(site, person, scheme, device):
    path = await new_document(site, "editor")
    jonas = await open_document(await person(site, "jonas"), path)
    somebody = await person(site, "maya", color_scheme=scheme, reduced_motion="reduce", **device)
    page = await open_document(somebody, path)
    await editor(page).click()
    await page.keyboard.type("# Heading\n\n> *Quoted* [link](/there) and `code`, **bold**\n")
    await expect(page.locator(".md-quote").first).to_be_visible()
    await editor(jonas).click()
    await jonas.keyboard.type("Jonas was here. ")
    await expect(page.locator(".cm-ySelectionInfo")).to_be_visible()
    # Tab leads out of the editor: nobody is caught in it.
    await page.keyboard.press("Tab")
    await expect(editor(page)).not_to_be_focused()
    await page.locator(".about summary").click()
    for where in (page, await somebody.tab("/documents/")):
        width = await where.evaluate("document.documentElement.scrollWidth")
        assert width <= device["viewport"]["width"]
        assert await violations(where) == []
