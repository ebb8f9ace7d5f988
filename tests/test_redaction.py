import pytest

from hkrun.redaction import redact, redact_text


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://bucket/a", "s3://bucket/a"),
        ("s3://bucket/a/", "s3://bucket/a"),
        ("s3://bucket/a?region=x", "s3://bucket/a"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("s3://KEY@bucket/a", "s3://bucket/a"),
        ("s3://KEY:secret@bucket/a", "s3://bucket/a"),
        ("s3://KEY:secret@bucket/a?secret=secret", "s3://bucket/a"),
        ("s3://KEY:se/cret@bucket/a", "s3://bucket/a"),
        ("s3://KEY:se@cret@bucket/a", "s3://bucket/a"),
        ("s3://KEY:se?cret@bucket/a", "s3://bucket/a"),
        ("s3://KEY:se:c/r@e t@bucket/a", "s3://bucket/a"),
        ("--data=s3://KEY:secret@bucket/a", "--data=s3://bucket/a"),
        ("http://host:5000/mlflow", "http://host:5000/mlflow"),
        ("https://me:secret@host:5000", "https://host:5000"),
        ("postgresql://me:secret@host:5432/db", "postgresql://host:5432/db"),
        ("sqlite:////home/me@host/mlflow.db", "sqlite:////home/me@host/mlflow.db"),
        ("file:///home/a:b@c/data", "file:///home/a:b@c/data"),
        ("/home/me:you@host/a?b/", "/home/me:you@host/a?b/"),
    ],
)
def test_a_uri_loses_user_password_and_query_and_nothing_else(uri, shown):
    assert redact(uri) == shown
    assert redact(shown) == shown


def test_a_text_loses_them_in_every_uri():
    text = "no 's3://KEY:se/cret@bucket/a': see http://me:secret@host/x?token=secret and /home/me@host"
    assert redact_text(text) == "no 's3://bucket/a': see http://host/x and /home/me@host"


def test_a_text_loses_a_password_with_spaces_where_the_uri_is_known():
    uri = "s3://KEY:se cret's@bucket/a"
    assert redact_text(f"no {uri}/b", known=["", uri, "run"]) == "no s3://bucket/a/b"
