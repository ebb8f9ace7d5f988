"""What looks like a path and was meant as a URI."""

import re

# Those that stores, data and MLflow may be at, and that a path never begins with by intention.
_SCHEMES = "s3|gs|gcs|abfss?|hdfs|viewfs|file|https?"
_SLIP = re.compile(rf"({_SCHEMES}):(?!//)", re.IGNORECASE)


def describe_slip(place: str) -> str:
    """What is wrong with a URI that has lost a slash, as pathlib leaves it; empty where nothing is.

    As a path it would be a folder of that name in the working directory. Nothing of the place but its scheme
    is told: it may hold a password.
    """
    found = _SLIP.match(place)
    if found is None:
        return ""
    scheme = found[1]
    return f"'{scheme}:' takes two slashes, {scheme.lower()}://...; a folder of that name is ./{scheme}:..."
