"""The demo project before anybody comes: checks, migrations, seeds."""

from .site import manage


def test_the_project_is_sound(seeded):
    assert "no issues" in manage(seeded, "check", "--fail-level", "INFO")
    assert "No changes" in manage(seeded, "makemigrations", "--check")


def test_seeding_again_adds_nothing(seeded):
    assert "(0 new)" in manage(seeded, "seed")


def test_the_secret_key_is_this_installation_s_own(seeded):
    path = seeded / "secret-key"
    assert path.stat().st_mode & 0o077 == 0
    assert len(path.read_text()) >= 50
