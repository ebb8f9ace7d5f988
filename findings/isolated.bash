# Sourced by each finding: a temporary folder with an environment of its own, gone when the finding ends.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Installs pinned packages, and nothing else, into the environment; `python` is its interpreter from then on. One that has no
# wheel is named in `without_wheel` before.
packages() {
  "${PYTHON:-python3}" -m venv "$folder/venv"
  PATH=$folder/venv/bin:$PATH
  unset PYTHONPATH
  cd "$folder"
  python -m pip install --quiet --disable-pip-version-check uv==0.13.9
  uv pip install --quiet --python venv/bin/python --only-binary :all: ${without_wheel:+--no-binary "$without_wheel"} "$@"
}
