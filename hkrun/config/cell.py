"""A cell: one configuration without the seed, and what follows from its values."""

import functools
from dataclasses import dataclass, field, replace
from typing import Any

from hkrun.config.sections import (
    METHOD,
    PAPER,
    AttentionConfig,
    AugmentConfig,
    DiscriminatorConfig,
    KnowledgeConfig,
    LossConfig,
    QuantizationConfig,
    StudentConfig,
    TeacherConfig,
    Value,
    define_key,
    uses_teacher,
)
from hkrun.datasets import DATASETS, find_dataset
from hkrun.methods import METHODS, SHIPPED_METHODS, Adversary, Method, WeightedTerm, find_form, find_method
from hkrun.networks import parse_network
from hkrun.terms import COMPACT_PARTS, FORMS, TAP, TERMS, Term


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One configuration without the seed.

    `dataset_sha256` is no key of the user's: it fixes the content of a data set that has no published
    checksum (`folder`, `imagenet`), and is empty for the others. Nor are the fields after it, which fix what
    the user's own files were when the cell was built, so that its ids never depend on files that change or
    are elsewhere: `sources` has, for each key that names a part of the user's own, the key and what
    identifies that part's source, `own_widths` and `own_descriptors` the key and the stage widths of each
    such network and the length of its descriptor, `declared` the key and the declaration of a method or form
    of knowledge that is not built in, and `teacher_file_sha256` and `student_file_sha256` what `teacher.file`
    and `student.file` held, or which file torchvision has for the network. `own_values` has the keys that
    methods and terms of the user's own bring along, with their values.

    Which terms it computes is found once: the plan and the ids of thousands of runs ask for it over and over.
    """

    dataset: str = define_key(
        "digits",
        "Data set.",
        METHOD,
        choices=tuple(DATASETS),
        own=True,
    )
    method: str = define_key(
        "hksanc",
        "Training method of the student.",
        PAPER,
        choices=(*METHODS, *SHIPPED_METHODS),
        own=True,
    )
    precision: str = define_key(
        "float32",
        "Arithmetic: bfloat16 computes the forward pass in bfloat16 and keeps weights in float32.",
        METHOD,
        choices=("float32", "bfloat16", "float64"),
    )
    teacher_table: str = define_key(
        "float32",
        "What the teacher says of every view of every training image is computed once, kept in the store and "
        "looked up by all runs: float32: in full; float16: in half the space, rounded; off: the teacher runs "
        "live on every batch. Terms that read whole feature maps have no table, nor has imagenet.",
        METHOD,
        choices=("off", "float32", "float16"),
        active=uses_teacher,
    )
    sync_batchnorm: bool = define_key(
        True,
        "Whether BatchNorm takes its statistics over all workers; if not, the number of workers is part of "
        "the cell.",
        METHOD,
    )
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    knowledge: KnowledgeConfig = field(default_factory=KnowledgeConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    dataset_sha256: str = ""
    sources: tuple[tuple[str, str], ...] = ()
    own_widths: tuple[tuple[str, tuple[int, ...]], ...] = ()
    own_descriptors: tuple[tuple[str, int], ...] = ()
    declared: tuple[tuple[str, Method | Term], ...] = ()
    own_values: tuple[tuple[str, Value], ...] = ()
    teacher_file_sha256: str = ""
    student_file_sha256: str = ""

    @property
    def own_parts(self) -> dict[str, str]:
        """The parts that are not built in by name, and what identifies their sources."""
        return {str(get_value(self, key)): source for key, source in self.sources}

    @property
    def weight_files(self) -> dict[str, str]:
        """The keys that name weights to load, and the files: those that are set and can change the result."""
        files = {
            "teacher.file": self.teacher.file if self.uses_teacher else "",
            "student.file": self.student.file,
        }
        return {key: file for key, file in files.items() if file}

    @functools.cached_property
    def stage_weights(self) -> tuple[dict[str, float], ...]:
        """For each stage of the method, the weights above zero by the term's name: what is computed."""
        return tuple(
            {term.name: self._weight(term) for term in self._computed(stage)} for stage in self._stages
        )

    def weights_in(self, stage: int, epoch: int) -> dict[str, float]:
        """The same in one epoch of a stage, both from 0: during a warm-up a weight is still rising."""
        epochs = {term.name: self.warmup(term) for term in self._computed(self._stages[stage])}
        weights = self.stage_weights[stage]
        return {name: weights[name] * min((epoch + 1) / max(epochs[name], 1.0), 1.0) for name in weights}

    @functools.cached_property
    def stage_terms(self) -> tuple[dict[str, Term], ...]:
        """The same terms by that name, as `hkrun.terms` declares them."""
        return tuple(
            {term.name: self.declaration(term) for term in self._computed(stage)} for stage in self._stages
        )

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms that some stage computes."""
        return tuple(term for stage in self.stage_terms for term in stage.values())

    def weight(self, term: str) -> float:
        """The weight of one loss term in the last stage that computes it; 0.0 where none does."""
        return next((stage[term] for stage in reversed(self.stage_weights) if term in stage), 0.0)

    @property
    def stage_epochs(self) -> tuple[int, ...]:
        """Epochs of each stage of the method."""
        epochs = self.student.epochs
        if len(self.declared_method.stages) == 1:
            return (epochs,)
        return (max(1, round(self.student.first_stage * epochs)), epochs)

    @property
    def adversary(self) -> Adversary | None:
        """The discriminator, where a computed term judges by one."""
        judged = any(term.discriminator for term in self.terms)
        return self.declared_method.adversary if judged else None

    @property
    def uses_teacher(self) -> bool:
        """Whether any computed term compares the student with the teacher."""
        return any(term.uses_teacher for term in self.terms)

    @property
    def has_teachers(self) -> bool:
        """Whether its seeds learn from several teachers."""
        return self.uses_teacher and self.teacher.seeds == "paired"

    def with_teacher_of(self, seed: int) -> "Cell":
        """The same with one teacher for all seeds: the one that the run of this seed learns from."""
        if not self.has_teachers:
            return self
        teacher = self.teacher
        own = replace(teacher, seed=teacher.seed + seed // teacher.students, seeds="one", students=1)
        return replace(self, teacher=own)

    def first_learning_rate(self, stage: int) -> float:
        """The student's learning rate at the start of one stage, from 0."""
        own = self.student.first_stage_learning_rate if stage < len(self.stage_epochs) - 1 else 0.0
        return own or self.student.learning_rate

    def stage_uses_teacher(self, stage: int) -> bool:
        """The same of the terms of one stage, from 0."""
        return any(term.uses_teacher for term in self.stage_terms[stage].values())

    def quantizes_as(self, *schemes: str) -> bool:
        """Whether some stage of the method quantises the student's weights in one of these ways."""
        return any(stage.quantizer in schemes for stage in self.declared_method.stages)

    @property
    def squeezes(self) -> bool:
        """Whether a term reads the squeezed vectors of attention sub-networks."""
        return any("knowledge" in term.student for term in self.terms)

    @functools.cached_property
    def term_keys(self) -> frozenset[str]:
        """The keys that weigh, name or change the terms of this cell."""
        found = {term.weight for stage in self._stages for term in stage if isinstance(term.weight, str)}
        found |= {term.warmup for stage in self._stages for term in self._computed(stage) if term.warmup}
        found |= {term.form_key for stage in self._stages for term in self._computed(stage) if term.form_key}
        found |= set(self.adversary.keys if self.adversary else ())
        for term in self.terms:
            for key in term.key_names:
                unless = term.idle.get(key, {})
                if all(get_value(self, other) != value for other, value in unless.items()):
                    found.add(key)
        return frozenset(found)

    def read_keys(self, term: Term) -> dict[str, Any]:
        """The values of the keys that a term's function is given, by the last part of their names."""
        return {key.rpartition(".")[2]: get_value(self, key) for key in term.key_names if key != TAP}

    @property
    def table_parts(self) -> tuple[str, ...]:
        """The parts of the teacher's output that the terms read, where a teacher table can hold them all.

        Empty where no term uses the teacher; where one reads whole feature maps; and where the training
        images are streamed, so that their views have no number.
        """
        parts = [part for term in self.terms for part in term.teacher]
        parts += [self.adversary.tap] if self.adversary else []
        if find_dataset(self.dataset).streamed or not set(parts) <= set(COMPACT_PARTS):
            return ()
        return tuple(part for part in COMPACT_PARTS if part in parts)

    @property
    def classifies_source(self) -> bool:
        """Whether the discriminator also names the class, L_adv^C."""
        return self.adversary is not None and self.adversary.category and self.loss.category

    @property
    def declared_method(self) -> Method:
        """What its method declares."""
        declared = METHODS.get(self.method) or dict(self.declared).get("method") or find_method(self.method)
        assert isinstance(declared, Method)
        return declared

    @property
    def _stages(self) -> tuple[tuple[WeightedTerm, ...], ...]:
        return tuple(stage.terms for stage in self.declared_method.stages)

    def _computed(self, stage: tuple[WeightedTerm, ...]) -> list[WeightedTerm]:
        return [term for term in stage if self._weight(term) > 0]

    def declaration(self, term: WeightedTerm) -> Term:
        """What a term of the method is."""
        if term.term is not None:
            return term.term
        if not term.form_key:
            return TERMS[term.name]
        form = str(get_value(self, term.form_key))
        if form in FORMS:
            return TERMS[form]
        declared = dict(self.declared).get(term.form_key) or find_form(form)
        assert isinstance(declared, Term)
        return declared

    def _weight(self, term: WeightedTerm) -> float:
        weight = term.weight
        value = float(get_value(self, weight)) if isinstance(weight, str) else weight  # type: ignore[arg-type]
        return 1.0 - value if term.complement else value

    def warmup(self, term: WeightedTerm) -> float:
        """Over how many epochs of its stage a term's weight rises."""
        return float(get_value(self, term.warmup)) if term.warmup else 0.0  # type: ignore[arg-type]

    @property
    def squeeze_widths(self) -> tuple[int, ...]:
        """Length of the squeezed vector of each block, as teacher and student compare them.

        Networks of unequally many stages compare none, and the teacher's are its own.
        """
        if len(self.teacher_widths) != len(self.student_widths):
            return self.teacher_widths
        return self.teacher_widths if self.attention.width == "project" else self.student_widths

    @property
    def teacher_widths(self) -> tuple[int, ...]:
        """Output channels of the teacher's stages."""
        return dict(self.own_widths).get("teacher.network") or parse_network(self.teacher.network).widths

    @property
    def student_widths(self) -> tuple[int, ...]:
        """Output channels of the student's stages."""
        return dict(self.own_widths).get("student.network") or parse_network(self.student.network).widths

    @property
    def teacher_descriptor_width(self) -> int:
        """Length of the teacher's global descriptor."""
        return dict(self.own_descriptors).get("teacher.network") or self.teacher_widths[-1]

    @property
    def student_descriptor_width(self) -> int:
        """Length of the student's global descriptor."""
        return dict(self.own_descriptors).get("student.network") or self.student_widths[-1]


def get_value(cell: Cell, key: str) -> Value:
    """The value of a dotted key."""
    for own, value in cell.own_values:
        if own == key:
            return value
    return functools.reduce(getattr, key.split("."), cell)  # type: ignore[return-value]
