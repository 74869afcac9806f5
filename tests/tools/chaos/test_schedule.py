"""Schedules of faults: repeatable, in order, of the kinds that were asked for."""

from collections import Counter

import pytest

from tools.chaos.schedule import KINDS, POINTS, Limits, Signal, Store, Ticket, schedule

# Those that faults/injection/tickets.py knows.
FAULTS = {"kill", "enospc", "edquot", "eio", "estale", "erofs", "short", "stall", "clock"}
LIMITS = Limits(work=6.0, every=40.0)


def planned(seed, *, kinds=tuple(KINDS), faults=600):
    return schedule(seed, kinds=kinds, faults=faults, every_s=1.5, limits=LIMITS)


def test_a_seed_repeats_its_schedule_and_another_one_does_not():
    assert planned(7) == planned(7)
    assert planned(7) != planned(8)


def test_all_kinds_come_in_a_long_schedule_in_order_of_time():
    faults = planned(3)
    assert {fault.kind for fault in faults} == set(KINDS)
    assert len(faults) == 600
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_alone_is_only_that_kind(kind):
    assert Counter(fault.kind for fault in planned(1, kinds=(kind,), faults=9)) == {kind: 9}


def test_a_stopped_process_and_a_stalled_store_outlast_the_limits_and_a_slow_operation_does_not():
    for fault in planned(5):
        if isinstance(fault, Signal) and fault.kind == "stop":
            assert fault.seconds > LIMITS.work
        if isinstance(fault, Store) and fault.kind == "stall":
            assert fault.seconds > LIMITS.work
        if fault.kind == "slow":
            assert isinstance(fault, Ticket)
            assert fault.seconds < LIMITS.work


def test_tickets_name_a_program_and_a_point_that_it_can_reach():
    for fault in planned(11):
        if isinstance(fault, Ticket):
            content = fault.content(4)
            assert content["number"] == 4
            assert 1 <= fault.point <= POINTS[fault.program]
            assert content["fault"] in FAULTS


def test_some_stalls_outlast_every_limit():
    assert any(fault.seconds > LIMITS.every for fault in planned(2, kinds=("stall",)))
