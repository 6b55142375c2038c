"""How often the sampler reads: its grid, its budget, the turns of dear readings, on hand-made clocks."""

from __future__ import annotations

import pytest

from harness.measure.pace import HZ, LEAST_HZ, SHARE, Pace, Pacer, Turn, next_deadline, share_for


def test_deadlines_stay_on_their_grid_and_missed_ones_are_skipped():
    assert next_deadline(1000, 50, 1000) == 1050
    assert next_deadline(1000, 50, 1049) == 1050
    assert next_deadline(1000, 50, 1050) == 1100
    assert next_deadline(1000, 50, 1312) == 1350


def test_pace_on_a_hand_made_timeline():
    pace = Pace()
    assert pace.achieved_hz is None
    for t_s in (0.0, 0.1, 0.2, 0.5, 0.6):
        pace.mark(int(t_s * 1e9))
    assert pace.achieved_hz == pytest.approx(4 / 0.6)
    assert pace.longest_gap_ns == 3 * 10**8


@pytest.mark.parametrize(("hz", "share"), [(20, 0.01), (50, 0.01), (100, 0.02), (200, 0.04)])
def test_a_percent_of_a_core_pays_for_fifty_samples_a_second(hz, share):
    assert share_for(hz) == pytest.approx(share)


def play(pacer: Pacer, sample_s: float, fixed: float = 0.0, seconds: int = 200) -> float:
    """Let a sampler run whose samples cost so much; return its share of a core in the last ten seconds."""
    cpu_s = at_50 = 0.0
    for tick in range(seconds * 10):
        wall_s = tick / 10
        if pacer.is_due(wall_s):
            pacer.adjust(wall_s, cpu_s)
        cpu_s += 0.1 * (pacer.hz * sample_s + fixed)
        if wall_s < seconds - 10:
            at_50 = cpu_s
    return (cpu_s - at_50) / 10


@pytest.mark.parametrize("sample_us", [10, 100, 190, 250, 400, 2000])
@pytest.mark.parametrize("fixed", [0.0, 0.003])
def test_the_rate_goes_down_until_the_sampler_keeps_within_its_share(sample_us, fixed):
    pacer = Pacer(HZ, SHARE)
    share = play(pacer, sample_us / 1e6, fixed)
    fits = HZ * sample_us / 1e6 + fixed <= SHARE
    assert share <= SHARE * 1.02
    assert (pacer.lowest_hz is None) == fits
    assert pacer.hz == HZ if fits else share > 0.75 * SHARE


def test_the_rate_comes_up_again_when_there_is_room():
    pacer = Pacer(HZ, SHARE)
    play(pacer, 500e-6)
    lowest = pacer.hz
    assert lowest < 25
    later = Pacer(HZ, SHARE)
    later.hz, later.lowest_hz = lowest, lowest
    play(later, 50e-6)
    assert later.hz == HZ
    assert later.lowest_hz == lowest


def test_what_was_taken_over_the_share_is_given_back_within_ten_seconds():
    pacer, cpu_s = Pacer(HZ, SHARE), 0.0
    for tick in range(100):
        if pacer.is_due(tick / 10):
            pacer.adjust(tick / 10, cpu_s)
        cpu_s += 0.1 * pacer.hz * 390e-6
    assert cpu_s / 10 < SHARE


def test_a_rate_never_falls_below_two_a_second_unless_less_was_asked_for():
    hopeless, slow = Pacer(HZ, SHARE), Pacer(0.5, SHARE)
    play(hopeless, 1.0)
    play(slow, 1.0)
    assert (hopeless.hz, slow.hz) == (LEAST_HZ, 0.5)


def test_a_dear_reading_comes_so_rarely_that_it_stays_in_its_share():
    turn = Turn(1.0, share=0.003)
    now_s = spent_s = 0.0
    for _ in range(10_000):
        now_s += 0.02
        if now_s >= turn.due_s:
            turn.took(now_s, now_s + 0.02)
            spent_s += 0.02
    assert turn.is_slowed
    assert spent_s / now_s == pytest.approx(0.003, rel=0.05)


def test_a_cheap_reading_comes_as_often_as_it_may_and_one_dear_one_changes_nothing():
    turn = Turn(1.0, share=0.003)
    for now_s, cost_s in ((0.0, 0.001), (1.0, 0.5), (2.0, 0.001)):
        assert now_s >= turn.due_s
        turn.took(now_s, now_s + cost_s)
    assert (turn.every_s, turn.is_slowed) == (1.0, False)


def test_news_brings_a_reading_sooner():
    turn = Turn(0.0, share=0.001)
    turn.took(0.0, 0.001)
    assert (turn.due_s, turn.urgent_s) == (1.0, 0.25)
