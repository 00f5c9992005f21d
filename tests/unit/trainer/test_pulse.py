# SPDX-License-Identifier: Apache-2.0
"""Who counts as lost, without a clock; the datagrams are tested in integration/trainer."""

from r1reward_trainer.pulse import Watch


def test_a_process_is_lost_after_so_many_silent_beats_and_not_before():
    watch = Watch(patience=3)
    watch.heard(1, "step 7, training")
    assert [watch.beat(), watch.beat(), watch.beat()] == [[], [], [1]]
    assert watch.places == {1: "step 7, training"}


def test_every_sign_of_life_begins_the_count_anew():
    watch = Watch(patience=2)
    for _ in range(5):
        watch.heard(1, "sampling")
        assert watch.beat() == []
    assert watch.beat() == [1]


def test_all_that_are_lost_are_named():
    watch = Watch(patience=1)
    for rank in (3, 1):
        watch.heard(rank, "training")
    assert watch.beat() == [1, 3]


def test_who_was_never_heard_of_or_has_left_is_not_missed():
    watch = Watch(patience=1)
    watch.left(2)
    watch.heard(1, "writing the weights")
    watch.left(1)
    assert watch.beat() == []
