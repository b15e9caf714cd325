"""Weights by name, by file, or none; what does not fit is refused in words that say where and what to do."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import DenseNet121_Weights, MNASNet0_5_Weights, ShuffleNet_V2_X0_5_Weights, get_model

from snowmelt_trainer.backbones import IMAGENET_PREPROCESSING, BuiltBackbone, Preprocessing, build_backbone
from snowmelt_trainer.backbones.registry import published_weights
from snowmelt_trainer.contract.backbone import Backbone, WeightsFrom
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.errors import RunError
from tests.trainer.backbones.networks import as_published, from_scratch, images

SMALL = "shufflenet_v2_x0_5"


def pretrained(architecture: str = SMALL, **options: object) -> dict[str, Tensor]:
    torch.manual_seed(11)
    return dict(get_model(architecture, weights=None, **options).state_dict())


def load(path: Path, architecture: str = SMALL, *, sha256: str | None = None, image_size: int = 32) -> BuiltBackbone:
    backbone = Backbone(architecture=architecture, weights_from=WeightsFrom(uri=f"file://{path}", sha256=sha256))
    return build_backbone(backbone, num_classes=7, dropout=0.1, seed=0, volumes_root="/none", image_size=image_size)


def refusal(path: Path, architecture: str = SMALL, *, sha256: str | None = None) -> RunError:
    with pytest.raises(RunError) as caught:
        load(path, architecture, sha256=sha256)
    assert "Traceback" not in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def assert_loaded(built: BuiltBackbone, state: dict[str, Tensor], head: str = "fc.") -> None:
    loaded = built.model.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded if not name.startswith(head))


def test_a_safetensors_file_gives_the_backbone_its_weights_and_leaves_the_head_new(tmp_path: Path) -> None:
    state = pretrained()
    save_file(state, tmp_path / "w.safetensors")
    built = load(tmp_path / "w.safetensors")
    assert_loaded(built, state)
    assert built.model.get_parameter("fc.weight").shape == (7, 1024)
    assert built.preprocessing == IMAGENET_PREPROCESSING


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_torch_file_may_be_wrapped_as_training_scripts_do(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    state = pretrained()
    content: object = OrderedDict((prefix + name, tensor) for name, tensor in state.items())
    torch.save(content if wrapper is None else {wrapper: content, "epoch": 3}, tmp_path / "w.pth")
    assert_loaded(load(tmp_path / "w.pth"), state)


@pytest.mark.parametrize("kind", ["w.safetensors", "w.pth"])
def test_mnasnet_loads_though_it_insists_on_a_version(tmp_path: Path, kind: str) -> None:
    state = pretrained("mnasnet0_5")
    if kind.endswith("pth"):
        torch.save(get_model("mnasnet0_5", weights=None).state_dict() | state, tmp_path / kind)
    else:
        save_file(state, tmp_path / kind)
    assert_loaded(load(tmp_path / kind, "mnasnet0_5"), state, "classifier.1.")


def test_a_head_may_be_missing_or_of_another_make(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in pretrained().items() if not name.startswith("fc.")}
    save_file(state, tmp_path / "none.safetensors")
    save_file({**state, "fc.1.weight": torch.ones(3, 1024)}, tmp_path / "other.safetensors")
    assert_loaded(load(tmp_path / "none.safetensors"), state)
    assert_loaded(load(tmp_path / "other.safetensors"), state)


def test_preprocessing_comes_from_the_files_metadata(tmp_path: Path) -> None:
    expected = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), interpolation="bicubic")
    text = json.dumps({"mean": expected.mean, "std": expected.std, "interpolation": expected.interpolation})
    save_file(pretrained(), tmp_path / "w.safetensors", metadata={"snowmelt.preprocessing": text})
    assert load(tmp_path / "w.safetensors").preprocessing == expected


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"mean": [0, 0, 0], "std": [0, 1, 1], "interpolation": "bilinear"}',
        '{"mean": [0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}',
        '{"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "guess"}',
    ],
)
def test_preprocessing_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    save_file(pretrained(), tmp_path / "w.safetensors", metadata={"snowmelt.preprocessing": text})
    error = refusal(tmp_path / "w.safetensors")
    assert error.reason is Reason.WEIGHTS_MISMATCH
    assert "metadata snowmelt.preprocessing" in error.message


def test_the_right_checksum_is_accepted_and_a_wrong_one_ends_the_run_before_parsing(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(pretrained(), path)
    load(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    path.write_bytes(b"not a model at all")
    error = refusal(path, sha256="0" * 64)
    assert error.reason is Reason.CHECKSUM_MISMATCH
    assert str(path) in error.message


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.target),)

    def __init__(self, target: Path) -> None:
        self.target = str(target)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, new_format: bool) -> None:
    ran = tmp_path / "ran"
    torch.save({"state_dict": _Payload(ran)}, tmp_path / "w.pt", _use_new_zipfile_serialization=new_format)
    error = refusal(tmp_path / "w.pt")
    assert error.reason is Reason.WEIGHTS_UNSAFE
    assert "save model.state_dict() alone" in error.message
    assert not ran.exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(get_model(SMALL, weights=None), tmp_path / "w.pt")
    error = refusal(tmp_path / "w.pt")
    assert error.reason is Reason.WEIGHTS_UNSAFE
    assert "torch.nn.modules" in error.message


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"neither", bytes(200)])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path / name)
    assert error.reason is Reason.WEIGHTS_NOT_FOUND
    assert str(tmp_path / name) in error.message


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_file_cut_short_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_file(pretrained(), path) if name.endswith("safetensors") else torch.save(pretrained(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    error = refusal(path)
    assert error.reason is Reason.WEIGHTS_NOT_FOUND
    assert str(path) in error.message


@pytest.mark.parametrize(
    ("name", "reason"), [("absent.safetensors", Reason.WEIGHTS_NOT_FOUND), ("w.onnx", Reason.INVALID_CONFIG)]
)
def test_a_file_that_is_not_there_or_of_an_unknown_kind_is_named(tmp_path: Path, name: str, reason: Reason) -> None:
    error = refusal(tmp_path / name)
    assert error.reason is reason
    assert str(tmp_path / name) in error.message


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}])
def test_a_torch_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    error = refusal(tmp_path / "w.pt")
    assert error.reason is Reason.WEIGHTS_MISMATCH
    assert "holds no state_dict" in error.message


def test_weights_of_another_architecture_are_refused_with_the_one_they_look_like(tmp_path: Path) -> None:
    save_file(pretrained("resnet18", num_classes=5), tmp_path / "w.safetensors")
    error = refusal(tmp_path / "w.safetensors", "resnet34")
    assert error.reason is Reason.WEIGHTS_MISMATCH
    assert "does not fit resnet34: missing layer1.2.conv1.weight, layer1.2.bn1.weight and " in error.message
    assert "it looks like resnet18: set spec.backbone.architecture to that" in error.message


def test_tensors_of_another_shape_are_named_with_both_shapes(tmp_path: Path) -> None:
    save_file({**pretrained(), "conv1.0.weight": torch.ones(24, 1, 3, 3)}, tmp_path / "w.safetensors")
    message = refusal(tmp_path / "w.safetensors").message
    assert "wrong shape: conv1.0.weight is (24, 1, 3, 3) instead of (24, 3, 3, 3)" in message


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    save_file({**pretrained(), "conv1.0.weight": torch.full((24, 3, 3, 3), torch.nan)}, tmp_path / "w.safetensors")
    error = refusal(tmp_path / "w.safetensors")
    assert error.reason is Reason.WEIGHTS_MISMATCH
    assert "conv1.0.weight holds NaN" in error.message


def test_a_link_out_of_the_volume_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()
    save_file(pretrained(), tmp_path / "elsewhere.safetensors")
    (tmp_path / "claim" / "w.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    backbone = Backbone(architecture=SMALL, weights_from=WeightsFrom(uri="pvc://claim/w.safetensors"))
    with pytest.raises(RunError, match="leads out of its volume"):
        build_backbone(backbone, num_classes=7, dropout=0, seed=0, volumes_root=str(tmp_path), image_size=32)


def test_a_vit_takes_weights_that_were_trained_at_another_image_size(tmp_path: Path) -> None:
    state = pretrained("vit_b_32", image_size=64)
    save_file(state, tmp_path / "w.safetensors")
    built = load(tmp_path / "w.safetensors", "vit_b_32", image_size=96)
    embedding = built.model.get_parameter("encoder.pos_embedding")
    assert embedding.shape == (1, 10, 768)
    assert torch.equal(embedding[:, 0], state["encoder.pos_embedding"][:, 0])
    assert built.model.eval()(images(1, 96)).shape == (1, 7)


def test_pretrained_inception_networks_transform_their_input_and_new_ones_do_not(tmp_path: Path) -> None:
    save_file(pretrained("googlenet", init_weights=False), tmp_path / "w.safetensors")
    assert load(tmp_path / "w.safetensors", "googlenet").model.transform_input is True
    assert from_scratch("googlenet", image_size=32).model.transform_input is False


def publish(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, published: object, state: object, *, digest: str = ""
) -> None:
    """Lets torchvision download `state` as these weights."""
    url = as_published(tmp_path, state, digest=digest)
    monkeypatch.setattr(published.value, "url", url)  # type: ignore[attr-defined]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def named(architecture: str, weights: str | None = None) -> BuiltBackbone:
    return build_backbone(
        Backbone(architecture=architecture, weights=weights),
        num_classes=7,
        dropout=0.1,
        seed=0,
        volumes_root="/none",
        image_size=32,
    )


def test_published_weights_are_downloaded_and_bring_their_preprocessing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = pretrained()
    publish(monkeypatch, tmp_path, ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1, state)
    built = named(SMALL)
    assert_loaded(built, state)
    assert built.preprocessing == IMAGENET_PREPROCESSING


def test_published_mnasnet_weights_load_with_the_version_they_carry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = get_model("mnasnet0_5", weights=None)
    publish(monkeypatch, tmp_path, MNASNet0_5_Weights.IMAGENET1K_V1, model.state_dict())
    assert_loaded(named("mnasnet0_5", "IMAGENET1K_V1"), dict(model.state_dict()), "classifier.1.")


def test_the_old_names_in_published_densenets_are_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state = pretrained("densenet121")
    old = {name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): tensor for name, tensor in state.items()}
    assert old.keys() != state.keys()
    publish(monkeypatch, tmp_path, DenseNet121_Weights.IMAGENET1K_V1, old)
    assert_loaded(named("densenet121"), state, "classifier.")


def test_a_download_that_was_tampered_with_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    publish(monkeypatch, tmp_path, ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1, pretrained(), digest="00000000")
    with pytest.raises(RunError, match="invalid hash value") as caught:
        named(SMALL)
    assert caught.value.reason is Reason.CHECKSUM_MISMATCH


def test_a_download_that_fails_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.value, "url", f"file://{tmp_path}/gone-00000000.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(RunError, match=r"cannot be downloaded.*spec\.backbone\.weightsFrom") as caught:
        named(SMALL)
    assert caught.value.reason is Reason.WEIGHTS_NOT_FOUND


def test_weights_that_torchvision_does_not_publish_are_refused_with_those_it_does() -> None:
    with pytest.raises(RunError, match="there are: IMAGENET1K_V1, DEFAULT, None") as caught:
        published_weights(SMALL, "IMAGENET1K_V2")
    assert caught.value.reason is Reason.WEIGHTS_NOT_FOUND
