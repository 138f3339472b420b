import pytest
import yaml

from modeling_dkd.training.config import as_plain, load_config, save_config

from .conftest import ROOT


HUB_CONFIGS = sorted((ROOT / "hub_configs").glob("*.yaml"))


def test_overrides_and_types(config_file, tmp_path):
    config = load_config(
        config_file(), ["recipe.learning_rate=2e-5", "data.classes=[Red, Blue]", "recipe.mixed_precision=no"]
    )
    assert config.recipe.learning_rate == 2e-5
    assert config.data.classes == ("Red", "Blue")
    assert config.recipe.mixed_precision == "no"
    assert config.augmentation.flip_probability == 0.5
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config
    assert as_plain(config)["data"]["classes"] == ["Red", "Blue"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.learning_rat=1", "unknown option recipe.learning_rat; did you mean recipe.learning_rate?"),
        ("recipes.epochs=1", "unknown option recipes; did you mean recipe?"),
        ("recipe.epochs=many", "recipe.epochs is 'many', but must be a whole number"),
        ("recipe.epochs=1.5", "recipe.epochs is 1.5, but must be a whole number"),
        ("recipe.epochs=true", "recipe.epochs is True, but must be a whole number"),
        ("recipe.epochs=-1", "recipe.epochs is -1, but must be at least 0"),
        ("recipe.learning_rate=fast", "recipe.learning_rate is 'fast', but must be a number"),
        ("recipe.learning_rate=.inf", "recipe.learning_rate is inf, but must be a finite number"),
        ("recipe.learning_rate=1" + "0" * 400, "recipe.learning_rate is 1000000"),
        ("recipe.trainable=most", "recipe.trainable is 'most', but must be one of all, last_blocks, lora, head"),
        ("recipe=3", "recipe must be a section with options below it, not 3"),
        ("recipe.epochs.x=3", "--set recipe.epochs.x: epochs holds no options"),
        ("recipe.epochs", "--set 'recipe.epochs' must read section.option=value, for example recipe.epochs=5"),
        ("data.classes=Red", "data.classes is 'Red', but must be a list"),
        ("data.test_views=8x2x1", "data.test_views: views '8x2x1' must read FRAMESxCROPSxCLIPS"),
        ("domain.loss_weight=2", "domain.loss_weight is 2.0, but must be 0 to 1"),
    ],
)
def test_what_is_refused(config_file, override, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the whole message is compared below)
        load_config(config_file(), [override])
    assert str(raised.value).startswith(message)


def test_a_text_encoder_that_would_not_learn(config_file):
    settings = ["recipe.train_text_encoder=true", "domain.loss_weight=1"]
    with pytest.raises(ValueError, match=r"domain\.loss_weight is 1\.0, but must be below 1 with recipe\.train_text"):
        load_config(config_file(), settings)


def test_lacking_options_and_files(config_file, options, tmp_path):
    del options["run"]["output_dir"]
    with pytest.raises(ValueError, match=r"option run\.output_dir is lacking"):
        load_config(config_file())
    with pytest.raises(ValueError, match="cannot read"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match="must hold sections"):
        load_config(tmp_path / "list.yaml")


@pytest.mark.parametrize("path", HUB_CONFIGS, ids=lambda path: path.stem)
def test_hub_configs(path):
    config = load_config(path, ["data.data_dir=videos"])
    assert config.run.output_dir == f"runs/{path.stem}"
    assert config.repo_id.endswith(path.stem)
    assert config.expected
    text = path.read_text()
    assert f"--config hub_configs/{path.stem}.yaml" in text
    assert "expected" in yaml.safe_load(text)


def test_all_announced_models_have_a_config():
    names = {path.stem for path in HUB_CONFIGS}
    for size in ("b32", "b16"):
        for dataset in ("ucf101", "hmdb51"):
            assert {f"clip-vit-{size}-{dataset}", f"clip-vit-{size}-{dataset}-zero-shot"} <= names
            assert {f"clip-vit-{size}-k400", f"clip-vit-{size}-k400-{dataset}"} <= names
    assert {"siglip2-b16-ucf101", "dkd-tiny"} <= names
