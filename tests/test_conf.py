import dataclasses

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from headrace import conf


def test_every_key_has_a_default():
    assert conf.settings() == conf.Settings()
    assert 5 <= conf.settings().sync_threads <= 32


def test_what_is_given_stands_for_the_default():
    with override_settings(HEADRACE={"SYNC_THREADS": 3}):
        assert conf.settings().sync_threads == 3
    assert conf.settings() == conf.Settings()


def test_it_is_read_once():
    assert conf.settings() is conf.settings()
    with override_settings(USE_TZ=True):
        assert conf.settings() is conf.settings()


def test_nobody_changes_it_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        conf.settings().sync_threads = 1


@override_settings(HEADRACE={"SYNC_THREDS": 3})
def test_a_mistyped_key_is_named_with_the_one_that_was_meant():
    with pytest.raises(ImproperlyConfigured, match=r"SYNC_THREDS.*did you mean 'SYNC_THREADS'"):
        conf.settings()


@override_settings(HEADRACE={"sync_threads": 3})
def test_a_key_in_lower_case_is_mistyped():
    with pytest.raises(ImproperlyConfigured, match="did you mean 'SYNC_THREADS'"):
        conf.settings()


@override_settings(HEADRACE={"COLOUR": "red", 7: None})
def test_an_unknown_key_is_named_with_all_that_are_known():
    first, second = conf.problems()
    assert first.startswith("HEADRACE has no key 'COLOUR': its keys are ")
    assert "SYNC_THREADS" in first
    assert second.startswith("HEADRACE has no key 7: ")
    with pytest.raises(ImproperlyConfigured, match=r"COLOUR.*; .* 7"):
        conf.settings()


@pytest.mark.parametrize("value", [-1, "4", 2.5, None, True])
def test_a_bad_value_is_named_with_its_key(value):
    with override_settings(HEADRACE={"SYNC_THREADS": value}):
        assert conf.problems() == [
            f"HEADRACE['SYNC_THREADS'] must be a number of threads, or 0 for no pool, not {value!r}"
        ]
        with pytest.raises(ImproperlyConfigured, match="SYNC_THREADS"):
            conf.settings()


@override_settings(HEADRACE=["SYNC_THREADS"])
def test_it_is_a_dictionary():
    with pytest.raises(ImproperlyConfigured, match="HEADRACE must be a dictionary"):
        conf.settings()


def test_nothing_is_wrong_with_the_defaults():
    assert conf.problems() == []
