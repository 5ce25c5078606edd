"""The order of bars, without any line: what the sequencer promises for every interleaving."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bot.market.sequencer import Offer, Sequencer
from strategies.bars import DAY_MS, HOUR_MS, Bar, Calendar, close_time_of

SYMBOLS = ("B", "A", "C")


def hour(symbol: str, number: int) -> Bar:
    return Bar(symbol, number * HOUR_MS, (number + 1) * HOUR_MS, 10.0, 11.0, 9.0, 10.0, 1.0)


def fresh(symbols=SYMBOLS, last_seen=None, interval="60", calendars=None) -> Sequencer:
    return Sequencer(symbols, interval, calendars or {}, last_seen or {})


@given(st.data())
def test_for_every_interleaving_batches_are_complete_and_ordered(data):
    bars_each = data.draw(st.integers(1, 6))
    arrivals = data.draw(st.permutations([symbol for symbol in SYMBOLS for _ in range(bars_each)]))
    sequencer = fresh(last_seen=dict.fromkeys(SYMBOLS, -HOUR_MS))
    sent = dict.fromkeys(SYMBOLS, 0)
    batches = []
    for symbol in arrivals:
        assert sequencer.offer(hour(symbol, sent[symbol])) is Offer.ACCEPTED
        sent[symbol] += 1
        batches += sequencer.take_ready()
    assert [[bar.symbol for bar in batch.bars] for batch in batches] == [list(SYMBOLS)] * bars_each
    assert [batch.bars[0].open_time // HOUR_MS for batch in batches] == list(range(bars_each))
    assert sequencer.waiting() is None


def test_a_known_bar_is_stale_and_a_bar_after_a_hole_is_not_taken():
    sequencer = fresh(("A",), {"A": 4 * HOUR_MS})
    assert sequencer.offer(hour("A", 4)) is Offer.STALE
    assert sequencer.offer(hour("A", 3)) is Offer.STALE
    assert sequencer.offer(hour("A", 6)) is Offer.HOLE
    assert sequencer.offer(hour("A", 5)) is Offer.ACCEPTED
    assert sequencer.last_open("A") == 5 * HOUR_MS


def test_a_batch_waits_for_every_symbol_that_has_not_been_given_up():
    sequencer = fresh(("A", "B"), {"A": 0, "B": 0})
    sequencer.offer(hour("A", 1))
    assert sequencer.take_ready() == []
    waiting = sequencer.waiting()
    assert waiting is not None
    assert (waiting.close_time, waiting.missing) == (2 * HOUR_MS, ("B",))
    sequencer.give_up("B")
    assert [bar.symbol for bar in sequencer.take_ready()[0].bars] == ["A"]


def test_a_bar_whose_batch_has_left_follows_alone_and_late():
    sequencer = fresh(("A", "B"), {"A": 0, "B": 0})
    sequencer.offer(hour("A", 1))
    sequencer.give_up("B")
    sequencer.take_ready()
    sequencer.offer(hour("B", 1))
    (batch,) = sequencer.take_ready()
    assert (batch.bars, batch.late) == ((hour("B", 1),), (True,))
    sequencer.offer(hour("A", 2))
    assert sequencer.take_ready() == [], "a symbol that is back is waited for again"


def test_bars_older_than_the_newest_closed_one_are_late():
    sequencer = fresh(("A",), {"A": 0})
    sequencer.accept([hour("A", number) for number in (1, 2, 3)])
    assert [batch.late for batch in sequencer.take_ready()] == [(True,), (True,), (False,)]


def test_a_bar_is_late_once_a_newer_one_was_seen_though_that_one_waits_for_a_repair():
    sequencer = fresh(("A", "B"), {"A": 0, "B": 0})
    sequencer.offer(hour("A", 1))
    sequencer.offer(hour("B", 1))
    sequencer.saw(hour("B", 3))
    assert [batch.late for batch in sequencer.take_ready()] == [(True, True)]
    sequencer.give_up("B")
    sequencer.accept([hour("A", number) for number in (2, 3)])
    assert [batch.late for batch in sequencer.take_ready()] == [(True,), (False,)]


def test_a_symbol_is_given_up_until_its_next_bar():
    sequencer = fresh(("A",), {"A": 0})
    sequencer.give_up("A")
    assert sequencer.has_given_up("A")
    sequencer.offer(hour("A", 1))
    assert not sequencer.has_given_up("A")


def test_symbols_whose_bars_close_at_other_times_are_not_waited_for():
    half = HOUR_MS // 2
    sequencer = fresh(("A", "S"), {"A": 0, "S": half}, calendars={"S": Calendar.SESSIONS})
    sequencer.offer(hour("A", 2 - 1))
    assert len(sequencer.take_ready()) == 1


def test_daily_sessions_are_one_batch_across_the_change_to_summer_time():
    before, after = 14 * HOUR_MS + 30 * 60_000, 13 * HOUR_MS + 30 * 60_000
    sequencer = fresh(("S", "T"), {"S": before, "T": before}, "D", dict.fromkeys(("S", "T"), Calendar.SESSIONS))

    def session(symbol: str, opened: int) -> Bar:
        return Bar(symbol, opened, close_time_of(opened, "D", Calendar.SESSIONS), 1.0, 1.0, 1.0, 1.0, 1.0)

    sequencer.offer(session("S", 3 * DAY_MS + after))
    assert sequencer.take_ready() == []
    sequencer.offer(session("T", 3 * DAY_MS + after))
    assert [bar.symbol for bar in sequencer.take_ready()[0].bars] == ["S", "T"]
