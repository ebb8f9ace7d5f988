"""Exports of trained runs: the files give the network's outputs, and their figures are right."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file

import hkrun.export.exporting
from hkrun.data import load_dataset
from hkrun.data.views import normalise
from hkrun.errors import DataError, HkrunError, InputError, StoreError
from hkrun.export import export_run, load_network
from hkrun.models import build_network, initialise
from hkrun.models.quantized import quantize

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "export.md"
METHODS = [
    "hksanc",
    "ttq",
    pytest.param("binary_connect", marks=pytest.mark.slow),
    pytest.param("bwn", marks=pytest.mark.slow),
    pytest.param("xnor", marks=pytest.mark.slow),
]


@pytest.fixture(scope="session")
def exported(store, runs, tmp_path_factory):
    """The export of each method's run, made when it is asked for."""

    class Exports(dict):
        def __missing__(self, method):
            output = tmp_path_factory.mktemp("export") / method
            self[method] = export_run(store, runs[method], data_dir=None, output=output)
            return self[method]

    return Exports()


@pytest.fixture
def quick(exported, store, monkeypatch):
    """Exports hksanc's run again in an instant: its graph is there, and its teacher is not."""
    graph = Path(exported["hksanc"].files["onnx"]).read_bytes()
    monkeypatch.setattr(hkrun.export.exporting, "to_onnx", lambda *_, **__: graph)
    monkeypatch.setattr(type(store), "teacher", lambda *_: None)


@pytest.fixture(scope="session")
def images():
    digits = load_dataset("digits")
    return normalise(digits.test.images, mean=digits.mean, std=digits.std, dtype=torch.float32)


@pytest.fixture
def logits(store, runs, images):
    """What a run's student answers, built without the exporter."""

    def compute(method):
        network = build_network("preact-8-w4", num_classes=10, in_channels=1)
        if method not in ("hksanc", "supervised"):
            quantize(network, method)
        record = runs[method]
        folder = store.local_path / store.run_folder(record.cell_id, record.seed)
        network.load_state_dict(torch.load(folder / "student.pt", weights_only=True))
        with torch.no_grad():
            return network.eval()(images).logits

    return compute


@pytest.mark.parametrize("method", METHODS)
def test_both_files_give_the_networks_logits(method, exported, images, logits):
    export = exported[method]
    expected = logits(method)
    with torch.no_grad():
        assert torch.equal(load_network(export.files["safetensors"])(images).logits, expected)
    session = onnxruntime.InferenceSession(export.files["onnx"], providers=["CPUExecutionProvider"])
    for number in (1, 5, len(images)):  # any batch size
        (answer,) = session.run(["logits"], {"images": images[:number].numpy()})
        torch.testing.assert_close(torch.from_numpy(answer), expected[:number], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_check_says_what_was_compared(method, exported, runs, logits):
    check = exported[method].check
    assert check.images == 1107
    assert check.error_pct == runs[method].error_last_pct
    assert check.safetensors_difference == 0
    assert check.onnx_difference < 1e-4
    assert check.onnx_changed == 0
    assert check.largest_logit == pytest.approx(float(logits(method).abs().max()), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_sizes_are_those_of_the_files(method, exported):
    export = exported[method]
    assert export.student.safetensors_bytes == Path(export.files["safetensors"]).stat().st_size
    assert export.student.onnx_bytes == Path(export.files["onnx"]).stat().st_size


def test_a_full_precision_student_costs_what_its_layers_say(exported):
    cost = exported["hksanc"].student.cost
    # Stem and three stages of one block on 8x8 pixels, worked by hand.
    stem, first, second = 64 * 9 * 4, 64 * 2 * 9 * 16, 16 * (9 * 32 + 9 * 64 + 32)
    third, classifier = 4 * (9 * 128 + 9 * 256 + 128), 16 * 10
    assert cost.multiply_adds == stem + first + second + third + classifier
    assert cost.parameters == sum(
        parameter.numel()
        for parameter in build_network("preact-8-w4", num_classes=10, in_channels=1).parameters()
    )
    assert (cost.quantised_parameters, cost.quantised_multiply_adds) == (0, 0)


def test_a_ternary_student_counts_its_ternary_weights_and_their_sums(exported):
    cost, full = exported["ttq"].student.cost, exported["hksanc"].student.cost
    assert cost.multiply_adds == full.multiply_adds
    assert cost.multiply_adds - cost.quantised_multiply_adds == 64 * 9 * 4 + 16 * 10
    weights = 2 * 9 * 16 + (9 * 32 + 9 * 64 + 32) + (9 * 128 + 9 * 256 + 128)
    assert cost.quantised_parameters == weights
    assert cost.parameters == full.parameters + 2 * 8  # two scales in each of eight layers


def test_the_teacher_stands_beside_the_student_where_there_was_one(store, runs, exported):
    export = exported["hksanc"]
    teacher = store.teacher(runs["hksanc"].teacher_id)
    assert export.teacher.network == "preact-8-w6"
    assert export.teacher.error_pct == teacher.error_pct
    assert export.teacher.cost.parameters > export.student.cost.parameters
    assert export.teacher.latency_ms > 0
    assert export.student.latency_ms > 0
    assert exported["ttq"].teacher is None


def test_a_store_without_the_teacher_exports_the_student_alone(store, runs, quick, tmp_path):
    assert export_run(store, runs["hksanc"], data_dir=None, output=tmp_path / "out").teacher is None


def test_ternary_weights_are_two_bits_in_both_files(exported):
    export = exported["ttq"]
    tensors = load_file(export.files["safetensors"])
    name = "stages.2.0.conv2"  # 16 filters of 16x3x3
    assert tensors[f"{name}.quantizer.packed"].nbytes == 16 * 144 * 2 // 8
    assert f"{name}.weight" not in tensors
    initializers = {tensor.name: tensor for tensor in onnx.load(export.files["onnx"]).graph.initializer}
    assert len(initializers[f"{name}.weight.packed"].raw_data) == 16 * 144 * 2 // 8
    assert all(np.prod(tensor.dims) < 16 * 144 for tensor in initializers.values())


def test_files_say_how_images_are_prepared_and_what_the_logits_mean(exported):
    digits = load_dataset("digits")
    model = onnx.load(exported["ttq"].files["onnx"])
    (entry,) = (entry for entry in model.metadata_props if entry.key == "hkrun")
    about = json.loads(entry.value)
    assert (about["network"], about["quantizer"]) == ("preact-8-w4", "ttq")
    assert about["mean"] == digits.mean.tolist()
    assert about["std"] == digits.std.tolist()
    assert about["classes"] == list(digits.classes)


def test_no_path_of_this_machine_is_in_the_files(exported):
    for file in exported["ttq"].files.values():
        assert b"site-packages" not in Path(file).read_bytes()
        assert str(Path.cwd()).encode() not in Path(file).read_bytes()


def test_the_summary_is_the_document(exported):
    export = exported["hksanc"]
    folder = Path(export.files["onnx"]).parent
    assert sorted(file.name for file in folder.iterdir()) == [
        "export.json",
        "student.onnx",
        "student.safetensors",
    ]
    assert json.loads((folder / "export.json").read_text()) == json.loads(json.dumps(export.document()))


@pytest.mark.parametrize("method", ["ttq", "binary_connect"])
def test_the_reader_in_the_documentation_needs_no_hkrun(method, store, runs, tmp_path, monkeypatch):
    from hkrun.export.networks import Description, load_student, to_safetensors

    digits = load_dataset("digits")
    description = Description(
        network="preact-8-w4",
        quantizer=method,
        num_classes=10,
        in_channels=1,
        mean=tuple(digits.mean.tolist()),
        std=tuple(digits.std.tolist()),
        classes=digits.classes,
    )
    backbone = load_student(store, runs[method].cell_id, 3, description)
    layer = backbone.stages[2][0].conv2
    expected = layer.quantizer(layer.weight).detach().numpy()
    (tmp_path / "student.safetensors").write_bytes(to_safetensors(backbone, description))
    (code,) = re.findall(r"```python\n(import json.*?)```", DOCUMENTATION.read_text(), flags=re.DOTALL)
    assert "hkrun." not in code
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(code, found)
    assert np.array_equal(found["weights"]["stages.2.0.conv2"], expected)


@pytest.mark.parametrize("optimised", [True, False])
@pytest.mark.parametrize("scales", [[[0.5]], [[0.5, 0.75]], [[0.5], [2.0], [0.25], [4.0]]])
@pytest.mark.parametrize("bits", [1, 2])
def test_every_byte_is_unpacked_to_its_weights(bits, scales, optimised):
    """All 256 values of a byte, in each of the four filters; by onnxruntime, by hkrun and by hand."""
    from onnx import TensorProto, helper

    from hkrun.export.onnx_files import _add_unpacking
    from hkrun.models.bits import PackedWeights
    from hkrun.models.quantized import Codes

    content = np.arange(256, dtype=np.uint8)
    if bits == 2:  # 3 stands for nothing: bytes that hold one are never written
        fields = np.stack([content >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
        content = content[(fields != 3).all(axis=1)]
    rows = np.tile(content, 4)
    fields = np.stack([rows >> shift & (2**bits - 1) for shift in range(0, 8, bits)], axis=1).reshape(4, -1)
    codes = 2 * fields.astype(np.int8) - 1 if bits == 1 else np.array([0, 1, -1], np.int8)[fields]
    weights = PackedWeights(Codes(torch.from_numpy(codes), torch.tensor(scales)), bits=bits)
    assert np.array_equal(weights.packed.numpy(), rows)
    assert rows.max() > 128

    both = np.array(scales, np.float32)
    expected = np.where(codes == 1, both[:, :1], np.where(codes == -1, -both[:, -1:], np.float32(0)))
    assert np.array_equal(weights().numpy(), expected)
    output = helper.make_tensor_value_info("weight", TensorProto.FLOAT, codes.shape)
    graph = helper.make_graph([], "unpacking", [], [output])
    _add_unpacking(graph, "weight", weights, position=0)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    assert np.array_equal(session.run(None, {})[0], expected)


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["onnx", "safetensors"])
def test_missing_packages_are_named_with_what_installs_them(missing, store, runs, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(InputError, match=rf"export needs {missing}; run: pip install {missing}$"):
        export_run(store, runs["hksanc"], data_dir=None, output=tmp_path / "out")


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_only_a_finished_run_has_a_student(status, store, runs, tmp_path):
    record = dataclasses.replace(runs["hksanc"], status=status, error_last_pct=None)
    with pytest.raises(InputError, match=f"{record.cell_id}/3: the run {status}"):
        export_run(store, record, data_dir=None, output=tmp_path / "out")


@pytest.mark.parametrize("which", ["safetensors", "ONNX"])
def test_a_file_that_gives_other_outputs_is_not_written(which, store, runs, quick, tmp_path, monkeypatch):
    module = hkrun.export.exporting
    if which == "ONNX":
        run = module.run_session
        monkeypatch.setattr(module, "run_session", lambda *given: run(*given) + 0.1)
    else:
        other = build_network("preact-8-w4", num_classes=10, in_channels=1)
        initialise(other, torch.Generator().manual_seed(1))
        monkeypatch.setattr(module, "from_safetensors", lambda *_, **__: other.eval())
    with pytest.raises(HkrunError, match=rf"/3: the {which} file's logits differ"):
        export_run(store, runs["hksanc"], data_dir=None, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["ttq", pytest.param("xnor", marks=pytest.mark.slow)])
def test_a_file_that_unpacks_other_weights_is_not_written(method, store, runs, tmp_path, monkeypatch):
    module = hkrun.export.onnx_files
    pack = module.pack_weights

    def pack_wrongly(layer):
        weights = pack(layer)
        weights.scales *= 2
        return weights

    monkeypatch.setattr(module, "pack_weights", pack_wrongly)
    problem = (
        r"\.weight: the ONNX file unpacks \d+ of \d+ weights otherwise than the network; nothing was written"
    )
    with pytest.raises(HkrunError, match=problem):
        export_run(store, runs[method], data_dir=None, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_that_answers_nothing_is_not_written(store, runs, quick, tmp_path, monkeypatch):
    module = hkrun.export.exporting
    run = module.run_session
    monkeypatch.setattr(module, "run_session", lambda *given: run(*given) * np.float32("nan"))
    with pytest.raises(HkrunError, match="the ONNX file's logits differ"):
        export_run(store, runs["hksanc"], data_dir=None, output=tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(("share", "accepted"), [(0.005, True), (0.05, False), (1.0, False)])
def test_signs_may_round_differently_in_a_few_images(
    share, accepted, store, runs, exported, tmp_path, monkeypatch
):
    module = hkrun.export.exporting
    graph = Path(exported["xnor"].files["onnx"]).read_bytes()
    monkeypatch.setattr(module, "to_onnx", lambda *_, **__: graph)
    run = module.run_session
    seen = [0]

    def run_with_other_classes(session, images):
        logits = run(session, images)
        changed = np.arange(seen[0], seen[0] + len(images)) % 1107 < share * 1107
        seen[0] += len(images)
        logits[changed] *= -1
        return logits

    monkeypatch.setattr(module, "run_session", run_with_other_classes)
    if accepted:
        check = export_run(store, runs["xnor"], data_dir=None, output=tmp_path).check
        assert check.onnx_changed == 6
        assert check.onnx_difference > 0.01
        return
    with pytest.raises(HkrunError, match="names another class than the network"):
        export_run(store, runs["xnor"], data_dir=None, output=tmp_path)


def test_images_that_are_not_the_runs_are_refused(store, runs, tmp_path, monkeypatch):
    form = {**store.cell(runs["hksanc"].cell_id), "dataset_sha256": "0" * 64}
    monkeypatch.setattr(type(store), "cell", lambda *_: form)
    with pytest.raises(
        DataError, match="images in s3://bucket/data are not those that the run was trained on"
    ):
        export_run(store, runs["hksanc"], data_dir="s3://key:se/cret@bucket/data", output=tmp_path / "out")


def test_weights_of_another_network_are_refused(store, runs, tmp_path, monkeypatch):
    form = {**store.cell(runs["hksanc"].cell_id), "student.network": "preact-8-w8"}
    monkeypatch.setattr(type(store), "cell", lambda *_: form)
    with pytest.raises(StoreError, match="not those of its configuration"):
        export_run(store, runs["hksanc"], data_dir=None, output=tmp_path / "out")


@pytest.mark.parametrize("content", [None, b"", b"not a file of tensors"])
def test_what_is_no_export_is_refused(content, tmp_path):
    path = tmp_path / "student.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(path))):
        load_network(path)


def test_tensors_of_another_program_are_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(2, np.float32)}, path)
    with pytest.raises(InputError, match="not a file of `hkrun export`"):
        load_network(path)
