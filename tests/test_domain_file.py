import copy
import json
import os
import re

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from modeling_dkd import DKDHead
from modeling_dkd.domain_file import DOMAIN_FILE, FORMAT_VERSION
from modeling_dkd.fitted_buffers import BUFFER_AXES, UNFITTED
from tests.fitted_heads import BIAS, DIM, FITTED, NUM_CLASSES, SCALE, TOY, make_head
from tests.toy_domain import toy_domain


NO_DOMAIN = "it is not a domain of this version of DKD; fit the domain again."


SMALLER = make_head().fit(TOY.videos[:40], TOY.texts[:4])
STATE = FITTED.state_dict()
# All that a head keeps, by itself: a buffer that comes later is in every test below.
NAMES = sorted(STATE)
DIVISORS = sorted(name for name, value in UNFITTED.items() if value > 0)


@pytest.fixture
def folder(tmp_path):
    FITTED.save_pretrained(tmp_path, class_names=list("abcdef"))
    return tmp_path


def assert_same_state(head, state):
    assert head.state_dict().keys() == state.keys()
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def assert_same_head(one, other):
    assert one.config.num_components == other.config.num_components
    assert_same_state(one, other.state_dict())
    outputs = [head(TOY.videos, TOY.texts) for head in (one, other)]
    assert all(map(torch.equal, *outputs))


def rewrite(folder, tensors=None, **metadata):
    """The domain file with other tensors or metadata."""
    path = folder / DOMAIN_FILE
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | metadata
    save_file(load_file(path) if tensors is None else tensors, path, metadata)


def other_shapes(tensor):
    """Tensors of other ranks and sizes than this one."""
    return [tensor[None], torch.cat([tensor, tensor[:1]]) if tensor.dim() else tensor.repeat(3)]


def test_a_file_is_as_large_as_the_page_says(tmp_path):
    """About 4 D (2 D + 6 K) bytes, with a header of some kB."""
    dim, num_classes = 128, 10
    toy = toy_domain(60, num_classes, dim)
    make_head(dim).fit(toy.videos, toy.texts).save_pretrained(tmp_path)
    size = (tmp_path / DOMAIN_FILE).stat().st_size
    assert abs(size - 4 * dim * (2 * dim + 6 * num_classes)) < 16_000


def test_the_state_holds_everything_and_the_version():
    assert set(NAMES) == {"log_logit_scale", "logit_bias", "format_version", *BUFFER_AXES}
    assert float(STATE["format_version"]) == FORMAT_VERSION
    assert all(tensor.dtype == torch.float32 for tensor in STATE.values())


@pytest.mark.parametrize("names", [None, ["a", "b", "ç", "d", "e", "f"]])
def test_a_head_is_saved_and_loaded_alone_bit_by_bit(tmp_path, names):
    FITTED.save_pretrained(tmp_path / "new" / "folder", class_names=names)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [DOMAIN_FILE]
    head = DKDHead.from_pretrained(tmp_path / "new" / "folder")
    assert head.is_fitted
    assert head.class_names == names
    assert_same_head(head, FITTED)
    head.save_pretrained(str(tmp_path))
    assert DKDHead.from_pretrained(str(tmp_path)).class_names == names


def test_the_options_of_the_head_come_with_it_and_may_be_overridden(tmp_path):
    options = {"video_strength": 0.7, "num_svgd_steps": 3, "svgd_kernel": "imq"}
    make_head(**options).fit(TOY.videos, TOY.texts).save_pretrained(tmp_path)
    head = DKDHead.from_pretrained(tmp_path)
    assert {name: getattr(head.config, name) for name in options} == options
    assert (head.config.logit_scale, head.config.logit_bias) == (SCALE, BIAS)
    other = DKDHead.from_pretrained(tmp_path, video_strength=0.1, logit_scale=7.0)
    assert (other.config.video_strength, other.config.svgd_kernel) == (0.1, "imq")
    assert float(other.logit_scale.detach()) == pytest.approx(7)
    with pytest.raises(ValueError, match=r"^DKDHead has no option 'strength'; it has logit_bias, "):
        DKDHead.from_pretrained(tmp_path, strength=0.1)
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path / DOMAIN_FILE))} cannot be used: video_strength"):
        DKDHead.from_pretrained(tmp_path, video_strength=2.0)
    with pytest.raises(
        ValueError, match=rf"{DOMAIN_FILE} has embeddings of {DIM} dimensions, but this head has 16\.$"
    ):
        DKDHead.from_pretrained(tmp_path, projection_dim=16)


def test_a_trained_scale_is_kept(tmp_path):
    head = make_head().fit(TOY.videos, TOY.texts)
    with torch.no_grad():
        head.log_logit_scale.fill_(1.5)
    head.save_pretrained(tmp_path)
    loaded = DKDHead.from_pretrained(tmp_path)
    assert_same_head(loaded, head)
    assert loaded.config.logit_scale == pytest.approx(torch.tensor(1.5).exp().item())


def test_an_unanchored_domain_is_saved_and_loaded_too(tmp_path):
    head = make_head().fit(TOY.videos, num_components=3)
    head.save_pretrained(tmp_path)
    assert_same_head(DKDHead.from_pretrained(tmp_path), head)


def test_a_loaded_domain_goes_on_learning(tmp_path):
    """From its statistics: its videos are in no file."""
    head = make_head().fit(TOY.videos[:80], TOY.texts)
    head.save_pretrained(tmp_path)
    loaded = [DKDHead.from_pretrained(tmp_path), make_head(), make_head().fit(TOY.videos, TOY.texts[:4])]
    for other in loaded[1:]:
        other.load_state_dict(head.state_dict())
    frequency = head.log_frequency.clone()
    for other in loaded:
        other.update(TOY.videos[80:])
        assert_same_head(other, loaded[0])
        assert float(other.num_samples) == len(TOY.videos)
        assert torch.equal(other.log_frequency, frequency)
    torch.testing.assert_close(loaded[0].means, head.update(TOY.videos[80:]).means, rtol=0, atol=0.02)


def test_a_disk_that_refuses_leaves_the_domain_that_was_there(folder, monkeypatch):
    before = (folder / DOMAIN_FILE).read_bytes()

    def save_half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("modeling_dkd.domain_file.save_file", save_half)
    with pytest.raises(OSError, match=rf"{DOMAIN_FILE} cannot be written: No space left on device"):
        make_head().fit(TOY.videos[:20], TOY.texts).save_pretrained(folder)
    assert [path.name for path in folder.iterdir()] == [DOMAIN_FILE]
    assert (folder / DOMAIN_FILE).read_bytes() == before


def test_nothing_to_save_and_wrong_names(tmp_path):
    with pytest.raises(ValueError, match=r"^there is no fitted domain to save; call fit first\.$"):
        make_head().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"^class_names has 2 names for 6 components\.$"):
        FITTED.save_pretrained(tmp_path, class_names=["a", "b"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_teammates_can_read_what_the_umask_lets_them(tmp_path, umask):
    before = os.umask(umask)
    try:
        FITTED.save_pretrained(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / DOMAIN_FILE).stat().st_mode & 0o777 == 0o666 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == [DOMAIN_FILE]


def test_what_is_no_file_of_a_domain_is_named(tmp_path):
    path = tmp_path / DOMAIN_FILE
    missing = f"{tmp_path} has no {DOMAIN_FILE}; a domain is written by DKDHead.save_pretrained."
    with pytest.raises(ValueError, match=f"^{re.escape(missing)}$"):
        DKDHead.from_pretrained(tmp_path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is not a safetensors file"):
        DKDHead.from_pretrained(tmp_path)
    for tensors in ({"weight": torch.zeros(3)}, {"means": torch.zeros(3)}, {"means": torch.zeros(3, DIM)}):
        save_file(tensors, path)
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))} .*{re.escape(NO_DOMAIN)}$"):
            DKDHead.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"options": "{"}, f"has metadata that is no JSON: {NO_DOMAIN}"),
        ({"options": "[" * 100_000}, f"has metadata that is no JSON: {NO_DOMAIN}"),
        ({"options": "null"}, f"lacks the options of its head: {NO_DOMAIN}"),
        ({"class_names": '{"a": 1}'}, f"has class_names that are no list of texts: {NO_DOMAIN}"),
        ({"class_names": "[1, 2]"}, f"has class_names that are no list of texts: {NO_DOMAIN}"),
        ({"class_names": '["a"]'}, "has 1 class names for 6 components."),
        ({"options": json.dumps({"projection_dim": 5})}, "has embeddings of 24 dimensions, but this head has 5."),
        ({"options": json.dumps({"projection_dim": "x"})}, "cannot be used: "),
        ({"options": json.dumps({"projection_dim": DIM, "logit_scale": -1})}, "cannot be used: logit_scale is -1"),
    ],
)
def test_hostile_metadata_is_refused(folder, metadata, message):
    rewrite(folder, **metadata)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{folder / DOMAIN_FILE} {message}')}"):
        DKDHead.from_pretrained(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_lacks_or_mismatches_any_tensor_is_refused(folder, name):
    whole = load_file(folder / DOMAIN_FILE)
    tensor = whole[name]
    broken = [
        whole | {name: other} for other in [*other_shapes(tensor), tensor.long(), torch.full_like(tensor, torch.nan)]
    ]
    broken.append({other: value for other, value in whole.items() if other != name})
    for tensors in broken:
        rewrite(folder, tensors)
        # Of means with another D: the dimension.
        with pytest.raises(ValueError, match=rf"{re.escape(NO_DOMAIN)}$|^.* has embeddings of \d+ dimensions"):
            DKDHead.from_pretrained(folder)
    rewrite(folder, whole)
    assert_same_head(DKDHead.from_pretrained(folder), FITTED)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format_version", FORMAT_VERSION + 1, f"has format_version {FORMAT_VERSION + 1} instead of {FORMAT_VERSION}"),
        ("weights", 0, "is not fitted"),
        *[(name, 0, f"has values in {name} that are not above 0") for name in DIVISORS],
    ],
)
def test_a_file_of_another_version_or_with_impossible_values_is_refused(folder, name, value, message):
    rewrite(folder, STATE | {name: torch.full_like(STATE[name], value)})
    with pytest.raises(ValueError, match=f"^{re.escape(f'{folder / DOMAIN_FILE} {message}: {NO_DOMAIN}')}$"):
        DKDHead.from_pretrained(folder)


def test_a_file_with_a_tensor_that_no_head_has_is_refused(folder):
    rewrite(folder, STATE | {"more": torch.ones(2)})
    with pytest.raises(ValueError, match=re.escape(f"holds 'more': {NO_DOMAIN}")):
        DKDHead.from_pretrained(folder)


@pytest.mark.parametrize("room", [0, 4, NUM_CLASSES])
def test_a_state_dict_makes_its_own_room(room):
    head = make_head(num_components=room)
    assert head.load_state_dict(STATE) == ([], [])
    assert_same_head(head, FITTED)
    assert head.load_state_dict(make_head().state_dict()) == ([], [])
    assert_same_head(head, make_head())


def test_a_state_dict_of_a_model_around_the_head_makes_its_own_room():
    outer = torch.nn.ModuleDict({"head": make_head()})
    outer.load_state_dict(torch.nn.ModuleDict({"head": FITTED}).state_dict())
    assert_same_head(outer["head"], FITTED)


def test_the_names_and_samples_of_the_domain_before_are_forgotten():
    head = make_head().fit(TOY.videos[:40], TOY.texts)
    head.class_names = list("uvwxyz")
    head.load_state_dict(STATE)
    assert head.class_names is None
    assert_same_head(head.update(TOY.videos[:5]), _updated_copy())


def _updated_copy():
    head = make_head()
    head.load_state_dict(STATE)
    return head.update(TOY.videos[:5])


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_that_lacks_or_mismatches_any_tensor_changes_nothing(name, strict):
    tensor = STATE[name]
    broken = [STATE | {name: other} for other in [*other_shapes(tensor), torch.full_like(tensor, torch.nan)]]
    broken.append({other: value for other, value in STATE.items() if other != name})
    head = copy.deepcopy(SMALLER)
    for state in broken:
        with pytest.raises(RuntimeError, match=r"the state dict .*(fit the domain again|dimensions)"):
            head.load_state_dict(state, strict=strict)
        assert_same_state(head, SMALLER.state_dict())
    assert_same_head(head, SMALLER)


def test_the_scale_alone_may_be_loaded():
    head = make_head().fit(TOY.videos, TOY.texts)
    head.load_state_dict({"log_logit_scale": torch.tensor(2.0)}, strict=False)
    assert float(head.log_logit_scale.detach()) == 2
    assert torch.equal(head.means, FITTED.means)


def test_a_domain_made_on_meta_can_be_loaded_there():
    with torch.device("meta"):
        head = make_head(num_components=NUM_CLASSES)
        head.load_state_dict({name: tensor.to("meta") for name, tensor in STATE.items()}, assign=True)
    head.load_state_dict(STATE, assign=True)
    assert_same_head(head, FITTED)
