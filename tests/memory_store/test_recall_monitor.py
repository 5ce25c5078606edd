"""The running check of recall."""

from __future__ import annotations

import numpy as np

from memory_store.recall_monitor import RecallMonitor

EXACT = np.arange(10)


def test_every_hundredth_query_is_checked():
    monitor = RecallMonitor()
    assert [number for number in range(1, 501) if monitor.due()] == [100, 200, 300, 400, 500]
    assert monitor.reading.queries == 500


def test_before_the_first_check_nothing_is_known():
    reading = RecallMonitor().reading
    assert (reading.recall, reading.worst, reading.checks, reading.alarm) == (None, None, 0, False)


def test_recall_is_the_share_of_true_neighbours_found_whatever_their_order():
    monitor = RecallMonitor()
    monitor.record(EXACT[::-1], EXACT)
    monitor.record(np.array([0, 1, 2, 3, 4, 77, 78]), EXACT)
    assert monitor.reading.recall == 0.75
    assert monitor.reading.worst == 0.5


def test_the_alarm_waits_for_enough_checks_and_ends_when_they_are_good_again():
    monitor = RecallMonitor(window=20, enough=10, alarm_below=0.95)
    for _ in range(9):
        monitor.record(EXACT[:5], EXACT)
    assert not monitor.reading.alarm
    monitor.record(EXACT[:5], EXACT)
    assert monitor.reading.alarm
    for _ in range(19):
        monitor.record(EXACT, EXACT)
    assert monitor.reading.recall == 0.975
    assert not monitor.reading.alarm
    assert monitor.reading.checks == 29


def test_a_check_without_true_neighbours_tells_nothing():
    monitor = RecallMonitor()
    monitor.record(EXACT[:0], EXACT[:0])
    assert monitor.reading.recall is None
    assert monitor.reading.checks == 1


def test_a_monitor_goes_on_where_another_one_stopped():
    whole, first = RecallMonitor(every=3, window=4, enough=2), RecallMonitor(every=3, window=4, enough=2)
    second = first
    for number in range(40):
        if number == 20:
            second = RecallMonitor(every=3, window=4, enough=2, state=first.state)
        for monitor in (whole, second):
            if monitor.due():
                monitor.record(EXACT[: number % 10], EXACT)
    assert (second.reading, second.state) == (whole.reading, whole.state)
