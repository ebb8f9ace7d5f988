"""The loop of every method, epoch by epoch."""

import time
from collections.abc import Callable, Mapping, Sequence

from hkrun.config import learning_rate
from hkrun.distill.graphs import Replays, choose_recorder
from hkrun.distill.pack import Pack
from hkrun.distill.run import Run, enter_stage, find_stage
from hkrun.distill.step import Step, Teach, ask_each
from hkrun.training import (
    STUDENT_DRAWS,
    Averages,
    Context,
    Images,
    find_behind,
    find_divergence,
)


def distill(
    runs: Sequence[Run],
    *,
    images: Images,
    teach: Mapping[int, Teach],
    context: Context,
    on_epoch: Callable[[Sequence[Run]], None],
) -> None:
    """Trains runs to their last epoch, each from wherever it stands, as many together as can be.

    Those that are behind go first, until all are at the same epoch. One whose loss or logits are no longer
    finite ends there, its `diverged` set, and the others go on without it.

    Args:
        runs: Runs of one cell; they are changed in place.
        images: Each epoch takes its batches from the training set, and then the errors on the test set.
        teach: What the teacher of each run says of a batch, by the run's seed; empty where the method uses
            none.
        context: Where the loop runs; with several workers, there is one run.
        on_epoch: Called after each epoch with those that trained in it, when their state is whole.
    """
    pack: Pack | None = None
    while together := find_behind(runs, epochs=sum(runs[0].cell.stage_epochs)):
        started = time.perf_counter()
        cell, epoch = together[0].cell, together[0].epoch
        stage, stage_epoch = find_stage(cell, epoch)
        if stage > 0 and stage_epoch == 0:
            for run in together:
                enter_stage(run, stage)
        if pack is None or pack.runs != together or stage_epoch == 0:
            pack = Pack(together)
            replays = Replays(pack, choose_recorder(pack, stage, context))
        rate = set_rates(pack, stage, stage_epoch)
        pack.train()
        averages = Averages(context)
        batches = images.training.batches(
            [run.seed for run in together],
            epoch,
            batch_size=cell.student.batch_size,
            draws=STUDENT_DRAWS,
            context=context,
        )
        taught = cell.stage_uses_teacher(stage)
        teaching = ask_each([teach[run.seed] for run in together]) if taught else None
        step = Step(pack, stage, teaching, context, replays)
        for batch in batches:
            averages.add(step.train(batch))
        figures = averages.read()
        errors = images.test.evaluate_each(
            pack.classify, len(together), precision=cell.precision, context=context
        )
        seconds = (time.perf_counter() - started) / len(together)
        for run, own_figures, own_errors in zip(together, figures, errors, strict=True):
            run.diverged = find_divergence(own_figures, own_errors, epoch=epoch + 1)
            if run.diverged is None:
                run.history.append(
                    {
                        "epoch": epoch + 1,
                        "error_pct": own_errors.top1_pct,
                        "error_top5_pct": own_errors.top5_pct,
                        **({"stage": stage + 1} if len(cell.stage_epochs) > 1 else {}),
                        **own_figures,
                        "learning_rate": rate,
                        "seconds": seconds,
                    }
                )
        on_epoch(together)


def set_rates(pack: Pack, stage: int, stage_epoch: int) -> float:
    """Sets the learning rates of an epoch; returns the student's."""
    cell = pack.runs[0].cell

    def rate(first: float) -> float:
        return learning_rate(
            stage_epoch,
            first=first,
            epochs=cell.stage_epochs[stage],
            drops=cell.student.drops,
            factor=cell.student.drop_factor,
            warmup_epochs=cell.student.warmup_epochs,
        )

    students, discriminators = rate(cell.first_learning_rate(stage)), rate(cell.discriminator.learning_rate)
    trained: list[Pack | Run] = [pack, *pack.runs]
    for each in trained:
        each.student_optimizer.param_groups[0]["lr"] = students
        if each.discriminator_optimizer is not None:
            each.discriminator_optimizer.param_groups[0]["lr"] = discriminators
    return students
