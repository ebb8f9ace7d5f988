#!/usr/bin/env bash
# Guess: the newest versions of rliable and pandas that an installer finds to fit work together.
# Truth: rliable wants arch below 8, whose last version allows pandas 3 but calls a decorator of pandas' that takes
#        another argument there: `import rliable.library` raises TypeError.
# Hurts: who adds rliable to an environment with pandas 3: it installs without a word and cannot be imported.
. "$(dirname "$0")/isolated.bash"
without_wheel=rliable
packages rliable==1.2.0 pandas==3.1.1 numpy==2.4.6 scipy==1.17.1

python -W ignore - <<'PYTHON'
from importlib.metadata import version

print("rliable", version("rliable"), "arch", version("arch"), "pandas", version("pandas"))
assert version("arch") == "7.2.0"
try:
    import rliable.library  # noqa: F401
except TypeError as error:
    print("import rliable.library: TypeError:", error)
    assert "deprecate_kwarg" in str(error)
else:
    raise SystemExit("it is imported")
PYTHON
