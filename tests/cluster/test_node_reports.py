"""What is decided of what nodes say of themselves."""

import dataclasses

import pytest

from hkrun.cluster.nodes.reports import Needs, NodeReport, judge, note_versions
from hkrun.errors import DataError, ResourceError, StoreError

VERSIONS = {
    "torch": "2.15.0",
    "torchvision": "0.29",
    "numpy": "2.4.6",
    "scipy": "1.17",
    "pyarrow": "25.0",
    "ray": "2.60.0",
    "mlflow": "3.17",
}
NEEDS = Needs(
    store="/nfs/study",
    requirements=("torch>=2.11", "ray[tune]>=2.60,<3", "optuna>=5; extra == 'search'"),
    expected={"torch": "2.15.0", "numpy": "2.4.6"},
)


def report(name="a (10.0.0.1)", **changes):
    whole = NodeReport(name=name, python="3.11.7", versions=VERSIONS, code="abc")
    return dataclasses.replace(whole, **changes)


def lines(*reports, needs=NEEDS, place="/nfs/study"):
    problem = judge(reports, needs, place=place)
    return type(problem), [] if problem is None else problem.problems


def test_equal_nodes_that_see_everything_are_fine():
    assert lines(report(), report("b")) == (type(None), [])


def test_nodes_that_cannot_use_the_store_are_named_with_those_that_can_and_what_to_use_instead():
    kind, told = lines(
        report(),
        report("b", store="it is another folder there"),
        report("c", store="it is another folder there"),
    )
    assert kind is StoreError
    (line,) = told
    assert line == (
        "the store /nfs/study: nodes b and c cannot use it, only node a (10.0.0.1) can: it is another folder "
        "there; a path must name a folder that all nodes share (NFS), or use --store s3://BUCKET/PREFIX"
    )


def test_a_store_at_a_uri_is_not_told_to_become_one():
    _, told = lines(report(store="no credentials"), place="s3://lab/study")
    assert told == ["the store s3://lab/study: node a (10.0.0.1) cannot use it: no credentials"]


def test_missing_data_is_exit_code_3_and_stands_beside_the_store_where_both_are_missing():
    kind, told = lines(report(), report("b", data="there is no /data"))
    assert (kind, told) == (
        DataError,
        ["--data: node b cannot read it: there is no /data; it must be there on every node"],
    )
    kind, told = lines(report(store="no", data="there is no /data", files=("/w.pt",)))
    assert kind is StoreError
    assert [line.partition(":")[0] for line in told] == ["the store /nfs/study", "--data", "/w.pt"]


@pytest.mark.parametrize("found", ["2.10.0", None])
def test_a_version_that_hkrun_cannot_work_with_is_refused_before_anything_else(found):
    versions = {name: value for name, value in VERSIONS.items() if name != "torch"}
    versions |= {"torch": found} if found else {}
    kind, told = lines(report(), report("b", versions=versions, store="no"))
    assert (kind, told) == (
        ResourceError,
        [f"node b: torch>=2.11 is required, and {found or 'none'} is there"],
    )


def test_an_extra_of_hkruns_is_not_required():
    assert "optuna" not in VERSIONS
    assert lines(report()) == (type(None), [])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"python": "3.12.1"}, "Python: 3.11.7 on node a, 3.12.1 on node b"),
        ({"code": "def"}, "hkrun's code: abc on node a, def on node b"),
        ({"versions": VERSIONS | {"torch": "2.14.0"}}, "torch: 2.15.0 on node a, 2.14.0 on node b"),
    ],
)
def test_nodes_that_differ_are_refused(changes, what):
    kind, told = lines(report("a"), report("b", **changes))
    assert (kind, told) == (ResourceError, [f"the nodes differ in {what}; all must have the same"])


def test_builds_of_one_release_for_different_devices_do_not_differ():
    assert lines(report(), report("b", versions=VERSIONS | {"torch": "2.15.0+cu130"})) == (type(None), [])


def test_a_node_that_cannot_answer_is_refused_with_its_reason():
    kind, told = lines(report(), report("b", problem="gave no answer in 90 s"))
    assert (kind, told) == (ResourceError, ["b: gave no answer in 90 s"])


def test_versions_other_than_the_locks_are_noted_in_one_line():
    assert note_versions([report()], NEEDS) == []
    (note,) = note_versions([report(versions=VERSIONS | {"torch": "2.16.0"})], NEEDS)
    assert note.startswith(
        "the cluster has torch 2.16.0 (expected 2.15.0): results need not be equal to the bit"
    )


def test_of_many_nodes_some_are_named():
    _, (line,) = lines(*[report(f"n{number}", store="no") for number in range(8)])
    assert "nodes n0, n1, n2, n3, n4 and 3 more cannot use it: no" in line
