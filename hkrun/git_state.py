"""Which state of the code it is: the commit of its repository, and whether something differs from it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True)
class GitState:
    """The state of a working tree.

    Attributes:
        commit: The commit that it is at, in full.
        changed: Paths that differ from it or that git does not know, as `git status` lists them.
    """

    commit: str
    changed: tuple[str, ...]

    @property
    def label(self) -> str:
        """The state in a word, such as `31034ee` or `31034ee+dirty`."""
        return self.commit[:12] + ("+dirty" if self.changed else "")

    def document(self) -> dict[str, object]:
        """The state for JSON documents."""
        return {"commit": self.commit, "dirty": bool(self.changed)}


def read_state(folder: Path) -> GitState | None:
    """The state of what is below a folder; None where no repository tracks any of it, or there is no git.

    Changes elsewhere in the repository do not count, and neither does what git is told to ignore.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None or not _git(folder, "ls-files", "-z", "--", "."):
        return None
    status = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", ".") or ""
    return GitState(commit=commit.strip(), changed=tuple(line[3:] for line in status.splitlines()))


def _git(folder: Path, *arguments: str) -> str | None:
    """What a command of git prints; None where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
