"""The README: its example, in a Django project as ``startproject`` makes it."""

import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.docs.pages import ROOT, Project, blocks
from tests.docs.served import served

PAGE = ROOT / "README.md"


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    project.run("django-admin startproject mysite .")
    project.run("python manage.py startapp chat")
    for block in blocks(PAGE):
        if block.language == "python":
            project.follow(block)
    return project


async def test_the_example_talks(project):
    assert "no issues" in project.run("python manage.py check --fail-level INFO")
    [serve] = [block.text for block in blocks(PAGE) if block.text.startswith("headrace serve ")]
    async with served(project, serve) as server:
        room = server.url.replace("http", "ws") + "/chat/lobby/"
        async with (
            connect(room, origin=server.url, proxy=None) as edith,
            connect(room, origin=server.url, proxy=None) as ada,
        ):
            await edith.send(json.dumps({"text": "Is anybody there?"}))
            assert json.loads(await edith.recv()) == {"text": "Is anybody there?"}
            assert json.loads(await ada.recv()) == {"text": "Is anybody there?"}


async def test_pages_of_other_sites_are_kept_out(project):
    async with served(project, "headrace serve mysite.asgi:application") as server:
        with pytest.raises(InvalidStatus, match="403"):
            await connect(
                server.url.replace("http", "ws") + "/chat/lobby/",
                origin="https://elsewhere.example",
                proxy=None,
            )
        server.expect("WARNING headrace.security")
