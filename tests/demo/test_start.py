"""The start page, the bar, the sources and the language."""

import json
import re

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_stranger_sees_what_there_is(site):
    page = await site.visitor().get("/")
    assert page.status == 200
    assert 'class="show-card" href="/chat/"' in page.text
    assert "For staff" not in page.text


async def test_staff_find_the_operations_page(site):
    edith = await site.visitor().log_in("edith")
    page = await edith.get("/")
    path = re.search(r'For staff: <a href="([^"]+)"', page.text)[1]
    assert (await edith.get(path)).status == 200
    maya = await site.visitor().log_in("maya")
    assert "For staff" not in (await maya.get("/")).text


async def test_sources_are_shown_if_a_page_points_them_out(site):
    visitor = site.visitor()
    page = await visitor.get("/source/chat/consumers.py")
    assert page.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "class RoomConsumer(LiveConsumer):" in page.text
    for path in ("millpond/settings.py", "var/secret-key", "chat/../millpond/settings.py", ""):
        page = await visitor.get(f"/source/{path}")
        assert page.status == 404, path


async def test_every_source_that_is_pointed_out_is_there(site):
    visitor = await site.visitor().log_in("maya")
    links = re.findall(r'class="show-card" href="([^"]+)"', (await visitor.get("/")).text)
    assert links
    for link in links:
        sources = re.findall(r'href="(/source/[^"]+)"', (await visitor.get(link)).text)
        assert sources, f"{link} points out no sources"
        for source in sources:
            assert (await visitor.get(source)).status == 200, source


async def test_the_language_is_chosen_and_kept(site):
    visitor = site.visitor()
    page = await visitor.post("/language/", on="/", language="zh-hans", next="/login/")
    assert page.path == "/login/"
    assert '<html lang="zh-hans"' in page.text
    assert ">登录<" in page.text
    (words,) = re.findall(r'src="(/words/zh-hans/[^"]+)"', page.text)
    assert json.dumps("正在连接")[1:-1] in (await visitor.get(words)).text
    page = await site.visitor().get("/login/", **{"Accept-Language": "zh-CN,zh;q=0.9"})
    assert ">登录<" in page.text
