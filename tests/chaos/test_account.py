"""The judge, with histories that never happened."""

import pytest
from chaos.account import Account, reconcile
from chaos.journal import Journal, read


class Story:
    """Journals in the order in which things happen, one nanosecond each."""

    def __init__(self):
        self.now = 0
        self.journals = {}
        self.killed = {}

    def _note(self, process, *entry):
        self.now += 1
        self.journals.setdefault(process, []).append([self.now, *entry])

    def join(self, *members, target="group:g"):
        for member in members:
            self._note(member.partition("/")[0], "join", member, target)

    def send(self, *numbers, target="group:g", sender="s", answer="ok"):
        for number in numbers:
            self._note(sender, "try", sender, target, number)
            if answer == "ok":
                self._note(sender, "ok", sender, target, number)
            elif answer:
                self._note(sender, "no", sender, target, number, answer)

    def get(self, *numbers, member="r/1", target="group:g", sender="s"):
        for number in numbers:
            self._note(member.partition("/")[0], "got", member, target, sender, number)

    def gap(self, member="r/1", groups=("g",)):
        self._note(member.partition("/")[0], "gap", member, groups, "reconnected")

    def end(self, member="r/1"):
        self._note(member.partition("/")[0], "end", member, "closed")

    def kill(self, process="r"):
        self.now += 1
        self.killed[process] = self.now

    def judge(self, **options) -> Account:
        for process in self.journals:
            if process not in self.killed:
                self._note(process, "over")
        return reconcile(self.journals, killed=self.killed, **options)


@pytest.fixture
def story():
    return Story()


def test_all_is_well(story):
    story.join("r/1", "r/2")
    story.send(1, 2, 3)
    story.get(1, 2, 3)
    story.get(1, 2, 3, member="r/2")
    account = story.judge()
    assert (account.accepted, account.due, account.arrived) == (3, 6, 6)
    assert account.is_clean
    assert not account.problems


def test_a_message_that_nobody_speaks_of_is_lost(story):
    story.join("r/1")
    story.send(1, 2, 3)
    story.get(1, 3)
    account = story.judge()
    assert (account.arrived, account.untold) == (2, 1)
    assert not account.is_clean
    assert account.problems == ["r/1: group:g from s: 2 is lost"]


def test_the_last_message_may_not_be_lost_either(story):
    story.join("r/1")
    story.send(1, 2)
    story.get(1)
    assert story.judge().untold == 1


def test_a_loss_within_a_gap_is_told(story):
    story.join("r/1")
    story.send(1, 2, 3)
    story.get(1)
    story.gap()
    story.send(4)
    story.get(4)
    account = story.judge()
    assert (account.told, account.untold, account.gaps) == (2, 0, 1)
    assert account.is_clean


@pytest.mark.parametrize("groups", [None, ("g", "other")])
def test_a_gap_covers_the_groups_that_it_names_or_all(story, groups):
    story.join("r/1")
    story.send(1)
    story.gap(groups=groups)
    assert story.judge().told == 1


def test_a_gap_of_other_groups_excuses_nothing(story):
    story.join("r/1")
    story.send(1)
    story.gap(groups=("other",))
    assert story.judge().untold == 1


def test_a_gap_of_another_member_excuses_nothing(story):
    story.join("r/1", "r/2")
    story.send(1)
    story.gap(member="r/2")
    account = story.judge()
    assert (account.told, account.untold) == (1, 1)


def test_a_gap_that_is_told_too_late_excuses_nothing(story):
    story.join("r/1")
    story.send(1, 2, 3)
    story.get(1, 3)
    story.gap()
    assert story.judge().untold == 1


def test_a_gap_before_the_message_was_sent_excuses_nothing(story):
    story.join("r/1")
    story.send(1)
    story.get(1)
    story.gap()
    story.send(2, 3)
    story.get(3)
    assert story.judge().untold == 1


def test_a_gap_before_an_earlier_message_excuses_nothing(story):
    story.join("r/1")
    story.send(1, 2, 3)
    story.gap()
    story.get(1, 3)
    assert story.judge().untold == 1


def test_a_gap_tells_of_a_members_own_channel(story):
    story.join("r/1", target="channel:c")
    story.send(1, target="channel:c")
    story.gap(groups=("g",))
    assert story.judge().told == 1


def test_messages_that_come_twice_or_behind_later_ones(story):
    story.join("r/1")
    story.send(1, 2, 3)
    story.get(1, 3, 2, 2)
    account = story.judge()
    assert (account.arrived, account.reordered, account.duplicated) == (3, 1, 1)
    assert not account.is_clean


def test_the_order_is_that_of_each_sender_and_target(story):
    story.join("r/1")
    story.join("r/1", target="group:h")
    story.send(1, 2)
    story.send(1, 2, sender="other")
    story.send(1, 2, target="group:h")
    story.get(1, 2, sender="other")
    story.get(1, 2, target="group:h")
    story.get(1, 2)
    account = story.judge()
    assert account.due == 6
    assert account.is_clean


def test_what_was_refused_may_arrive_late_or_not_but_not_twice(story):
    story.join("r/1")
    story.send(1, 2, answer="it is down")
    story.send(3)
    story.get(3, 2)
    account = story.judge()
    assert (account.refused, account.due, account.arrived) == (2, 1, 1)
    assert account.refusals == {"it is down": 2}
    assert account.is_clean
    story.get(2)
    assert story.judge().duplicated == 1


def test_what_a_killed_sender_was_at_may_arrive_or_not(story):
    story.join("r/1")
    story.send(1)
    story.send(2, answer=None)
    story.kill("s")
    story.get(1)
    account = story.judge()
    assert (account.undecided, account.due, account.arrived) == (1, 1, 1)
    assert account.is_clean


def test_what_was_sent_before_the_join_is_not_due(story):
    story.send(1)
    story.join("r/1")
    story.send(2)
    story.get(2)
    account = story.judge()
    assert (account.due, account.arrived) == (1, 1)
    assert account.is_clean


def test_a_killed_receiver_takes_the_last_ones_with_it_and_no_other(story):
    story.join("r/1")
    story.send(1, 2, 3, 4)
    story.get(1, 3)
    story.kill()
    story.send(5)
    account = story.judge()
    assert (account.due, account.gone, account.untold) == (4, 1, 1)


def test_a_connection_that_ends_knows_that_it_misses_the_rest(story):
    story.join("r/1", "r/2")
    story.send(1)
    story.get(1, member="r/2")
    story.end()
    story.send(2)
    story.get(2, member="r/2")
    account = story.judge()
    assert (account.due, account.arrived, account.gone) == (3, 2, 1)
    assert account.is_clean


def test_drops_that_are_counted_are_no_silent_loss(story):
    story.join("r/1")
    story.send(1, 2, 3, 4)
    story.get(1, 3)
    story._note("r", "stats", {"dropped": 1})
    account = story.judge()
    assert (account.counted, account.untold) == (1, 1)


def test_each_message_of_a_queue_goes_to_one_reader(story):
    queue = "queue:q"
    story.join("r/1", "t/1", target=queue)
    story.send(1, 2, 3, 4, target=queue)
    story.get(1, 3, target=queue)
    story.get(2, 4, target=queue, member="t/1")
    account = story.judge()
    assert (account.due, account.arrived) == (4, 4)
    assert account.is_clean


def test_a_queue_that_loses_or_repeats(story):
    queue = "queue:q"
    story.join("r/1", "t/1", target=queue)
    story.send(1, 2, 3, target=queue)
    story.get(1, 3, target=queue)
    story.get(3, target=queue, member="t/1")
    account = story.judge()
    assert (account.duplicated, account.untold) == (1, 1)


def test_a_killed_reader_takes_one_message_with_it(story):
    queue = "queue:q"
    story.join("r/1", "t/1", target=queue)
    story.send(1, 2, 3, target=queue)
    story.get(3, target=queue, member="t/1")
    story.kill()
    account = story.judge()
    assert (account.gone, account.untold) == (1, 1)


def test_each_target_has_to_recover(story):
    story.join("r/1")
    story.send(1)
    story.get(1)
    healed_ns = story.now
    story.send(2, answer="it is down")
    assert story.judge(healed_ns=healed_ns).failures == 1
    story.send(3)
    story.get(3)
    assert story.judge(healed_ns=healed_ns).is_clean


def test_the_channel_of_a_member_that_has_ended_needs_not_recover(story):
    for target in ("channel:a", "channel:b"):
        story.join(f"r/{target[-1]}", target=target)
        story.send(1, target=target)
        story.get(1, target=target, member=f"r/{target[-1]}")
    story.end("r/a")
    assert story.judge(healed_ns=story.now).failures == 1


def test_a_call_that_hangs_is_a_failure(story):
    story.send(1, answer=None)
    story._note("s", "hung", "s", "group:g", 1)
    assert story.judge().failures == 1


def test_a_process_that_ends_by_itself_is_a_failure(story):
    story.join("r/1")
    account = reconcile(story.journals)
    assert account.failures == 1
    assert "r ended by itself" in account.problems[0]


def test_messages_that_nobody_sent(story):
    story.join("r/1")
    story.send(1)
    story.get(1, 7)
    story.get(1, sender="nobody")
    assert story.judge().failures == 2


def test_accounts_add_up(story):
    story.join("r/1")
    story.send(1)
    story.send(2, answer="no")
    account = Account()
    for _ in range(30):
        account += story.judge()
    assert (account.untold, account.refused, account.refusals) == (30, 30, {"no": 30})
    assert len(account.problems) == 20


def test_a_line_that_was_cut_short_is_none(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.joined("r/1", "group:g")
    journal.got("r/1", "group:g", "s", 1)
    with path.open("ab") as file:
        file.write(b'[1234,"got","r/1"')
    assert [entry[1:] for entry in read(path)] == [
        ["join", "r/1", "group:g"],
        ["got", "r/1", "group:g", "s", 1],
    ]


def test_an_entry_of_no_kind(story):
    story._note("r", "guessed")
    with pytest.raises(ValueError, match="no such kind of entry: 'guessed'"):
        story.judge()
