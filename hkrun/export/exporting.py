"""One run's student, written as files that give what the network gives on the test images."""

import copy
import importlib.metadata
import importlib.util
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hkrun.config import Cell, cell_from_values
from hkrun.data import Dataset, StreamedDataset, fingerprint, load_dataset
from hkrun.errors import DataError, HkrunError, InputError
from hkrun.export.measuring import Cost, count_cost, measure_latency
from hkrun.export.networks import (
    Description,
    from_safetensors,
    load_student,
    load_teacher,
    quantizer_of,
    to_safetensors,
)
from hkrun.export.onnx_files import run_session, start_session, to_onnx
from hkrun.models import Features
from hkrun.processor import processor_name
from hkrun.redaction import redact
from hkrun.store import Record, Store
from hkrun.store.files import LocalFiles
from hkrun.training import SingleProcess
from hkrun.trial.inputs import make_evaluation_set

NEEDED = ("safetensors", "onnx", "onnxscript", "onnxruntime")
SAFETENSORS_FILE, ONNX_FILE, SUMMARY_FILE = "student.safetensors", "student.onnx", "export.json"
# Of the largest logit: what sums of float32 in another order may differ by, through tens of layers.
TOLERANCE = 1e-3
# Of the test images, where inputs are signs: a value next to 0 gets the other sign by rounding, and its image
# another logit. Those differences have no bound, but they seldom change the class.
MOST_CHANGED = 0.01
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Network:
    """One column of the comparison.

    Attributes:
        quantizer: How its weights are quantised; empty for full precision.
        error_pct: Its top-1 test error in the store's record, in percent.
        cost: What it costs for one image.
        latency_ms: Median time for one image, in milliseconds.
    """

    network: str
    quantizer: str
    error_pct: float
    cost: Cost
    safetensors_bytes: int
    onnx_bytes: int
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class Check:
    """How the files' outputs compare with the network's, on all test images.

    Attributes:
        images: How many.
        error_pct: Top-1 error of the network in float32, in percent.
        safetensors_difference: Largest absolute difference of a logit; 0 by construction.
        onnx_difference: The same, of onnxruntime.
        onnx_changed: Images whose class onnxruntime names differently.
        largest_logit: Absolute value of the largest logit, which the differences are to be seen against.
    """

    images: int
    error_pct: float
    safetensors_difference: float
    onnx_difference: float
    onnx_changed: int
    largest_logit: float


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written, and what it costs.

    Attributes:
        files: Path of each file, by format.
        teacher: Its teacher, where it had one; exported for the comparison only.
        check: The comparison with the network as it was trained.
        latency_rounds: How many measurements the latencies are the medians of.
        measured: Date and machine of the latencies.
        runtime: Name and version of what ran them, on one thread.
    """

    cell_id: str
    seed: int
    dataset: str
    files: dict[str, str]
    student: Network
    teacher: Network | None
    check: Check
    latency_rounds: int
    measured: str
    runtime: str

    def document(self) -> dict[str, Any]:
        """What `export --json` prints."""
        return asdict(self)


def require_packages() -> None:
    """Makes sure that what the extra `export` brings is installed.

    Raises:
        InputError: Something is not.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export needs {', '.join(missing)}; run: pip install {' '.join(missing)}")


def export_run(store: Store, record: Record, *, data_dir: Path | str | None, output: Path) -> Export:
    """Writes a finished run's student to a folder, once its files are checked against it on the test images.

    Files of the same names are replaced. `data_dir` is where its data set lies, if not embedded.

    Raises:
        InputError: The packages of the extra `export` are missing, or the run has no student.
        DataError: The data set is missing, damaged, or not the one that the run was trained on.
        StoreError: The store cannot be read, or the files cannot be written.
        HkrunError: A file gives other outputs than the network.
    """
    require_packages()
    run = f"{record.cell_id}/{record.seed}"
    if record.status != "finished" or record.error_last_pct is None:
        raise InputError(f"{run}: the run {record.status}; only a finished run has a student")
    form = store.cell(record.cell_id)
    cell = _data_cell(form)
    dataset = _load_data(form, data_dir)
    image = torch.zeros(dataset.image_shape(cell.augment.size))

    def describe(network: str, quantizer: str) -> Description:
        return Description(
            network=network,
            quantizer=quantizer,
            num_classes=dataset.num_classes,
            in_channels=dataset.num_channels,
            mean=tuple(dataset.mean.tolist()),
            std=tuple(dataset.std.tolist()),
            classes=dataset.classes,
        )

    description = describe(form["student.network"], quantizer_of(form["method"]))
    student = _Candidate(load_student(store, record.cell_id, record.seed, description), description, image)
    check = _check(student, cell, dataset, run=run)
    candidates, errors = {"student": student}, {"student": record.error_last_pct}
    taught_by = None if record.teacher_id is None else store.teacher(record.teacher_id)
    if taught_by is not None:
        description = describe(taught_by.config["teacher.network"], "")
        backbone = load_teacher(store, taught_by.teacher_id, description)
        candidates["teacher"] = _Candidate(backbone, description, image)
        errors["teacher"] = taught_by.error_pct
    seconds, rounds = measure_latency([candidate.run_one for candidate in candidates.values()])
    networks = {
        name: candidate.summarise(error_pct=errors[name], latency_s=latency_s)
        for (name, candidate), latency_s in zip(candidates.items(), seconds, strict=True)
    }
    export = Export(
        cell_id=record.cell_id,
        seed=record.seed,
        dataset=form["dataset"],
        files={
            format_: str(output / name)
            for format_, name in (("safetensors", SAFETENSORS_FILE), ("onnx", ONNX_FILE))
        },
        student=networks["student"],
        teacher=networks.get("teacher"),
        check=check,
        latency_rounds=rounds,
        measured=f"{time.strftime('%Y-%m-%d')}, {processor_name()}",
        runtime=f"onnxruntime {importlib.metadata.version('onnxruntime')}",
    )
    summary = json.dumps(export.document(), indent=1, ensure_ascii=False).encode()
    LocalFiles(output.absolute()).put(
        "", {SAFETENSORS_FILE: student.safetensors, ONNX_FILE: student.onnx, SUMMARY_FILE: summary}
    )
    return export


class _Candidate:
    """A backbone and the content of its files; nothing is written yet."""

    def __init__(self, backbone: nn.Module, description: Description, image: Tensor) -> None:
        self.backbone = backbone
        self.description = description
        self.safetensors = to_safetensors(copy.deepcopy(backbone), description)
        about = {"hkrun": json.dumps(asdict(description), ensure_ascii=False)}
        self.onnx = to_onnx(copy.deepcopy(backbone), image, about=about)
        self.session = start_session(self.onnx, threads=1)
        self._image = image

    def run_one(self) -> None:
        """One image through the ONNX model; of zeros, for its time does not depend on the pixels."""
        run_session(self.session, self._image[None].numpy())

    def summarise(self, *, error_pct: float, latency_s: float) -> Network:
        """Its column of the comparison."""
        return Network(
            network=self.description.network,
            quantizer=self.description.quantizer,
            error_pct=error_pct,
            cost=count_cost(self.backbone, self._image),
            safetensors_bytes=len(self.safetensors),
            onnx_bytes=len(self.onnx),
            latency_ms=1000 * latency_s,
        )


class _Comparison(nn.Module):
    """Answers as the network does, and keeps how far its files' answers are from that."""

    def __init__(self, student: _Candidate) -> None:
        super().__init__()
        self.network = student.backbone
        self.reloaded = from_safetensors(student.safetensors, where=SAFETENSORS_FILE)
        self._session = student.session
        self.images = 0
        self.safetensors_difference = self.onnx_difference = self.largest_logit = 0.0
        self.onnx_changed = 0

    def forward(self, images: Tensor) -> Features:
        features: Features = self.network(images)
        logits = features.logits
        reloaded = self.reloaded(images).logits
        onnx = torch.from_numpy(run_session(self._session, images.numpy()))
        self.images += len(images)
        self.largest_logit = _larger(self.largest_logit, logits)
        self.safetensors_difference = _larger(self.safetensors_difference, reloaded - logits)
        self.onnx_difference = _larger(self.onnx_difference, onnx - logits)
        self.onnx_changed += int((onnx.argmax(1) != logits.argmax(1)).sum())
        return features


def _larger(known: float, values: Tensor) -> float:
    """The largest absolute value so far; NaN once there was one."""
    return float(values.abs().max().clamp(min=known))


def _check(student: _Candidate, cell: Cell, dataset: Dataset | StreamedDataset, *, run: str) -> Check:
    """Compares the files with the network on all test images."""
    comparison = _Comparison(student).eval()
    images = make_evaluation_set(dataset.test, dataset, cell, device=CPU)
    errors = images.evaluate(comparison, precision=cell.precision, context=SingleProcess())
    rounding = TOLERANCE * comparison.largest_logit
    if not comparison.safetensors_difference <= rounding:
        raise _differs(run, "safetensors", comparison.safetensors_difference, rounding)
    if student.description.quantizer == "xnor":
        if not comparison.onnx_changed <= MOST_CHANGED * comparison.images:
            raise HkrunError(
                f"{run}: the ONNX file names another class than the network for {comparison.onnx_changed} of "
                f"{comparison.images} images; nothing was written"
            )
    elif not comparison.onnx_difference <= rounding:
        raise _differs(run, "ONNX", comparison.onnx_difference, rounding)
    return Check(
        images=comparison.images,
        error_pct=errors.top1_pct,
        safetensors_difference=comparison.safetensors_difference,
        onnx_difference=comparison.onnx_difference,
        onnx_changed=comparison.onnx_changed,
        largest_logit=comparison.largest_logit,
    )


def _differs(run: str, name: str, difference: float, rounding: float) -> HkrunError:
    return HkrunError(
        f"{run}: the {name} file's logits differ from the network's by up to {difference:.3g}, "
        f"rounding alone would be less than {rounding:.3g}; nothing was written"
    )


def _data_cell(form: dict[str, Any]) -> Cell:
    """What of a run's cell decides how test images are read, in float32."""
    kept = {key: value for key, value in form.items() if key == "dataset" or key.startswith("augment.")}
    return cell_from_values({**kept, "method": "supervised", "precision": "float32"})


def _load_data(form: dict[str, Any], data_dir: Path | str | None) -> Dataset | StreamedDataset:
    """The data set of a run."""
    name = form["dataset"]
    dataset = load_dataset(name, data_dir=data_dir)
    expected = form.get("dataset_sha256", "")
    if expected and fingerprint(name, data_dir) != expected:
        place = redact(str(data_dir))
        raise DataError(f"{name}: the images in {place} are not those that the run was trained on")
    return dataset
