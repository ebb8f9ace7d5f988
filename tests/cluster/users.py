"""Users of hkrun on a cluster, each in a process of their own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from started_cluster import clean_environment

from hkrun.store import open_store

REPOSITORY = Path(__file__).resolve().parents[2]
# Seconds of training, so that there is something to interrupt; alone in a pack, so that packs cannot differ.
STUDY = """
title = "A study of one's own"
dataset = "digits"
seeds = 2

[base]
method = "supervised"
student.epochs = 300
student.network = "smallnets:SmallNet"
teacher.network = "smallnets:SmallNet"

[[cells]]
name = "plain"

[[cells]]
name = "slower"
student.learning_rate = 0.01
"""
SMALL_NETS = """
from torch import nn
from hkrun.models import BatchNorm2d, Features
from widths import WIDTHS

class SmallNet(nn.Module):
    widths = WIDTHS
    stem_width = 4

    def __init__(self, *, num_classes, in_channels):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 4, 3, padding=1, bias=False)
        self.norm = BatchNorm2d(4)
        self.stage = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.last = BatchNorm2d(8)
        self.classifier = nn.Linear(8, num_classes)

    def forward(self, images):
        stem = self.stem(images)
        stage = self.stage(self.norm(stem).relu())
        descriptor = self.last(stage).relu().mean(dim=(2, 3))
        return Features(logits=self.classifier(descriptor), stages=(stage,), descriptor=descriptor, stem=stem)
"""
SWEEP = ("sweep", "study.toml", "--pack", "1")


class User:
    """Somebody who calls hkrun in a folder of their own, with a study and a network that nobody else has.

    Args:
        folder: The folder.
        token: What is in their environment.
        prefix: A command in front of each of theirs, such as `ip netns exec NAME`.
    """

    def __init__(self, folder: Path, *, token: str | None, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.prefix = prefix
        folder.mkdir(exist_ok=True)
        (folder / "study.toml").write_text(STUDY)
        (folder / "smallnets.py").write_text(SMALL_NETS)
        (folder / "widths.py").write_text("WIDTHS = (8,)\n")  # which the part imports
        tokens = {"RAY_AUTH_TOKEN": token} if token else {}
        self.environment = clean_environment(HOME=str(folder), PYTHONPATH=str(REPOSITORY), **tokens)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "hkrun", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        stdout, stderr = process.communicate(timeout=280)
        return process.returncode, stdout, stderr

    def document(self, *arguments: str) -> tuple[int, dict]:
        code, stdout, stderr = self.call(*arguments, "--json")
        assert stdout, stderr
        return code, json.loads(stdout)

    def store(self, name: str):
        return open_store(self.folder / name, create=False)


def curves(store) -> dict:
    """What training computed, to the bit: all curves but the seconds, and the weights."""
    found = {}
    for cell_id in store._files.folders("cells"):
        for record in store.records(cell_id):
            table = store.curves(cell_id, record.seed).drop_columns(["seconds"])
            found[cell_id, record.seed] = (table.to_pydict(), store.student(cell_id, record.seed))
    return found
