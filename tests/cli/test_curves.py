import csv
import json
from itertools import combinations

import numpy as np
import pytest

from hkrun.cli.program import call
from hkrun.stats import compare_deviation, compare_pair_stability, compare_stability


@pytest.fixture
def curves(folder):
    """A file with the curves of two cells, and their matrices of errors [runs, epochs]."""
    generator = np.random.default_rng(0)
    matrices = {"a": 5 + generator.random((4, 30)), "b": 5 + 2 * generator.random((6, 30))}
    with (folder / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "seed", "epoch", "error_pct"])
        rows = [
            (cell, 10 * seed, epoch + 1, repr(float(errors[seed, epoch])))
            for cell, errors in matrices.items()
            for seed in range(errors.shape[0])
            for epoch in range(errors.shape[1])
        ]
        generator.shuffle(rows)
        writer.writerows(rows)
    return matrices


def test_stability_is_the_variance_of_the_range_over_the_last_epochs(curves, document, capsys):
    code, told = document("stability", "curves.csv", "--window", "12", "--ddof", "1")
    assert code == 0
    assert sorted(cell["cell"] for cell in told["cells"]) == ["a", "b"]
    for cell in told["cells"]:
        late = curves[cell["cell"]][:, -12:]
        ranges = late.max(axis=0) - late.min(axis=0)
        names = {"cell", "s", "ddof", "s_ddof1", "window", "runs", "mean_range", "ci95", "epochs"}
        assert set(cell) == names | {"within_run_sd", "extreme_runs", "s2", "sd_last"}
        assert cell["epochs"] == [19, 30]
        assert (cell["ddof"], cell["window"], cell["runs"]) == (1, 12, len(late))
        assert cell["s"] == pytest.approx(ranges.var(ddof=1), rel=1e-12)
        assert cell["s_ddof1"] == cell["s"]
        assert cell["mean_range"] == pytest.approx(ranges.mean(), rel=1e-12)
        low, high = cell["ci95"]
        assert low < cell["s"] < high
    assert document("stability", "curves.csv", "--window", "12", "--ddof", "1") == (0, told)
    assert call(["stability", "curves.csv", "--window", "12"]) == 0
    s = np.ptp(curves["a"][:, -12:], axis=0).var()
    assert f" {s:.4g} " in capsys.readouterr().out


def write_curves(path, matrices, *, seeds=None):
    """Writes errors [runs, epochs] by cell; `seeds` by cell where they are not 0, 1, 2, ..."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "seed", "epoch", "error_pct"])
        for cell, errors in matrices.items():
            for (run, epoch), error in np.ndenumerate(errors):
                writer.writerow([cell, (seeds or {}).get(cell, range(len(errors)))[run], epoch, float(error)])


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_cells_whose_s_cannot_be_ranked_are_named_and_others_are_not(folder, document, capsys, scale):
    generator = np.random.default_rng(1)
    noise = generator.random((2, 20, 30))
    write_curves(folder / "curves.csv", {"a": 5 + noise[0], "b": 5 + scale * noise[1]})
    comparison = compare_stability(
        5 + noise[0], 5 + scale * noise[1], window=20, generator=np.random.default_rng(0)
    )
    assert (comparison.p > 0.05) == (scale == 1.0)
    assert call(["stability", "curves.csv", "--window", "20"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert ("S cannot rank a and b: 20 runs cannot tell them apart" in told) == (scale == 1.0)
    assert call(["stability", "curves.csv", "--window", "20", "--json"]) == 0
    out, err = capsys.readouterr()
    assert set(json.loads(out)) == {"cells", "comparisons", "warnings", "read", "cut"}
    assert len(json.loads(out)["warnings"]) == (2 if scale == 1.0 else 0)
    assert ("S cannot rank a and b" in err) == (scale == 1.0)


def test_s_of_runs_that_are_not_paired_is_not_ranked(folder, capsys):
    noise = np.random.default_rng(2).random((3, 6, 10))
    matrices = {"a": 5 + noise[0], "b": 5 + noise[1], "c": 5 + noise[2, :4]}
    write_curves(folder / "curves.csv", matrices, seeds={"b": range(1, 7)})
    assert call(["stability", "curves.csv", "--window", "5"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "S of different numbers of runs is not comparable" in told
    assert "6 of a, 6 of b, 4 of c" in told
    assert "S cannot rank a and b: their seeds differ" in told
    assert "S cannot rank a and c" not in told
    assert "compared by S2 and sd as independent runs" in told


def test_curves_that_s_is_not_defined_for_are_refused(curves, document):
    code, told = document("stability", "curves.csv")
    assert code == 2
    assert all("window of 100" in line for line in told["error"]["problems"])


def write_wide(path, runs, *, first=1):
    """A column per run, from lists of values; a shorter run leaves its fields empty."""
    rows = [["epoch", *runs]]
    for index in range(max(map(len, runs.values()))):
        values = [run[index] if index < len(run) else "" for run in runs.values()]
        rows.append([first + index, *values])
    path.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")


def make_runs(lengths, *, scale=1.0, level=5.0, seed=3):
    """A falling curve for each run, by name."""
    generator = np.random.default_rng(seed)
    return {
        name: (60 / np.arange(1, length + 1) + level + scale * generator.random(length)).round(4).tolist()
        for name, length in lengths.items()
    }


def test_curves_of_different_ends_are_refused_with_the_cut_that_makes_them_comparable(folder, document):
    runs = make_runs({"a/0": 30, "a/1": 30, "b/0": 24, "b/1": 24})
    write_wide(folder / "curves.csv", runs)
    code, told = document("stability", "curves.csv", "--window", "10")
    assert code == 2
    assert told["error"]["problems"] == [
        "the last 10 epochs are not the same: 21-30 of 'a', 15-24 of 'b'; --cut 24 ends all curves there"
    ]
    code, told = document("stability", "curves.csv", "--window", "10", "--cut", "24")
    assert (code, told["cut"]) == (0, 24)
    for cell in told["cells"]:
        late = np.array([runs[f"{cell['cell']}/{seed}"][14:24] for seed in (0, 1)])
        assert cell["epochs"] == [15, 24]
        assert cell["s"] == pytest.approx(np.ptp(late, axis=0).var(), rel=1e-12)
    assert call(["stability", "curves.csv", "--window", "10", "--cut", "24"]) == 0


def test_the_cut_is_told_to_people(folder, capsys):
    write_wide(folder / "curves.csv", make_runs({"0": 30, "1": 24}))
    assert call(["stability", "curves.csv", "--window", "10"]) == 2
    assert "seed 1, epochs 25-30: no value" in (err := capsys.readouterr().err)
    assert err.endswith("leave it out whole, or end all with --cut 24\n")
    assert call(["stability", "curves.csv", "--window", "10", "--cut", "24"]) == 0
    assert "All curves are cut at 24." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lengths", "cut", "problem"),
    [
        (
            {"a/0": 30, "a/1": 30, "b/0": 24, "b/1": 24},
            27,
            "--cut 27: curves end at epoch 24 in 'b'; --cut 24",
        ),
        ({"a/0": 30, "a/1": 30}, 40, "--cut 40: curves end at epoch 30 in 'a'; --cut 30 suits all"),
        ({"a/0": 30, "a/1": 30}, 0, "curves.csv: cell 'a': it has no values up to --cut 0"),
        (
            {"a/0": 30, "a/1": 30},
            9,
            "curves.csv: cell 'a': epochs 1-9: 9 in all, fewer than the window of 10",
        ),
    ],
)
def test_a_cut_that_does_not_end_all_curves_is_refused(folder, document, lengths, cut, problem):
    write_wide(folder / "curves.csv", make_runs(lengths))
    code, told = document("stability", "curves.csv", "--window", "10", "--cut", str(cut))
    assert code == 2
    assert told["error"]["problems"][0].startswith(problem)


def test_no_cut_is_advised_that_leaves_too_few_epochs(folder, document):
    write_wide(folder / "curves.csv", make_runs({"0": 30, "1": 6}))
    (problem,) = document("stability", "curves.csv", "--window", "10")[1]["error"]["problems"]
    assert problem.endswith("no value; complete the run or leave it out whole")


def test_a_cell_per_file_is_called_like_the_file_and_each_tells_its_own_unit(folder, document):
    errors = make_runs({"0": 20, "1": 20, "2": 20})
    write_wide(folder / "old.csv", errors)
    accuracies = {seed: [round((100 - value) / 100, 8) for value in run] for seed, run in errors.items()}
    write_wide(folder / "new.csv", accuracies)
    code, told = document("stability", "old.csv", "new.csv", "--window", "10")
    assert code == 0
    assert [cell.pop("cell") for cell in told["cells"]] == ["old", "new"]
    assert told["cells"][0] == told["cells"][1]
    units = {each["source"]: (each["quantity"], each["unit"]) for each in told["read"]}
    assert units == {"old.csv": ("error", "percent"), "new.csv": ("accuracy", "fraction")}
    equal = {"ratio": 1.0, "ci95": [1.0, 1.0], "p": 1.0, "paired": True, "p_holm": 1.0}
    assert told["comparisons"] == [
        {
            "cell": "new",
            "reference": "old",
            "p": 1.0,
            "p_holm": 1.0,
            "reason": "3 runs are too few: p cannot be below 0.25; 6 are needed",
            "s2": equal,
            "sd_last": equal,
        }
    ]


def test_a_cell_that_is_in_two_files_is_refused(folder, document):
    for name in ("x.csv", "y.csv"):
        write_wide(folder / name, make_runs({"a/0": 10, "a/1": 10}))
    code, told = document("stability", "x.csv", "y.csv", "--window", "5")
    assert (code, told["error"]["problems"]) == (2, ["y.csv: cell 'a' is in x.csv too"])


def test_a_ranking_is_told_with_both_s_and_the_corrected_p(folder, capsys):
    runs = make_runs({f"calm/{seed}": 30 for seed in range(10)}, scale=0.1)
    runs |= make_runs({f"wild/{seed}": 30 for seed in range(10)}, scale=8.0, seed=4)
    write_wide(folder / "curves.csv", runs)
    assert call(["stability", "curves.csv", "--window", "20"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "By S, wild is less steady than calm: " in told
    assert "By S2, wild is less steady than calm: " in told
    assert "By the sd at the end, wild is more spread out than calm: " in told
    assert "cannot rank" not in told
    assert call(["stability", "curves.csv", "--window", "20", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (pair,) = document["comparisons"]
    assert pair["reason"] is None
    assert pair["p_holm"] == pair["p"] < 0.05
    late = {cell: np.array([runs[f"{cell}/{seed}"][-20:] for seed in range(10)]) for cell in ("calm", "wild")}
    for name, compare, told in (
        ("s2", lambda *cells: compare_pair_stability(*cells, window=20), late),
        ("sd_last", compare_deviation, {cell: errors[:, -1] for cell, errors in late.items()}),
    ):
        expected = compare(told["wild"], told["calm"])
        assert pair[name]["ratio"] == pytest.approx(expected.ratio, rel=1e-9)
        assert pair[name]["ci95"] == pytest.approx(expected.ci95, rel=1e-9)
        assert pair[name]["p_holm"] == pair[name]["p"] == pytest.approx(expected.p, rel=1e-9)
    for cell in document["cells"]:
        pairs = [np.abs(a - b).var() for a, b in combinations(late[cell["cell"]], 2)]
        assert cell["s2"]["s2"] == pytest.approx(np.mean(pairs), rel=1e-12)
        assert cell["s2"]["pairs"] == 45
        assert cell["sd_last"]["sd"] == pytest.approx(late[cell["cell"]][:, -1].std(ddof=1), rel=1e-9)


@pytest.mark.parametrize(("runs", "doubts"), [(9, 2), (10, 0)])
def test_verdicts_of_few_runs_are_told_with_how_often_they_are_wrong(folder, document, runs, doubts):
    curves = make_runs({f"calm/{seed}": 30 for seed in range(12)}, scale=0.1)
    curves |= make_runs({f"wild/{seed}": 30 for seed in range(runs)}, scale=8.0, seed=4)
    write_wide(folder / "curves.csv", curves)
    answer = document("stability", "curves.csv", "--window", "20")[1]
    (pair,) = answer["comparisons"]
    assert max(pair["s2"]["p_holm"], pair["sd_last"]["p_holm"]) <= 0.05
    told = [text for text in answer["warnings"] if text.startswith("With fewer than 10 runs the test of ")]
    assert [text.removeprefix("With fewer than 10 runs the test of ")[:2] for text in told] == ["S2", "st"][
        :doubts
    ]


def test_what_s_is_made_of_is_told(folder, capsys, document):
    errors = 5 + np.zeros((6, 10))
    errors[4], errors[1, ::2], errors[2, 1::2] = 9, 1, 1  # run 4 is the worst, 1 and 2 the best in turns
    write_curves(folder / "curves.csv", {"a": errors + np.linspace(3, 0, 10)})
    assert document("stability", "curves.csv", "--window", "8")[1]["cells"][0]["extreme_runs"] == 3
    assert call(["stability", "curves.csv", "--window", "8"]) == 0
    assert "S is made of 3 of 6 runs, those that are ever the best or the worst" in " ".join(
        capsys.readouterr().out.split()
    )


def test_seeds_that_differ_are_compared_by_s2_as_independent_runs(folder, document):
    noise = np.random.default_rng(5).random((2, 9, 10))
    write_curves(folder / "curves.csv", {"a": 5 + noise[0], "b": 5 + 6 * noise[1, :7]})
    (pair,) = document("stability", "curves.csv", "--window", "10")[1]["comparisons"]
    expected = compare_pair_stability(5 + 6 * noise[1, :7], 5 + noise[0], window=10, paired=False)
    assert pair["p"] is None
    assert pair["s2"]["paired"] is False
    assert pair["s2"]["p"] == pytest.approx(expected.p, rel=1e-9)
    assert expected.p < 0.01


def test_many_pairs_are_told_in_a_few_lines(folder, capsys, document):
    runs = {}
    for place in range(5):
        scale = 0.1 if place < 2 else 8.0
        runs |= make_runs({f"c{place}/{seed}": 30 for seed in range(12)}, scale=scale, seed=place)
    write_wide(folder / "curves.csv", runs)
    assert call(["stability", "curves.csv", "--window", "20"]) == 0
    told = capsys.readouterr().out
    assert told.count("By S, ") == told.count("By S2, ") == 6
    assert told.count("S cannot rank") == told.count("S2 cannot rank") == 1
    assert (
        "S cannot rank c0 and c1; c2 and c3; c2 and c4; c3 and c4: 12 runs cannot tell them apart"
        in " ".join(told.split())
    )
    only = [f"c{place}/{seed}" for place in range(2, 5) for seed in range(12)]
    write_wide(folder / "curves.csv", {name: runs[name] for name in only})
    _, answer = document("stability", "curves.csv", "--window", "20")
    warning, of_s2 = answer["warnings"]
    assert of_s2.startswith("S2 cannot rank c2 and c3 (ratio ")
    least = min(pair["p_holm"] for pair in answer["comparisons"])
    apart = "12 runs cannot tell them apart"
    assert warning.startswith(f"S cannot rank any two of the 3 cells: {apart} (Holm p")
    assert f"{least:.2g})" in warning


def test_what_was_read_is_told_with_what_told_it(folder, capsys, document):
    rows = [(trial, epoch, 0.5 + epoch / 100) for trial in (4, 5) for epoch in range(1, 11)]
    text = "\n".join(f"{trial};{epoch};{str(value).replace('.', ',')};1" for trial, epoch, value in rows)
    (folder / "log.csv").write_text(f"trial;epoch;val_acc;x\n{text}\n")
    options = ["log.csv", "--seed", "trial", "--value", "val_acc", "--window", "5"]
    assert call(["stability", *options]) == 0
    told = " ".join(capsys.readouterr().out.split())
    expected = "val_acc: accuracies, told by its name, in fractions, told by the values."
    assert f"log.csv: long CSV; {expected}" in told
    _, answer = document("stability", *options)
    assert answer["read"] == [
        {
            "source": "log.csv",
            "form": "long CSV",
            "value": "val_acc",
            "quantity": "accuracy",
            "quantity_from": "name",
            "unit": "fraction",
            "unit_from": "values",
            "steps_per_epoch": [1],
            "runs": 2,
            "left_out": [],
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "name a FILE or DIR with curves, or --mlflow URI"),
        (["--experiment", "x"], "--experiment: an experiment of MLflow; --mlflow URI says where that is"),
        (["--mlflow", "mlflow.db"], "--mlflow: whose runs? --experiment NAME"),
        (["a.csv", "--mlflow", "x", "--experiment", "y"], "a.csv: either files, or --mlflow"),
        (["absent.csv"], "absent.csv: No such file or directory"),
        (["absent"], "absent: no such file; for a sweep of the store: hkrun report absent"),
    ],
)
def test_arguments_that_name_no_curves_are_one_line(folder, document, arguments, problem):
    code, told = document("stability", *arguments)
    assert (code, told["error"]["problems"]) == (2, [problem])
