"""The loop of every method, epoch by epoch."""

import time
from collections.abc import Callable

from hkrun.distill.run import Run, enter_stage, find_stage
from hkrun.distill.step import Step
from hkrun.models import (
    DistilledNetwork,
)
from hkrun.seeding import Purpose
from hkrun.training import (
    Averages,
    Context,
    EvaluationSet,
    TrainingSet,
    evaluate_epoch,
    learning_rate,
)


def distill(
    run: Run,
    *,
    teacher: DistilledNetwork | None,
    training_set: TrainingSet,
    test_set: EvaluationSet,
    context: Context,
    on_epoch: Callable[[Run], None],
) -> None:
    """Trains a run to its last epoch, from wherever it stands.

    Args:
        run: The state; it is changed in place.
        teacher: Frozen and in eval mode; None where the method uses none.
        training_set: Gives each epoch's batches.
        test_set: The error is measured on it after each epoch.
        context: Where the loop runs.
        on_epoch: Called after each epoch, when the state is whole.

    Raises:
        Diverged: A loss is no longer finite; the state is that of the failing epoch.
    """
    cell = run.cell
    if teacher is not None and cell.knowledge_form != "squeezed":
        teacher = DistilledNetwork(teacher.backbone)  # vectors that no term compares are not computed
    while run.epoch < sum(cell.stage_epochs):
        started = time.perf_counter()
        epoch = run.epoch
        stage, stage_epoch = find_stage(cell, epoch)
        if stage > 0 and stage_epoch == 0:
            enter_stage(run, stage)
        optimizers = {run.student_optimizer: cell.student.learning_rate}
        if run.discriminator_optimizer is not None:
            optimizers[run.discriminator_optimizer] = cell.discriminator.learning_rate
        for optimizer, first_rate in optimizers.items():
            optimizer.param_groups[0]["lr"] = learning_rate(
                stage_epoch,
                first=first_rate,
                epochs=cell.stage_epochs[stage],
                drops=cell.student.drops,
                factor=cell.student.drop_factor,
                warmup_epochs=cell.student.warmup_epochs,
            )
        averages = Averages(context)
        batches = training_set.batches(
            run.seed,
            epoch,
            batch_size=cell.student.batch_size,
            order=Purpose.ORDER,
            augmentation=Purpose.AUGMENTATION,
            context=context,
        )
        step = Step(run, stage, teacher if cell.stage_uses_teacher(stage) else None, context)
        for batch in batches:
            averages.add(step.train(batch))
        figures = averages.read(epoch=epoch + 1)
        errors = evaluate_epoch(
            test_set, run.student.backbone, epoch=epoch + 1, precision=cell.precision, context=context
        )
        run.history.append(
            {
                "epoch": epoch + 1,
                "error_pct": errors.top1_pct,
                "error_top5_pct": errors.top5_pct,
                **({"stage": stage + 1} if len(cell.stage_epochs) > 1 else {}),
                **figures,
                "learning_rate": run.student_optimizer.param_groups[0]["lr"],
                "seconds": time.perf_counter() - started,
            }
        )
        on_epoch(run)
