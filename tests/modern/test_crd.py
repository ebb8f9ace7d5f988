"""CRD against its formula image by image in float64, torchdistill, and the distribution of what it draws."""

import copy
import math

import pytest
import torch
from torch.nn.functional import normalize
from torchdistill.losses.mid_level import CRDLoss

from hkrun.models import initialise
from hkrun.models.stacked import Stacked
from hkrun.modern.crd import ContrastiveLoss

NUM_IMAGES, BATCH, NEGATIVES, WIDTH = 30, 6, 12, 8
LABELS = torch.arange(NUM_IMAGES) % 3
TEMPERATURE, MOMENTUM = 0.0625, 0.25


def make_loss(seed=0, *, negatives=NEGATIVES):
    loss = ContrastiveLoss(
        4, 9, NUM_IMAGES, width=WIDTH, negatives=negatives, temperature=TEMPERATURE, momentum=MOMENTUM
    ).double()
    initialise(loss, torch.Generator().manual_seed(seed))
    return loss


def make_batch(step, *, run=0):
    generator = torch.Generator().manual_seed(100 * run + step)
    index = torch.randperm(NUM_IMAGES, generator=generator)[:BATCH]
    student, teacher = (
        torch.randn(BATCH, width, dtype=torch.float64, generator=generator) for width in (4, 9)
    )
    return student, teacher, LABELS[index], index


def drawn_by(loss, labels, index):
    """What the next batch will be compared with."""
    return copy.deepcopy(loss)._draw(labels, index)


def unit(row):
    length = math.sqrt(sum(value * value for value in row))
    return [value / length for value in row]


def embed(layer, row):
    weights, biases = layer.weight.tolist(), layer.bias.tolist()
    return unit(
        [sum(w * x for w, x in zip(ws, row, strict=True)) + b for ws, b in zip(weights, biases, strict=True)]
    )


def by_hand(loss, batches):
    """The loss of each batch, and the memories after the last, one image and one score at a time."""
    memories = {"student": loss.student_memory.tolist(), "teacher": loss.teacher_memory.tolist()}
    scale, found = {}, []
    for student, teacher, index, negatives in batches:
        embedded = {
            "student": [embed(loss.embed_student, row) for row in student.tolist()],
            "teacher": [embed(loss.embed_teacher, row) for row in teacher.tolist()],
        }
        total = 0.0
        for side, other in (("student", "teacher"), ("teacher", "student")):
            scores = [
                [
                    math.exp(
                        sum(x * y for x, y in zip(row, memories[other][place], strict=True)) / TEMPERATURE
                    )
                    for place in (own, *others)
                ]
                for row, own, others in zip(embedded[side], index.tolist(), negatives.tolist(), strict=True)
            ]
            everything = [score for row in scores for score in row]
            scale.setdefault(side, sum(everything) / len(everything) * NUM_IMAGES)
            noise = NEGATIVES / NUM_IMAGES
            for row in scores:
                own, *others = (score / scale[side] for score in row)
                total -= math.log(own / (own + noise + 1e-7)) / BATCH
                total -= sum(math.log(noise / (other + noise + 1e-7)) for other in others) / BATCH
        for side, memory in memories.items():
            for place, row in zip(index.tolist(), embedded[side], strict=True):
                mixed = [
                    MOMENTUM * old + (1 - MOMENTUM) * new for old, new in zip(memory[place], row, strict=True)
                ]
                memory[place] = unit(mixed)
        found.append(total)
    return found, memories


def test_crd_is_its_formula_and_its_memories_follow():
    loss = make_loss()
    batches, found = [], []
    expecting = copy.deepcopy(loss)
    for step in range(3):
        student, teacher, labels, index = make_batch(step)
        batches.append((student, teacher, index, drawn_by(loss, labels, index)))
        found.append(loss(student, teacher, labels, index).item())
    expected, memories = by_hand(expecting, batches)
    assert found == pytest.approx(expected, rel=1e-12)
    for side, memory in memories.items():
        torch.testing.assert_close(
            getattr(loss, f"{side}_memory"), torch.tensor(memory, dtype=torch.float64), rtol=1e-12, atol=1e-12
        )


def test_crd_agrees_with_torchdistill():
    ours = make_loss()
    theirs = CRDLoss(
        "norm", "empty", "norm", WIDTH, NUM_IMAGES, NEGATIVES, NUM_IMAGES, TEMPERATURE, MOMENTUM
    ).double()
    theirs.memory_v1.copy_(ours.student_memory)
    theirs.memory_v2.copy_(ours.teacher_memory)
    for step in range(3):
        student, teacher, labels, index = make_batch(step)
        compared = torch.cat([index[:, None], drawn_by(ours, labels, index)], dim=1)
        first, second = (student.clone().requires_grad_() for _ in range(2))
        found = ours(first, teacher, labels, index)
        expected = theirs(
            {
                "norm": {"output": normalize(ours.embed_student(second))},
                "empty": {"input": {"pos_idx": index, "contrast_idx": compared}},
            },
            {"norm": {"output": normalize(ours.embed_teacher(teacher))}},
        )
        found.backward()
        expected.sum().backward()
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(ours.student_memory, theirs.memory_v1, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours.teacher_memory, theirs.memory_v2, rtol=1e-12, atol=1e-12)


def test_negatives_are_of_other_classes_each_as_likely_as_any_other():
    loss = make_loss(negatives=2000)
    loss.classes.copy_(LABELS)
    _, _, labels, index = make_batch(0)
    drawn = loss._draw(labels, index)
    assert drawn.shape == (BATCH, 2000)
    for row, label in zip(drawn, labels, strict=True):
        counts = torch.bincount(row, minlength=NUM_IMAGES).double()
        others = label != LABELS
        assert counts[~others].sum() == 0
        # 20 images, 100 expected of each: the chi-square of 19 degrees passes 45 once in 1,500 rows.
        assert ((counts[others] - 100).square() / 100).sum() < 45
    # No two images, and no two batches, are compared with the same.
    rows = [tuple(row.tolist()) for row in torch.cat([drawn, loss._draw(labels, index)])]
    assert len(set(rows)) == 2 * BATCH


def test_an_image_that_was_not_seen_yet_is_drawn_by_every_class():
    loss = make_loss(negatives=2000)
    _, _, labels, index = make_batch(0)
    drawn = loss._draw(labels, index)
    seen = dict(zip(index.tolist(), labels.tolist(), strict=True))
    for row, label in zip(drawn, labels.tolist(), strict=True):
        assert {*row.tolist()} == {image for image in range(NUM_IMAGES) if seen.get(image) != label}


def test_draws_depend_on_the_seed_and_on_no_global_generator():
    _, _, labels, index = make_batch(0)
    found = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        found.append(make_loss(seed)._draw(labels, index))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_state_that_is_saved_and_loaded_goes_on_to_the_bit():
    undisturbed, stopped = make_loss(), make_loss()
    losses = [undisturbed(*make_batch(step)).item() for step in range(4)]
    for step in range(2):
        assert stopped(*make_batch(step)).item() == losses[step]
    resumed = make_loss(seed=1)
    resumed.load_state_dict(stopped.state_dict())
    assert [resumed(*make_batch(step)).item() for step in range(2, 4)] == losses[2:]
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_runs_that_train_together_have_draws_and_memories_of_their_own():
    members = [make_loss(seed) for seed in range(3)]
    alone = copy.deepcopy(members)
    together = Stacked(members)
    for step in range(3):
        batches = [make_batch(step, run=run) for run in range(3)]
        stacked = [torch.stack(parts) for parts in zip(*batches, strict=True)]
        found = together.each(lambda loss, *batch: loss(*batch), *stacked)
        expected = torch.stack([loss(*batch) for loss, batch in zip(alone, batches, strict=True)])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    found.sum().backward()
    for member, single in zip(members, alone, strict=True):
        for name, value in single.state_dict().items():
            torch.testing.assert_close(member.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    assert len({int(member.key) for member in members}) == 3
