"""Shells at a terminal, as a person has them: what TAB makes of a line, and what it lists."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path

_WAIT_S = 60
_ESCAPES = re.compile(r"\x1b(\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][0-9A-Z]|[=>])")
COMMANDS = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
    "fish": ("fish", "--no-config", "-i"),
}
# What each is told first. Ctrl-X Ctrl-P is to show the line between << and >>, and to clear it.
_START = {
    "bash": (
        "PS1='> '",
        "bind 'set bell-style none'",
        "bind 'set enable-bracketed-paste off'",
        """bind -x '"\\C-x\\C-p": printf "<<%s>>\\n" "$READLINE_LINE"; READLINE_LINE='""",
        'eval "$(hkrun completion bash)"',
    ),
    "zsh": (
        "PS1='> '; unsetopt prompt_cr prompt_sp",
        "autoload -Uz compinit; compinit -u -D",
        'show() { zle -I; print -r -- "<<$BUFFER>>"; BUFFER= }; zle -N show; bindkey "^X^P" show',
        'eval "$(hkrun completion zsh)"',
    ),
    "fish": (
        "function fish_prompt; echo '> '; end",
        'bind \\cx\\cp \'echo; echo "<<"(commandline)">>"; commandline -r ""; commandline -f repaint\'',
        "hkrun completion fish | source",
    ),
}


class Terminal:
    """An interactive shell at a terminal of 160 columns, with hkrun's completion as its users load it."""

    def __init__(self, shell: str, *, folder: Path, environment: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 160, 0, 0))
        self.process = subprocess.Popen(
            COMMANDS[shell],
            cwd=folder,
            env={**environment, "TERM": "xterm", "LC_ALL": "C.UTF-8"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self._output = ""
        for line in _START[shell]:
            self.run(line)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def complete(self, line: str, *, tabs: int = 1) -> tuple[str, str]:
        """Types a line and TABs; what the line is then, and what was shown. The line is cleared."""
        self._output = ""
        self._send(line + tabs * "\t" + "\x18\x10")
        self._read_until(">>")
        before, _, after = _ESCAPES.sub("", self._output).rpartition("<<")
        self._send("\x05\x15")  # Ctrl-E, Ctrl-U
        return after.partition(">>")[0], before

    def run(self, line: str) -> str:
        """Types a line and runs it; what was shown until it ended."""
        self._output = ""
        self._send(f"{line}; echo en''ded\n")
        self._read_until("ended\r")
        return _ESCAPES.sub("", self._output)

    def _send(self, text: str) -> None:
        os.write(self._master, text.encode())

    def _read_until(self, mark: str) -> None:
        deadline = time.monotonic() + _WAIT_S
        while mark not in self._output:
            ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {mark!r} in {self._output!r}"
            self._output += os.read(self._master, 65536).decode(errors="replace")
