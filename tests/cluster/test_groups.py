from itertools import islice

from hkrun.cluster.groups import draw_marks, find_leftovers


def group(memory=None, *, state="CREATED", bundles=2):
    bundle = {"CPU": 1.0} | ({} if memory is None else {"memory": float(memory)})
    return {"state": state, "bundles": dict.fromkeys(range(bundles), bundle)}


def test_only_what_has_the_mark_of_an_ended_trial_is_left_over():
    ended, running = islice(draw_marks(), 2)
    table = {
        "left": group(ended),
        "left waiting": group(ended, state="PENDING"),
        "removed": group(ended, state="REMOVED"),
        "at work": group(running),
        "somebody else's": group(),
        "of Tune": group(128 << 20, bundles=1),
    }
    assert find_leftovers(table, {ended}) == ["left", "left waiting"]
    assert find_leftovers(table, set()) == []


def test_marks_differ_and_are_less_than_what_anybody_would_ask_for():
    marks = list(islice(draw_marks(), 10_000))
    assert len(set(marks)) == len(marks)
    assert all(16 << 20 <= mark < 65 << 20 for mark in marks)
    assert list(islice(draw_marks(), 1)) != list(islice(draw_marks(), 1))
