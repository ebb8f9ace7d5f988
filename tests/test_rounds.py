"""Seeds in rounds until a study is decided: which cell gets which seeds next."""

import dataclasses
import math
import pickle
from types import SimpleNamespace

import pytest
from study_example import make_study, plan_on
from sweep_example import fill_store, make_sweep, put_run

from hkrun.config import cell_id
from hkrun.plans import (
    Look,
    Looks,
    SequentialPlan,
    Shortcuts,
    describe_rounds,
    expect_questions,
    find_allowed,
    foresee_rounds,
    form_rounds,
    make_plan,
    save_looks,
    save_plan,
    stored_plan,
)
from hkrun.store import open_store
from hkrun.sweep.rounds import begin_rounds, make_look, tell_change

DECIDED = Shortcuts(until_decided=True)


def pair(cell):
    return frozenset(("ref", cell))


def test_the_first_round_can_decide_and_later_ones_are_two_seeds_or_an_eighth():
    assert [len(seeds) for seeds in form_rounds(range(20))] == [6, 2, 2, 2, 2, 2, 2, 2]
    assert [len(seeds) for seeds in form_rounds(range(45))] == [6, *[2] * 9, 3, 3, 3, 4, 4, 4]
    assert [len(seeds) for seeds in form_rounds(range(100))][-4:] == [8, 9, 10, 9]


def test_rounds_keep_the_order_of_the_seeds_and_their_last_one_takes_what_is_left():
    assert form_rounds((9, 3, 7, 1, 5, 0, 8)) == ((9, 3, 7, 1, 5, 0), (8,))
    assert form_rounds(range(6)) == ((0, 1, 2, 3, 4, 5),)


def test_all_cells_begin_with_their_first_round():
    look = expect_questions(("ref", "a", "b"), "ref")
    assert look.needs == (pair("a"), pair("b"))
    completed = {"ref": 0, "a": 0, "b": 0}
    assert find_allowed(look.needs, completed) == {("ref", 0), ("a", 0), ("b", 0)}


def test_a_pair_goes_on_when_both_have_completed_the_round_and_waits_for_no_other_cell():
    needs = (pair("a"), pair("b"))
    allowed = find_allowed(needs, {"ref": 1, "a": 1, "b": 0})
    assert {place for place in allowed if place[1] == 1} == {("ref", 1), ("a", 1)}
    allowed = find_allowed(needs, {"ref": 1, "a": 0, "b": 0})
    assert {place for place in allowed if place[1] > 0} == set()


def test_the_reference_goes_on_for_the_question_that_is_open_and_decided_cells_get_nothing():
    allowed = find_allowed((pair("b"),), {"ref": 3, "a": 1, "b": 3})
    assert allowed == {(cell, number) for cell in ("ref", "b") for number in range(4)}


def test_a_claim_about_several_cells_goes_on_when_the_slowest_has_completed_its_round():
    claim = frozenset(("ref", "a", "b"))
    allowed = find_allowed((claim,), {"ref": 4, "a": 2, "b": 3})
    assert max(number for _, number in allowed) == 2
    assert {cell for cell, number in allowed if number == 2} == claim


def test_a_cell_that_has_completed_all_rounds_holds_nothing_up():
    assert ("a", 2) in find_allowed((pair("a"),), {"a": 2})
    assert find_allowed((), {"ref": 1, "a": 1}) == frozenset()


def test_a_look_tells_which_cells_have_ended_and_at_how_many_seeds():
    look = Look(needs=(pair("b"),), seeds={"ref": 10, "a": 8, "b": 10})
    assert look.wanted == {"ref", "b"}
    assert look.decided == {"a": 8}


def test_packs_are_formed_of_the_seeds_of_a_round():
    sweep = make_sweep(num_cells=2, num_seeds=11)
    identities = [cell_id(named.cell) for named in sweep.cells]
    plan = plan_on(sweep, None, shortcuts=DECIDED, sizes=dict.fromkeys(identities, 20))
    assert [(pack.name, pack.round, pack.seeds) for pack in plan.packs] == [
        (named.name, number, seeds)
        for number, seeds in enumerate([(0, 1, 2, 3, 4, 5), (6, 7), (8, 9), (10,)])
        for named in sweep.cells[::-1]  # the one with more terms first
    ]


def test_a_round_that_is_larger_than_a_pack_is_cut_evenly():
    sweep = make_sweep(num_cells=1, num_seeds=8)
    plan = plan_on(sweep, None, shortcuts=DECIDED, sizes={cell_id(sweep.cells[0].cell): 4})
    assert [(pack.round, pack.seeds) for pack in plan.packs] == [(0, (0, 1, 2)), (0, (3, 4, 5)), (1, (6, 7))]


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def test_a_plan_leaves_out_what_is_missing_of_cells_that_have_ended(store):
    sweep = make_sweep(num_cells=2, num_seeds=8)
    reference, other = sweep.cells
    for named in sweep.cells:
        for seed in range(6):
            put_run(store, named, seed)
    ended = SequentialPlan(most=8, decided={cell_id(other.cell): 6})
    save_looks(store, sweep, Looks(plan=ended))
    plan = make_plan(sweep, store, shortcuts=DECIDED)
    assert [(cell.name, cell.to_run, cell.num_runs) for cell in plan.cells] == [
        (reference.name, (6, 7), 8),
        (other.name, (), 6),
    ]
    assert plan.num_to_run == 2
    assert make_plan(sweep, store).num_to_run == 4, "an ordinary sweep makes them"


def test_a_failed_run_of_a_cell_that_has_ended_is_not_made_again(store):
    sweep = make_sweep(num_cells=2, num_seeds=8)
    fill_store(store, sweep)
    put_run(store, sweep.cells[1], 5, status="failed", curves=None)
    assert make_plan(sweep, store, shortcuts=DECIDED).num_to_run == 1
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=8, decided={cell_id(sweep.cells[1].cell): 8})))
    assert make_plan(sweep, store, shortcuts=DECIDED).num_to_run == 0


def test_a_look_can_be_sent_to_another_process_and_reads_the_store_there(store):
    sweep = make_sweep(num_cells=2, num_seeds=8)
    fill_store(store, sweep)
    study = make_study(sweep, store, shortcuts=DECIDED)
    begin_rounds(study)
    look = pickle.loads(pickle.dumps(make_look(study)))()
    reference, other = (cell_id(named.cell) for named in sweep.cells)
    assert look.seeds == {reference: 8, other: 8}
    assert {*look.needs} <= {frozenset((reference, other))}
    assert any("L_b + L_is against L_b" in question for question in look.answers)


def test_the_store_keeps_how_a_study_is_to_end(store):
    sweep = make_sweep(num_cells=2, num_seeds=8)
    save_plan(store, sweep, until_decided=True)
    assert stored_plan(store, sweep.name, sweep.dataset).shortcuts == DECIDED
    save_plan(store, sweep)
    assert stored_plan(store, sweep.name, sweep.dataset).shortcuts == Shortcuts()


def test_a_margin_lets_equal_cells_end_and_a_spread_is_needed_to_say_how_soon():
    sweep = dataclasses.replace(make_sweep(num_cells=2, num_seeds=12), margin=1.5)
    with_margin = dataclasses.replace(sweep, asks_equivalence=True)
    spread = SimpleNamespace(sd_pp=1.5, s2_sd=0.8)

    def foresee(sweep, power, measure="error"):
        return foresee_rounds(plan_on(sweep, None, shortcuts=DECIDED), power, measure=measure)

    known = foresee(with_margin, spread)
    assert (known.margin_sd, known.comparisons, known.most) == (1.0, 1, 12)
    assert known.equal_shown > 0.6
    assert known.equal_seeds < 11
    equality = describe_rounds(known)[1]
    assert equality.startswith("Equality: cells that do not differ ")
    assert equality.endswith(
        "are shown to be equal within the margin of 1.5 points, where paired differences have an sd of 1.5"
    )
    for planned, told, lack in (
        (sweep, spread, "no margin is set: [analysis] margin"),
        (with_margin, None, "no spread of paired differences is"),
    ):
        known = foresee(planned, told)
        assert (known.margin_sd, known.equal_shown, known.equal_needed) == (None, 0.0, None)
        assert known.equal_seeds > 11.5
        assert describe_rounds(known)[1].endswith(lack)
    assert 0.5 < known.power < 0.8
    assert known.seeds_for_power in range(14, 20)
    # In a study about stability S2 is asked for too: log 2.225 is one standard deviation, as the margin is.
    known = foresee(with_margin, spread, "stability")
    assert describe_rounds(known)[2].endswith("take all 12, for no factor is set: [analysis] s2_factor")
    factor = dataclasses.replace(with_margin, s2_factor=math.exp(0.8))
    known = foresee(factor, spread, "stability")
    assert (known.s2_shown, known.s2_seeds) == (known.equal_shown, known.equal_seeds)
    assert describe_rounds(known)[2].endswith("shown to be so within a factor of 2.22554")
    assert "is not known" in describe_rounds(foresee(factor, None, "stability"))[2]


def test_a_margin_that_the_seeds_cannot_show_is_told_with_how_many_could():
    sweep = dataclasses.replace(make_sweep(num_cells=3, num_seeds=14), margin=1.5, asks_equivalence=True)
    spread = SimpleNamespace(sd_pp=4.8, s2_sd=None)
    known = foresee_rounds(plan_on(sweep, None, shortcuts=DECIDED), spread, measure="error")
    # (t of 0.975 + t of 0.9)^2 (4.8 / 1.5)^2, for two comparisons, and some for t in place of the normal.
    assert 100 < known.equal_needed < 120
    assert describe_rounds(known)[1] == (
        "Equality: cells that do not differ take all 14, which hardly ever show them equal within the margin "
        "of 1.5 points, where paired differences have an sd of 4.8: at once that takes "
        f"{known.equal_needed} seeds, in rounds more"
    )


def test_more_seeds_than_planned_say_which_answers_may_be_open_again(store):
    sweep = make_sweep(num_cells=2, num_seeds=12)
    _, other = sweep.cells

    def told(**changes):
        planned = dataclasses.replace(sweep, **changes)
        return tell_change(planned, make_plan(planned, store, shortcuts=DECIDED), store)

    assert told() == ""  # nothing was seen
    for named in sweep.cells:
        for seed in range(6):
            put_run(store, named, seed)
    assert told().startswith("Rounds are planned after 6 seeds had been seen: p allows for a look after each")
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=12)))
    assert told(seeds=tuple(range(16))) == ""  # nothing has ended
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=12, decided={cell_id(other.cell): 6})))
    assert told() == ""
    assert told(seeds=tuple(range(16))) == (
        f"Ended so far, of at most 12 seeds: {other.name} after 6. With up to 16 planned, p counts more "
        "looks, and an answer that was just reached may be open again"
    )
    assert tell_change(sweep, make_plan(sweep, store), store) == ""  # all at once
