"""The backbone: where its weights come from, what is trained, what the network sees."""

from __future__ import annotations

import http.server
import os
import pickle
import threading
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save, save_file
from sklearn.datasets import load_digits, load_sample_images
from tests.samples import image_spec
from torch.nn import functional

from dlframe.engine.learner import parameter_groups
from dlframe.models import backbone
from dlframe.models.backbone import PACKAGES, Backbone
from dlframe.storage import fetch
from dlframe.types import CheckpointError, ConfigError, DataSpec

DIGITS = image_spec("digits", (1, 8, 8), tuple("0123456789"), mean=(0.3,), std=(0.37,))
TINY = {"architecture": "test_resnet", "image_size": 32}


def digits(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """The first handwritten digits, normalised, and their classes."""
    inputs, targets = load_digits(return_X_y=True)
    images = torch.from_numpy(inputs[:count]).float().view(-1, 1, 8, 8) / 16
    return (images - DIGITS.input.mean[0]) / DIGITS.input.std[0], torch.from_numpy(targets[:count])


def photographs(classes: int) -> tuple[torch.Tensor, DataSpec]:
    """Two colour photographs in [0, 1], and what they are like."""
    images = torch.from_numpy(np.array(load_sample_images().images)).permute(0, 3, 1, 2) / 255
    mean, std = tuple(images.mean((0, 2, 3)).tolist()), tuple(images.std((0, 2, 3)).tolist())
    return images, image_spec("photographs", (3, 427, 640), tuple(map(str, range(classes))), mean, std)


def answer(model: Backbone) -> torch.Tensor:
    """Logits of some digits in evaluation mode."""
    with torch.no_grad():
        return model.eval()(digits()[0])


def steps(model: Backbone, count: int = 3) -> None:
    """Some steps of training as the learner makes them."""
    groups = [{"params": group["params"], "lr": 0.01 * group["lr_scale"]} for group in model.parameter_groups()]
    optimizer = torch.optim.SGD(groups, lr=0.01)
    images, targets = digits()
    for _ in range(count):
        optimizer.zero_grad()
        functional.cross_entropy(model.train()(images), targets).backward()
        optimizer.step()


def trained(model: Backbone) -> list[bool]:
    """For each layer from the head to the stem whether it is trained, all of it or none."""
    parameters = dict(model.network.named_parameters())
    flags = [{parameters[name].requires_grad for name in layer} for layer in model.layers]
    assert all(len(flag) == 1 for flag in flags)
    return [flag.pop() for flag in flags]


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(CheckpointError) as error:
        Backbone(DIGITS, **{**TINY, **options}, weights=str(path))
    return str(error.value)


# --- what the network sees


def test_renormalizes():
    """As if the pixels had been resized, repeated and normalised for the weights by hand."""
    model = Backbone(DIGITS, architecture="test_resnet", image_size=48).eval()
    torch.nn.init.normal_(model.network.get_classifier().weight)
    inputs, _ = digits()
    pixels = functional.interpolate(inputs * 0.37 + 0.3, (48, 48), mode="bilinear").repeat(1, 3, 1, 1)
    mean, std = (torch.tensor(model.network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(model(inputs), model.network((pixels - mean) / std), rtol=1e-4, atol=1e-5)


def test_renormalizes_colour_to_its_own_statistics():
    """EfficientNet-Lite's inputs lie in [-1, 1]; large photographs are smoothed before they shrink."""
    pixels, spec = photographs(10)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.input.mean, spec.input.std))
    model = Backbone(spec, architecture="tf_efficientnet_lite0", image_size=64).eval()
    torch.nn.init.normal_(model.network.get_classifier().weight)
    small = functional.interpolate(pixels, (64, 64), mode="bilinear", antialias=True)
    expected = model.network((small - 0.5) / 0.5)
    torch.testing.assert_close(model((pixels - mean) / std), expected, rtol=1e-3, atol=1e-4)


def test_images_of_other_channels_are_refused():
    spec = image_spec("satellite", (4, 8, 8), ("field", "forest"), mean=(0.5,) * 4, std=(0.2,) * 4)
    with pytest.raises(ConfigError, match=r"^model=backbone: takes images of 1 or 3 channels\. Received: 4$"):
        Backbone(spec)


# --- architectures


@pytest.mark.parametrize(
    ("architecture", "hint"),
    [
        ("mobilnetv2_100", " Did you mean 'mobilenetv2_100'?"),
        ("resnet-18", " Did you mean 'resnet18'?"),
        ("hf-hub:stranger/model", ""),
        ("", ""),
    ],
)
def test_unknown_architecture(architecture, hint):
    with pytest.raises(ConfigError) as error:
        Backbone(DIGITS, architecture=architecture)
    assert str(error.value) == f"model.architecture: timm has no '{architecture}'.{hint}"


def test_a_transformer_takes_another_image_size():
    model = Backbone(DIGITS, architecture="test_vit", image_size=64)
    assert model.network.pos_embed.shape[1] == 1 + (64 // 16) ** 2
    assert answer(model).shape == (8, 10)


@pytest.mark.parametrize(("architecture", "size"), [("test_vit", 50), ("coat_tiny", 64), ("inception_v3", 16)])
def test_image_sizes_that_do_not_fit(architecture, size):
    with torch.device("meta"), pytest.raises(ConfigError) as error:
        Backbone(DIGITS, architecture=architecture, image_size=size)
    message = str(error.value)
    assert message.startswith(f"model.image_size: not supported by '{architecture}': ")
    assert message.endswith(f" Received: {size}")
    assert "\n" not in message


# --- weights from a file


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_come_back(tmp_path, suffix):
    model = Backbone(DIGITS, **TINY)
    steps(model)
    path = tmp_path / f"größe=5 {suffix}"
    state = model.network.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert torch.equal(answer(Backbone(DIGITS, **TINY, weights=str(path))), answer(model))


@pytest.mark.parametrize("prefix", ["module.", "model.network."])
def test_wrapped_weights_come_back(tmp_path, prefix):
    """Those of DataParallel, and of a run of dlframe, beside tensors of other parts."""
    model = Backbone(DIGITS, **TINY)
    steps(model)
    state = {f"{prefix}{name}": tensor for name, tensor in model.network.state_dict().items()}
    torch.save({"state_dict": {"teacher.weight": torch.ones(2), **state}, "epoch": 3}, tmp_path / "run.pt")
    assert torch.equal(answer(Backbone(DIGITS, **TINY, weights=str(tmp_path / "run.pt"))), answer(model))


@pytest.mark.parametrize("bare", [False, True])
def test_a_head_of_another_size_is_left_out(tmp_path, bare):
    """All else is taken over and the new head stays at zero; likewise where the file has no head."""
    source = timm.create_model("test_resnet", num_classes=0 if bare else 1000).state_dict()
    save_file(source, tmp_path / "imagenet.safetensors")
    own = Backbone(DIGITS, **TINY, weights=str(tmp_path / "imagenet.safetensors")).network.state_dict()
    assert not own["fc.weight"].any()
    assert not own["fc.bias"].any()
    assert all(torch.equal(own[name], tensor) for name, tensor in source.items() if not name.startswith("fc."))


def test_wrong_shapes(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    state["conv1.0.weight"] = torch.zeros(7, 3, 3, 3)
    save_file(state, tmp_path / "w.safetensors")
    right = tuple(timm.create_model("test_resnet").state_dict()["conv1.0.weight"].shape)
    assert refusal(tmp_path / "w.safetensors") == (
        f"{tmp_path}/w.safetensors: does not match the model: 'conv1.0.weight' must have shape {right}. Received: (7, 3, 3, 3)."
    )


def test_names_that_differ(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    torch.save({name.replace("layer4", "layer5"): tensor for name, tensor in state.items()}, tmp_path / "w.pt")
    assert refusal(tmp_path / "w.pt") == (
        f"{tmp_path}/w.pt: does not match the model: missing tensor 'layer4.0.bn1.bias'. Did you mean 'layer5.0.bn1.bias'?"
    )
    torch.save({**state, "fc2.weight": torch.ones(1)}, tmp_path / "w.pt")
    assert refusal(tmp_path / "w.pt") == (
        f"{tmp_path}/w.pt: does not match the model: unexpected tensor 'fc2.weight'. Did you mean 'fc.weight'?"
    )


def test_another_architecture(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    assert refusal(tmp_path / "vit.pth").startswith(f"{tmp_path}/vit.pth: does not match the model: ")


class Bomb:
    """Removes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.remove, (str(self.target),)


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_a_pickle_is_refused_and_runs_nothing(tmp_path, form):
    victim, path = tmp_path / "victim", tmp_path / "weights.pt"
    victim.touch()
    content = {"conv1.0.weight": torch.ones(1), "bomb": Bomb(victim)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    expected = f"{path}: is damaged, or a pickle of other objects than tensors, which could run code."
    assert refusal(path) == expected
    assert victim.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file(tmp_path, suffix, share):
    path = tmp_path / f"w{suffix}"
    state = timm.create_model("test_resnet").state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert refusal(path) == f"{path}: is damaged or truncated."


def test_files_that_hold_no_weights(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    assert refusal(tmp_path / "list.pt") == f"{tmp_path}/list.pt: must hold tensors by name. Received: list"
    assert refusal(tmp_path / "none.pt") == f"model.weights: no such file. Received: '{tmp_path}/none.pt'."
    rule = "model.weights: must be none, package, hub or a file that ends in .safetensors, .pt or .pth."
    assert refusal(tmp_path / "w.pkl") == f"{rule} Received: '{tmp_path}/w.pkl'."
    assert refusal(Path("pakage")) == f"{rule} Received: 'pakage'. Did you mean 'package'?"


# --- the size of images


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, 64),
        ({"image_size": 96}, 96),
        ({"weights": "package"}, 224),
        ({"weights": "package", "image_size": 96}, 96),
        ({"weights": "mine.pt", "architecture": "test_resnet"}, 160),  # the size in timm's description of these weights
        ({"weights": "hub", "architecture": "tf_efficientnet_b3.ns_jft_in1k"}, 300),
    ],
)
def test_the_size_is_that_of_the_weights(options, size):
    assert Backbone.input_size(**{"architecture": "mobilenetv2_100", "weights": "none", "image_size": None, **options}) == size


# --- weights from a package


def test_a_package_of_torchvision(tmp_path, monkeypatch):
    """torchvision's MobileNetV2 under timm's names answers as torchvision's does."""
    theirs = torchvision.models.mobilenet_v2().eval()
    torch.save(theirs.state_dict(), tmp_path / "mobilenet.pth", _use_new_zipfile_serialization=False)
    monkeypatch.setattr(backbone, "member", lambda *package: tmp_path / "mobilenet.pth")
    images, spec = photographs(1000)
    model = Backbone(spec, weights="package", image_size=64).eval()
    images = functional.interpolate(images, (64, 64))
    mean, std = (torch.tensor(model.network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(model.network((images - mean) / std), theirs((images - mean) / std))


@pytest.mark.parametrize(("architecture", "seen"), [("mobilenetv2_100", 663), ("tf_efficientnet_lite0", 442)])
def test_a_package_has_seen_the_world(architecture, seen, monkeypatch):
    """The photograph of a Chinese temple is ImageNet's monastery, or its bell cote."""
    monkeypatch.setattr(fetch, "_fetch", lambda *args: pytest.skip("not in the cache"))
    pixels, spec = photographs(1000)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.input.mean, spec.input.std))
    model = Backbone(spec, architecture=architecture, weights="package", image_size=224).eval()
    with torch.no_grad():
        assert model((pixels[:1] - mean) / std).argmax().item() == seen


def test_architectures_without_a_package():
    with pytest.raises(ConfigError) as error:
        Backbone(DIGITS, **TINY, weights="package")
    assert str(error.value) == (f"model.weights: package has weights of {', '.join(PACKAGES)}. Received: 'test_resnet'")


# --- weights from the hub


class Hub(http.server.BaseHTTPRequestHandler):
    """What the Hugging Face hub answers for one file."""

    content = b""

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("ETag", '"0123456789"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    yield server
    server.shutdown()
    server.server_close()


def test_the_hub(hub, monkeypatch):
    """Fetched once, then from its cache; the head of 1000 classes is left out."""
    source = timm.create_model("test_resnet").state_dict()
    monkeypatch.setattr(Hub, "content", save(source))
    first = Backbone(DIGITS, **TINY, weights="hub")
    hub.shutdown()
    hub.server_close()
    for model in (first, Backbone(DIGITS, **TINY, weights="hub")):
        own = model.network.state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in source.items() if not name.startswith("fc."))


def test_a_hub_that_does_not_answer(hub):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(CheckpointError) as error:
        Backbone(DIGITS, **TINY, weights="hub")
    message = str(error.value)
    url = f"http://127.0.0.1:{hub.server_port}/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    assert message.startswith(f"{url}: download failed: ")
    assert message.endswith(" Try: model.weights=package, or a file")
    assert "\n" not in message


def test_architectures_that_the_hub_lacks():
    with pytest.raises(ConfigError) as error:
        Backbone(DIGITS, architecture="darknet17", weights="hub")
    assert str(error.value) == "model.weights: the hub has no weights of 'darknet17'. Try: model.weights=none"


# --- what is trained


def test_a_frozen_backbone_stays_as_it_is():
    """Parameters and batch norm's statistics, to the bit; only the head moves."""
    model = Backbone(DIGITS, **TINY, trainable="head")
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    steps(model)
    changed = [name for name, tensor in model.network.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["fc.weight", "fc.bias"]


def test_a_whole_network_moves():
    """The head, which starts at zero, first; the stem and batch norm's statistics then too."""
    model = Backbone(DIGITS, **TINY)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    steps(model)
    after = model.network.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in ("fc.weight", "conv1.0.weight", "bn1.running_mean"))


def test_gradual_goes_from_the_head_to_the_stem():
    model = Backbone(DIGITS, **TINY, trainable="gradual")
    depth = len(model.layers)
    assert model.layers[0] == ["fc.weight", "fc.bias"]
    assert all(name.startswith(("conv1.", "bn1.")) for name in model.layers[-1])
    counts = []
    for epoch in range(20):
        model.start_epoch(epoch, 20)
        flags = trained(model)
        assert flags == sorted(flags, reverse=True)
        counts.append(sum(flags))
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[9] < depth
    assert counts[10:] == [depth] * 10
    model.start_epoch(0, 20)
    assert sum(trained(model)) == 1


def test_gradual_keeps_frozen_layers_in_evaluation_mode():
    model = Backbone(DIGITS, **TINY, trainable="gradual").train()
    model.start_epoch(0, 2)
    assert not any(m.training for m in model.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    model.start_epoch(1, 2)
    assert all(m.training for m in model.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    model.eval()
    model.start_epoch(1, 2)
    assert not any(m.training for m in model.network.modules())


def test_gradual_takes_one_process(monkeypatch):
    """Several would each train what they unfreeze on their own, and say nothing."""
    model = Backbone(DIGITS, **TINY, trainable="gradual")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"^model\.trainable: gradual requires one process"):
        model.start_epoch(0, 2)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "test_efficientnet", "caformer_s18"])
@pytest.mark.parametrize("trainable", ["all", "head", "gradual"])
def test_parameter_groups(architecture, trainable):
    """Each parameter that any epoch trains, once; rates fall from the head to the stem."""
    with torch.device("meta"):
        model = Backbone(
            DIGITS, architecture=architecture, image_size=64, trainable=trainable, head_lr_scale=4.0, layer_decay=0.5
        )
    groups = model.parameter_groups()
    held = [id(parameter) for group in groups for parameter in group["params"]]
    model.start_epoch(3, 4)
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters() if p.requires_grad}
    assert trainable == "head" or len(held) == len(list(model.parameters()))
    assert [group["lr_scale"] for group in groups] == [4.0, *(0.5**depth for depth in range(1, len(groups)))]


def test_a_step_with_layer_decay_is_that_of_its_closed_form():
    """Each layer steps by lr * decay^depth times its gradient; the head by lr times its own factor."""
    torch.manual_seed(0)
    model = Backbone(DIGITS, **TINY, head_lr_scale=3.0, layer_decay=0.5).eval()
    optimizer = torch.optim.SGD(parameter_groups(model, 0.1, "all"))
    depths = {name: depth for depth, names in enumerate(model.layers) for name in names}
    model(digits()[0]).square().sum().add(sum(p.sum() for p in model.parameters())).backward()
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    optimizer.step()
    assert max(depths.values()) >= 3
    for name, parameter in model.network.named_parameters():
        rate = 0.1 * (0.5 ** depths[name] if depths[name] else 3.0)
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.detach(), before[name] - rate * parameter.grad)
