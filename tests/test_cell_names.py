from hkrun.config import cell_from_values
from hkrun.spaces import (
    NamedCell,
    display_width,
    find_cell,
    fit_columns,
    name_cells,
    tell_cells,
    write_value,
)

LONG = "label supervision only, with no teacher at all"


def make(name, group="", **point):
    return NamedCell(name=name, cell=cell_from_values({}), group=group, point=point)


def test_cells_without_axes_have_their_names_alone():
    columns = name_cells([make("L_b"), make(LONG)])
    assert columns.headings == ("cell",)
    assert columns.fields == {"L_b": ("L_b",), LONG: (LONG,)}
    assert columns.labels == {"L_b": "L_b", LONG: LONG}
    assert columns.explanation == ""


def test_axes_are_columns_and_labels_with_short_keys():
    columns = name_cells(
        [
            make("loss.lambda_3=0.316", **{"loss.lambda_3": 0.316}),
            make(
                "loss.lambda_3=10.0, student.learning_rate=0.01",
                **{"loss.lambda_3": 10.0, "student.learning_rate": 0.01},
            ),
        ]
    )
    assert columns.headings == ("lambda_3", "lr")
    assert list(columns.fields.values()) == [("0.316", ""), ("10", "0.01")]
    assert list(columns.labels.values()) == ["lambda_3 = 0.316", "lambda_3 = 10, lr = 0.01"]
    assert columns.explanation == "lambda_3 is loss.lambda_3, lr is student.learning_rate."


def test_groups_keep_their_names_beside_their_axes():
    columns = name_cells([make("L_b"), make("all [method=kd]", "all", method="kd")])
    assert columns.headings == ("cell", "method")
    assert list(columns.fields.values()) == [("L_b", ""), ("all", "kd")]
    assert columns.labels["all [method=kd]"] == "all [method = kd]"
    assert columns.explanation == ""


def test_a_group_that_is_called_as_its_axis_is_not_said_twice():
    columns = name_cells([make("lambda_3 [loss.lambda_3=10.0]", "lambda_3", **{"loss.lambda_3": 10.0})])
    assert columns.headings == ("cell", "lambda_3")
    assert columns.labels == {"lambda_3 [loss.lambda_3=10.0]": "lambda_3 = 10"}


def test_a_cell_is_found_by_its_name_and_by_its_label_where_that_is_its_alone():
    labels = {"a=1.0, b=2.0": "a = 1, b = 2", "a=1.0, b=3.0": "a = 1, b = 3", "twin": "same", "other": "same"}
    assert find_cell("a=1.0, b=3.0", labels) == find_cell("a = 1, b = 3", labels) == "a=1.0, b=3.0"
    assert find_cell("same", labels) is None
    assert find_cell("a = 1", labels) is None


def test_cells_are_listed_apart_though_their_labels_hold_commas_and_at_most_six_of_them():
    labels = {f"a={a}.0, b=2.0": f"a = {a}, b = 2" for a in range(9)}
    assert tell_cells("a = 88, b = 2", dict([*labels.items()][:2])) == (
        "a = 0, b = 2; and a = 1, b = 2; did you mean 'a = 1, b = 2'?"
    )
    told = tell_cells("nothing", labels)
    assert told.startswith("a = 0, b = 2; a = 1, b = 2; ")
    assert told.endswith("; a = 5, b = 2; and 3 more")


def test_values_are_written_short_and_stay_distinct():
    values = [1.0, 0.316, 1e-05, 0.12345678, True, "kd", (0.5, 0.75), 3]
    assert list(map(write_value, values)) == [
        *("1", "0.316", "1e-05", "0.12345678", "true", "kd", "0.5, 0.75", "3")
    ]


def test_columns_that_fit_stay_as_they_are():
    columns = name_cells([make("L_b"), make(LONG)])
    fitted = fit_columns(columns, 46)
    assert (fitted.headings, fitted.fields) == (columns.headings, columns.fields)
    assert (fitted.notes, fitted.width) == ((), 46)


def test_the_widest_column_is_shortened_first_and_spelled_out():
    columns = name_cells([make(f"{LONG} [loss.mu={mu}]", LONG, **{"loss.mu": mu}) for mu in (0.5, 1.0)])
    fitted = fit_columns(columns, 30)
    assert fitted.headings == ("cell", "mu")
    assert list(fitted.fields.values()) == [
        ("label…no teacher at all", "0.5"),
        ("label…no teacher at all", "1"),
    ]
    assert fitted.notes == (f"label…no teacher at all: {LONG}",)
    assert fitted.width <= 30


def test_many_axes_keep_columns_that_can_be_told_apart():
    keys = ("student.first_stage_learning_rate", "quantization.scale_gradient", "quantization.uniform_start")
    columns = name_cells([make(str(value), **dict.fromkeys(keys, value)) for value in (1.0, 2.0)])
    fitted = fit_columns(columns, 10)
    assert all(display_width(heading) <= 8 for heading in fitted.headings)
    assert len(set(fitted.headings)) == 3
    assert [full for _, full in fitted.spelled_out] == list(columns.headings)
