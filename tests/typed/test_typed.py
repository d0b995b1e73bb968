"""The typed application works; that its types hold is for mypy to say (``make lint``)."""

import pytest

from tests.typed import application


@pytest.mark.django_db(transaction=True)
async def test_it_runs() -> None:
    assert await application.check_views_and_layers() == 42
