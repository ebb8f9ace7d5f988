"""HKSANC as the field trains it: the loop that hkrun is measured against.

One process per seed. A DataLoader whose workers crop, mirror and normalise one image at a time; the teacher's
forward pass at every step; torch's SGD; losses read at every step for the progress line. Written to be a
plain loop, not a slow one: the networks are hkrun's own, cuDNN may choose its fastest algorithms, workers
persist, memory is pinned. tests/test_benchmarks.py holds its losses and its step against hkrun's in float64.

    python benchmarks/reference.py                        # 50 steps at CIFAR's size, on generated images
    python benchmarks/reference.py --size digits --steps 200

Needs torch and numpy beside hkrun itself.
"""

import argparse
import itertools
import pickle
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hkrun.config import Cell, cell_from_values
from hkrun.models import AttentionEstimator, Discriminator, DistilledNetwork, build_network

CLASSES = 10
TRAINING_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
LEARNING_RATE, DISCRIMINATOR_LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 1e-3, 0.9, 1e-4


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large images and networks are."""

    dataset: str
    teacher: str
    student: str
    side: int
    channels: int
    padding: int
    flip: bool
    batch_size: int = 64
    method: str = "hksanc"
    precision: str = "float32"

    @property
    def cell(self) -> Cell:
        """The cell of this size in hkrun: its method with all its terms."""
        return cell_from_values(
            {
                "dataset": self.dataset,
                "method": self.method,
                "precision": self.precision,
                "teacher.network": self.teacher,
                "student.network": self.student,
                "student.batch_size": self.batch_size,
                "augment.padding": self.padding,
                "augment.flip": self.flip,
            }
        )


SIZES = {
    "cifar": Size(
        dataset="cifar10",
        teacher="preact-164",
        student="preact-20",
        side=32,
        channels=3,
        padding=4,
        flip=True,
    ),
    "digits": Size(
        dataset="digits",
        teacher="preact-8-w32",
        student="preact-8-w4",
        side=8,
        channels=1,
        padding=1,
        flip=False,
    ),
}


# --- images -------------------------------------------------------------------------------------------------


def generate_images(folder: Path, size: Size, *, num_images: int, seed: int = 0) -> None:
    """Writes random images in the files of CIFAR-10's Python version: a pattern per class, and noise."""
    generator = np.random.default_rng(seed)
    patterns = generator.uniform(40, 215, (CLASSES, size.channels * size.side**2))
    for name in TRAINING_FILES:
        labels = generator.integers(0, CLASSES, num_images // len(TRAINING_FILES))
        noise = generator.normal(0, 40, (len(labels), patterns.shape[1]))
        content = {
            "batch_label": name,
            "labels": labels.tolist(),
            "data": (patterns[labels] + noise).clip(0, 255).astype(np.uint8),
            "filenames": ["generated.png"] * len(labels),
        }
        (folder / name).write_bytes(pickle.dumps(content))


def read_images(folder: Path, size: Size) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, side, side, channels] and labels [N] of such files."""
    parts = [pickle.loads((folder / name).read_bytes()) for name in TRAINING_FILES]
    data = np.concatenate([part["data"] for part in parts])
    images = data.reshape(-1, size.channels, size.side, size.side).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.concatenate([part["labels"] for part in parts])


class AugmentedImages(Dataset[tuple[Tensor, int]]):
    """RandomCrop, RandomHorizontalFlip, ToTensor and Normalize, one image at a time."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], size: Size) -> None:
        self.images, self.labels, self.size = images, labels, size
        pixels = images.reshape(-1, size.channels) / 255
        self.mean = torch.tensor(pixels.mean(axis=0), dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(pixels.std(axis=0), dtype=torch.float32).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        padding, side = self.size.padding, self.size.side
        padded = np.zeros((side + 2 * padding, side + 2 * padding, self.size.channels), dtype=np.uint8)
        padded[padding : padding + side, padding : padding + side] = self.images[index]
        top, left = torch.randint(0, 2 * padding + 1, (2,)).tolist()
        image = padded[top : top + side, left : left + side]
        if self.size.flip and torch.rand(1) < 0.5:
            image = image[:, ::-1]
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div_(255)
        return tensor.sub_(self.mean).div_(self.std), int(self.labels[index])


# --- networks -----------------------------------------------------------------------------------------------


def build_teacher(size: Size) -> DistilledNetwork:
    """A teacher with its attention sub-network, frozen; the weights do not matter for the time."""
    teacher = _with_attention(size.teacher, size, size.cell.squeeze_widths)
    return teacher.requires_grad_(False).eval()


def build_student(size: Size) -> DistilledNetwork:
    """A student with its attention sub-network."""
    return _with_attention(size.student, size, size.cell.squeeze_widths)


def _with_attention(name: str, size: Size, widths: tuple[int, ...]) -> DistilledNetwork:
    backbone = build_network(name, num_classes=CLASSES, in_channels=size.channels)
    attention = AttentionEstimator(
        backbone.widths,
        descriptor_width=backbone.descriptor_width,
        connection="hierarchical",
        pool=size.cell.attention.pool,
        tap=size.cell.attention.tap,
        squeeze_widths=widths,
    )
    return DistilledNetwork(backbone, attention)


# --- the loop -----------------------------------------------------------------------------------------------


class Training:
    """One seed in training.

    Args:
        cell: The weights of the losses.
        teacher: Frozen and in eval mode.
        student: In train mode.
        discriminator: Judges logits.
        device: Where all are.
    """

    def __init__(
        self,
        cell: Cell,
        teacher: DistilledNetwork,
        student: DistilledNetwork,
        discriminator: Discriminator,
        *,
        device: torch.device,
    ) -> None:
        self.loss, self.device = cell.loss, device
        self.teacher, self.student, self.discriminator = teacher, student, discriminator
        self.optimizer = _sgd(student, LEARNING_RATE)
        self.discriminator_optimizer = _sgd(discriminator, DISCRIMINATOR_LEARNING_RATE)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """One batch; what the progress line shows of it."""
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        with torch.no_grad():
            target = self.teacher(images)
        output = self.student(images)

        on_teacher = self.discriminator(target.logits)
        on_student = self.discriminator(output.logits.detach())
        ones, zeros = torch.ones_like(on_teacher.source), torch.zeros_like(on_teacher.source)
        weights = torch.cat([parameter.flatten() for parameter in self.discriminator.parameters()])
        discriminator_loss = (
            F.binary_cross_entropy_with_logits(on_teacher.source, ones)
            + F.binary_cross_entropy_with_logits(on_student.source, zeros)
            + F.cross_entropy(on_teacher.classes, labels)
            + F.cross_entropy(on_student.classes, labels)
            + self.loss.mu
            * (
                weights.abs().mean()
                + weights.square().mean()
                + F.binary_cross_entropy_with_logits(on_student.source, ones)
            )
        )
        self.discriminator_optimizer.zero_grad()
        discriminator_loss.backward()
        self.discriminator_optimizer.step()

        verdict = self.discriminator(output.logits)
        backbone = F.mse_loss(output.logits, target.logits)
        adversarial = F.binary_cross_entropy_with_logits(verdict.source, ones)
        adversarial = adversarial + F.cross_entropy(verdict.classes, labels)
        knowledge = F.mse_loss(output.knowledge, target.knowledge)
        loss = (
            self.loss.lambda_1 * backbone + self.loss.lambda_2 * adversarial + self.loss.lambda_3 * knowledge
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {
            "loss_total": loss.item(),
            "loss_backbone": backbone.item(),
            "loss_adversarial": adversarial.item(),
            "loss_knowledge": knowledge.item(),
            "loss_discriminator": discriminator_loss.item(),
        }


def _sgd(network: nn.Module, learning_rate: float) -> torch.optim.SGD:
    return torch.optim.SGD(
        network.parameters(), lr=learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )


def start_training(size: Size, seed: int, *, device: torch.device) -> Training:
    """A seed's networks, on the device."""
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = True
    networks = build_teacher(size), build_student(size), Discriminator(CLASSES, num_classes=CLASSES)
    teacher, student, discriminator = (network.to(device) for network in networks)
    return Training(size.cell, teacher, student, discriminator, device=device)


def endless_batches(
    folder: Path, size: Size, *, workers: int, device: torch.device
) -> Iterator[list[Tensor]]:
    """The DataLoader's batches, epoch after epoch."""
    loader = DataLoader(
        AugmentedImages(*read_images(folder, size), size),
        batch_size=size.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    while True:
        yield from loader


def main() -> None:
    """Trains some steps and prints their losses and the time of one."""
    parser = argparse.ArgumentParser(description="HKSANC as the field trains it, on generated images.")
    parser.add_argument("--size", choices=SIZES, default="cifar")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2, help="of the DataLoader")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    size, device = SIZES[options.size], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        generate_images(Path(folder), size, num_images=5_120)
        batches = endless_batches(Path(folder), size, workers=options.workers, device=device)
        training = start_training(size, options.seed, device=device)
        started = time.perf_counter()
        for number, (images, labels) in enumerate(itertools.islice(batches, options.steps), start=1):
            figures = training.step(images, labels)
            line = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
            print(f"{number:5}  {(time.perf_counter() - started) / number * 1000:7.1f} ms  {line}")


if __name__ == "__main__":
    main()
