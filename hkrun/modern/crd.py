"""CRD, contrastive representation distillation (Tian, Krishnan and Isola, ICLR 2020)."""

import math

import torch
from torch import Tensor, nn

from hkrun.losses import unit_rows
from hkrun.modern.recipe import with_labels
from hkrun.terms import Key, Term

SMALL = 1e-7  # the authors'

# The constants of SplitMix64 (Steele, Lea and Flood 2014), as signed 64-bit integers.
STEP, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


class ContrastiveLoss(nn.Module):
    """CRD: whether a pair of embeddings, one of each network, is of one image or of two of different classes.

    Student and teacher descriptors are mapped to one width by a linear layer each, which are trained with the
    student, and scaled to length 1. Two memories hold the last embeddings of every training image. An image's
    embedding by the one network is compared with the other network's memory of the same image, and of
    `negatives` images drawn, with replacement, from those of other classes. With K of those, n images in all
    and scores h = exp(cosine / temperature) / Z, the loss is, as in eq. (18) and the authors' code,

        -log h / (h + K / n), summed with -log (K / n) / (h + K / n) over the negatives,

    averaged over the batch, of the student's embeddings and of the teacher's. Z makes the mean of the first
    batch's scores 1 / n.

    What is drawn follows from a number that the run's seed gives, a count of batches and the image, by
    SplitMix64: a checkpoint holds all of it.

    Args:
        student_width: Of the student's descriptor.
        teacher_width: Of the teacher's.
        num_images: n, training images.
        width: Of the embeddings.
        negatives: K, for each image.
        temperature: Above 0.
        momentum: Share of an image's old embedding in its new one in the memory, which has length 1.
    """

    student_memory: Tensor
    teacher_memory: Tensor
    student_scale: Tensor
    teacher_scale: Tensor
    classes: Tensor
    key: Tensor
    batches: Tensor

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        num_images: int,
        *,
        width: int,
        negatives: int,
        temperature: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self.embed_student = nn.Linear(student_width, width)
        self.embed_teacher = nn.Linear(teacher_width, width)
        for side in ("student", "teacher"):
            self.register_buffer(f"{side}_memory", torch.zeros(num_images, width))
            self.register_buffer(f"{side}_scale", torch.zeros(()))
        # The class of each image that was seen; the others' memories are random, of no class.
        self.register_buffer("classes", torch.full((num_images,), -1))
        self.register_buffer("key", torch.zeros((), dtype=torch.int64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self._negatives, self._temperature, self._momentum = negatives, temperature, momentum

    @torch.no_grad()
    def reset_random(self, generator: torch.Generator) -> None:
        """Fills the memories with noise and draws the key; `hkrun.models.initialise` calls it."""
        bound = 1 / math.sqrt(self.student_memory.shape[1] / 3)
        for memory in (self.student_memory, self.teacher_memory):
            noise = torch.empty(memory.shape, dtype=torch.float32)
            memory.copy_(noise.uniform_(-bound, bound, generator=generator))
        self.key.copy_(torch.randint(2**62, (), generator=generator))

    def forward(
        self, student_descriptor: Tensor, teacher_descriptor: Tensor, labels: Tensor, index: Tensor
    ) -> Tensor:
        """The loss of a batch, after which the memories hold its embeddings.

        Args:
            student_descriptor: Pooled features, shape [B, student_width].
            teacher_descriptor: Shape [B, teacher_width].
            labels: Shape [B].
            index: Which of the training images they are, shape [B], no two the same.
        """
        ours = unit_rows(self.embed_student(student_descriptor))
        theirs = unit_rows(self.embed_teacher(teacher_descriptor.detach()))
        compared = torch.cat([index[:, None], self._draw(labels, index)], dim=1)
        loss = self._contrast(ours, self.teacher_memory, self.student_scale, compared)
        loss = loss + self._contrast(theirs, self.student_memory, self.teacher_scale, compared)
        with torch.no_grad():
            for memory, fresh in ((self.student_memory, ours), (self.teacher_memory, theirs)):
                mixed = self._momentum * memory[index] + (1 - self._momentum) * fresh
                memory[index] = unit_rows(mixed)
        return loss

    def _contrast(self, embedded: Tensor, memory: Tensor, scale: Tensor, compared: Tensor) -> Tensor:
        """One side's loss; the first image that each is compared with is itself."""
        num_images = len(memory)
        # A copy: the memory changes before the gradient is computed.
        scores = (embedded @ memory.clone().T / self._temperature).exp().gather(1, compared)
        with torch.no_grad():
            scale.copy_(torch.where(scale > 0, scale, scores.mean() * num_images))
        scores = scores / scale
        noise = self._negatives / num_images
        same = (scores[:, :1] / (scores[:, :1] + noise + SMALL)).log()
        others = (noise / (scores[:, 1:] + noise + SMALL)).log()
        return -(same.sum() + others.sum()) / len(scores)

    @torch.no_grad()
    def _draw(self, labels: Tensor, index: Tensor) -> Tensor:
        """Images of other classes, [B, K]; each of them as likely as any other."""
        self.classes[index] = labels
        # Sorted by class, the images of one are together: those before and after them are drawn from.
        order = self.classes.argsort(stable=True)
        first = (self.classes < labels[:, None]).sum(dim=1, keepdim=True)
        own = (self.classes == labels[:, None]).sum(dim=1, keepdim=True)
        image = _mix(_mix(self.key + self.batches * STEP) + index * STEP)
        count = torch.arange(1, self._negatives + 1, device=index.device)
        drawn = _shift(_mix(image[:, None] + count * STEP), 1) % (len(order) - own)
        self.batches.add_(1)
        return order[torch.where(drawn < first, drawn, drawn + own)]


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's output function of 64-bit integers; what overflows is dropped."""
    state = (state ^ _shift(state, 30)) * FIRST
    state = (state ^ _shift(state, 27)) * SECOND
    return state ^ _shift(state, 31)


def _shift(values: Tensor, places: int) -> Tensor:
    """To the right, with zeros from the left."""
    return (values >> places) & ((1 << (64 - places)) - 1)


_SOURCE = "the authors' code (RepDistiller)"
FORM = Term(
    summary="which image a descriptor is of, among many (Tian et al. 2020)",
    function=ContrastiveLoss,
    student=("descriptor",),
    teacher=("descriptor",),
    labels=True,
    index=True,
    learns=True,
    num_images=True,
    over_batch=True,
    keys=(
        Key("crd.width", 128, "Width of the embeddings.", source=_SOURCE, minimum=1),
        Key("crd.negatives", 16384, "Images that each is compared with.", source=_SOURCE, minimum=1),
        Key("crd.temperature", 0.07, "What the cosines are divided by.", source=_SOURCE, above=0),
        Key(
            "crd.momentum",
            0.5,
            "Share of the old embedding in the memory.",
            source=_SOURCE,
            minimum=0,
            below=1,
        ),
    ),
)
METHOD = with_labels("crd", FORM, weight=0.8, kd=True, source=_SOURCE)
