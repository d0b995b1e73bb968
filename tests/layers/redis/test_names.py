"""Names in Redis, and the one function that says where each is."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.layers.redis.names import SLOTS, Names, shard_of, slot_of, tag_of

#: What groups and channels may be called.
tags = st.from_regex(r"[a-zA-Z0-9._!-]{1,99}", fullmatch=True)
prefixes = st.text(min_size=1, max_size=20).filter(lambda text: not {"{", "}"} & set(text))


def names_of(names, tag, other):
    """Every name that belongs to a tag; ``other`` is a process or sender."""
    return [
        names.group(tag),
        names.process(tag),
        names.wake(tag, other),
        names.members(tag),
        names.queue(tag),
        names.readers(tag),
        names.taken(tag, other),
        names.put(tag, other),
    ]


@given(tags, st.integers(1, 50))
def test_a_tag_has_one_shard_for_whoever_asks(tag, count):
    assert 0 <= shard_of(tag, count) < count
    assert shard_of(tag, count) == shard_of("".join(tag), count)


def test_shards_get_about_as_much_each():
    counts = [0] * 5
    for number in range(10_000):
        counts[shard_of(f"room.{number}", 5)] += 1
    assert min(counts) > 1_800


@given(prefixes, tags, tags)
def test_all_names_of_a_tag_are_in_its_slot(prefix, tag, other):
    for name in names_of(Names(prefix), tag, other):
        assert tag_of(name) == tag
        assert 0 <= slot_of(tag) < SLOTS
    assert tag_of(Names(prefix).everyone()) == "everyone"


@given(prefixes, tags, tags, tags)
def test_different_things_have_different_names(prefix, one, two, other):
    names = Names(prefix)
    named = [*names_of(names, one, other), names.everyone()]
    assert len(set(named)) == len(named)
    if one != two:
        assert not set(named) & set(names_of(names, two, other))


def test_slots_are_those_of_redis(cluster):
    node = cluster.nodes[0]
    for tag in ("room", "a", "specific.0123456789abcdef!1", "x" * 99):
        assert node.ask("CLUSTER", "KEYSLOT", Names("chat").queue(tag)) == slot_of(tag)


def test_the_pattern_of_a_prefix_with_signs_finds_its_keys_and_no_others(server):
    keys = [Names(prefix).queue("work") for prefix in ("a*b", "axb", "a[x]b", "a?b", "a\\b")]
    with server.client() as client:
        for key in keys:
            client.set(key, "x")
        for prefix, key in zip(("a*b", "axb", "a[x]b", "a?b", "a\\b"), keys, strict=True):
            assert client.keys(Names(prefix).all_keys()) == [key]
        client.delete(*keys)
