import pytest
from rich.cells import cell_len

from hkrun.config import keys
from hkrun.spaces import display_width, short_keys, shorten, shorten_names


def test_a_key_goes_without_its_section():
    assert short_keys(["loss.lambda_3", "student.learning_rate", "knowledge.form", "method"]) == {
        "loss.lambda_3": "lambda_3",
        "student.learning_rate": "lr",
        "knowledge.form": "form",
        "method": "method",
    }


def test_a_key_of_another_section_than_the_students_says_whose_it_is():
    assert short_keys(["teacher.learning_rate"]) == {"teacher.learning_rate": "teacher.lr"}
    assert short_keys(["student.epochs"]) == {"student.epochs": "epochs"}
    assert short_keys(["knowledge.tap"]) == {"knowledge.tap": "knowledge.tap"}


def test_keys_that_would_be_called_the_same_keep_their_sections():
    assert short_keys(["teacher.epochs", "student.epochs", "loss.mu"]) == {
        "teacher.epochs": "teacher.epochs",
        "student.epochs": "student.epochs",
        "loss.mu": "mu",
    }


def test_keys_of_ones_own_terms_are_shortened_too():
    assert short_keys(["cosine.power"]) == {"cosine.power": "power"}
    assert short_keys(["cosine.alpha"]) == {"cosine.alpha": "cosine.alpha"}  # there is loss.alpha
    assert short_keys(["cosine.lr", "student.learning_rate"]) == {
        "cosine.lr": "cosine.lr",
        "student.learning_rate": "student.learning_rate",
    }


def test_a_key_that_ends_like_a_column_of_the_tables_keeps_its_section():
    assert short_keys(["contrast.n", "contrast.seed"]) == {
        "contrast.n": "contrast.n",
        "contrast.seed": "contrast.seed",
    }


def test_all_keys_at_once_stay_distinct():
    short = short_keys(keys())
    assert list(short) == list(keys())
    assert len(set(short.values())) == len(short)


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("L_b + L_is", 10, "L_b + L_is"),
        ("abcdefghij", 9, "abcd…ghij"),
        ("abcdefghij", 8, "abcd…hij"),
        ("abcdefghij", 1, "…"),
        ("one two three four", 10, "one…four"),  # whole words, and no space beside the ellipsis
        ("momentum 0.8, as in the second cell", 21, "momentum…second cell"),
        ("momentum 0.8, as in the second cell", 25, "momentum 0.8…second cell"),
        ("without-the-adversarial-loss", 20, "without-…sarial-loss"),
        ("", 3, ""),
    ],
)
def test_a_long_name_loses_its_middle(text, width, short):
    assert shorten(text, width) == short


def test_the_width_is_that_of_the_terminal():
    assert shorten("한국어한국어", 12) == "한국어한국어"
    assert shorten("한국어한국어", 11) == "한국…한국어"
    assert shorten("한국어한국어", 10) == "한국…국어"  # 9 columns: a half character has no place
    assert shorten("한국어한국어", 5) == "한…어"


@pytest.mark.parametrize(
    "sign", ["e\u0301", "o\u0323\u0302", "नि", "❤\ufe0f", "👍🏽", "🇩🇪", "\u1100\u1161\u11a8"]
)
def test_what_is_seen_as_one_character_stays_whole(sign):
    text = sign * 9
    for width in range(1, display_width(text)):
        short = shorten(text, width)
        assert display_width(short) <= width
        assert set(short.replace(sign, "")) == {"…"}


@pytest.mark.parametrize(
    "text", ["L_b", "한국", "e\u0301a", "日b", "👍", "👍🏽", "❤\ufe0f", "नि", "\u1112\u1161\u11ab"]
)
def test_widths_are_those_that_rich_lays_tables_out_by(text):
    assert display_width(text) == cell_len(text)


def test_no_width_holds_nothing():
    with pytest.raises(ValueError, match="a width of 0 columns holds nothing"):
        shorten("abc", 0)
    with pytest.raises(ValueError, match="7 columns are too few to tell names apart"):
        shorten_names(["abc"], 7)


def test_shortened_names_stay_distinct():
    names = ["with the weight 0.1 of the loss", "with the weight 1.0 of the loss", "L_b"]
    assert shorten_names(names, 24) == {
        "with the weight 0.1 of the loss": "with the…0.1 of the loss",
        "with the weight 1.0 of the loss": "with the…1.0 of the loss",
        "L_b": "L_b",
    }


def test_names_that_no_cut_tells_apart_are_numbered():
    names = [f"{'a' * 20}{letter}{'b' * 20}" for letter in "xyz"]
    assert list(shorten_names(names, 12).values()) == ["aaaaa…bbbb 1", "aaaaa…bbbb 2", "aaaaa…bbbb 3"]
