import subprocess
import sys

import pytest
import yaml

from facerwkv.core.errors import InputError
from facerwkv.models.zoo import MODELS
from facerwkv.training.recipe import Recipe, shipped


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_reads_and_survives_a_round_trip(name, tmp_path):
    recipe = Recipe.read(name)
    assert recipe.model.name in MODELS
    assert recipe.about
    (tmp_path / "copy.yaml").write_text(recipe.to_yaml())
    assert Recipe.read(tmp_path / "copy.yaml") == recipe


def test_the_paper_s_recipe_is_its_text():
    recipe = Recipe.read("paper")
    assert recipe.transform.image_size == (400, 600)
    assert (recipe.optim.name, recipe.optim.lr, recipe.optim.betas, recipe.optim.clip_norm) == (
        "adam",
        1e-3,
        (0.9, 0.999),
        1,
    )
    assert (recipe.data.batch_size, recipe.data.validation, recipe.data.val_fraction) == (64, "random", 0.1)
    assert (recipe.train.epochs, recipe.train.select, recipe.train.ema) == (25, "best", None)
    assert (recipe.transform.mean, recipe.transform.std) == ((0, 0, 0), (1, 1, 1))
    assert not recipe.augment.any_image
    assert (recipe.augment.mixup, recipe.augment.cutmix) == (0, 0)


def test_the_authors_recipe_is_their_code():
    recipe = Recipe.read("paper_as_coded")
    assert (recipe.transform.image_size, recipe.transform.interpolation) == ((600, 400), "bilinear_aliased")
    assert (recipe.schedule.name, recipe.optim.clip_norm) == ("as_coded", None)
    assert (recipe.data.validation, recipe.train.select) == ("per_class", "last")


@pytest.mark.parametrize("name", MODELS)
def test_every_model_s_own_recipe_is_shipped_and_reads(name):
    recipe = Recipe.read(MODELS[name].recipe, values={"model.name": name})
    assert recipe.transform.crop == "both" or not MODELS[name].config.two_inputs


def test_a_recipe_made_for_one_model_is_that_model_s_own():
    general = (
        "paper",
        "paper_as_coded",
        "modern",
        "finetune",
        "demo",
        "ferplus",
    )  # the last starts from another's weights
    made = {Recipe.read(name).model.name: name for name in shipped() if name not in general}
    assert made == {name: MODELS[name].recipe for name in made}
    assert {MODELS[f"facerwkv_{size}"].recipe for size in ("small", "hybrid", "large_fullwidth")} == {"paper"}
    assert {MODELS[name].recipe for name in ("alexnet", "vgg19", "resnet152", "vit_base")} == {"finetune"}


def test_changes_are_yaml_and_leave_the_rest():
    recipe = Recipe.read("paper", ["train.epochs=15", "transform.image_size=[80, 120]", "model.options.depth=3"])
    assert (recipe.train.epochs, recipe.transform.image_size, recipe.model.options) == (15, (80, 120), {"depth": 3})
    assert recipe.optim == Recipe.read("paper").optim


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.epoch=5", r"Unknown key 'train\.epoch'\. Known keys there: epochs, seed"),
        ("trian.epochs=5", r"Unknown key 'trian'\. Known keys there: about, model"),
        ("train.epochs=many", r"train\.epochs: .*'many'"),
        ("train.epochs=0", r"train\.epochs: .*greater than or equal to 1"),
        ("train.epochs", "write key=value"),
        ("train.epochs=[", "not valid YAML"),
        ("train.epochs.more=1", "epochs is a value"),
        ("data.validation=leaky", r"data\.validation: .*'random'"),
    ],
)
def test_a_wrong_change_is_named(change, message):
    with pytest.raises(InputError, match=message):
        Recipe.read("paper", [change])


def test_an_unknown_recipe_lists_the_shipped_ones():
    with pytest.raises(InputError, match=r"no recipe 'papyrus'.*modern.*paper"):
        Recipe.read("papyrus")


@pytest.mark.parametrize("text", ["- a\n- list", "key: [", "just words"])
def test_a_file_that_is_no_recipe(text, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match=r"recipe\.yaml"):
        Recipe.read(tmp_path / "recipe.yaml")


def test_a_recipe_never_builds_python_objects(tmp_path):
    (tmp_path / "recipe.yaml").write_text("about: !!python/object/apply:os.system ['true']")
    with pytest.raises(InputError, match="not valid YAML"):
        Recipe.read(tmp_path / "recipe.yaml")


def test_recipes_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().train = None  # type: ignore[misc]


def test_yaml_of_a_recipe_is_plain():
    assert yaml.safe_load(Recipe().to_yaml())["train"]["epochs"] == 25


TYPED = {
    "data.source": ["imagefolder:/x/my #faces", "imagefolder:/x/a: b", "toy", "manifest:C:\\my data\\täglich.csv"],
    "data.labels": [("yes", "no"), ("1", "2", "03"), ("null", "~"), ("a: b", "#c", "don't")],
    "model.name": ["facerwkv_fer", "timm:resnet18"],
    "init_from": ["runs/my #1 run", "007", "null"],
    "train.device": ["cpu"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in TYPED.items() for value in values])
def test_values_arrive_as_they_are_and_survive_the_run_s_own_file(key, value, tmp_path):
    recipe = Recipe.read("modern", values={key: value})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    for found in (recipe, Recipe.read(tmp_path / "recipe.yaml")):
        for name in key.split("."):
            found = getattr(found, name)
        assert found == value


def test_a_change_wins_over_a_value():
    assert Recipe.read("modern", ["data.source=toy"], {"data.source": "imagefolder:/x"}).data.source == "toy"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data.label": ("a",)}, r"Unknown key 'data\.label'"),
        ({"data.labels": ("a", "")}, r"data\.labels\.1: .*at least 1 character"),
        ({"about.more": 1}, "'about.more=1' cannot be applied: about is a value"),
        ({"model.name": "resnet9000"}, "Unknown model 'resnet9000'"),
        ({"model.options.depht": 3}, r"Unknown key 'model\.options\.depht'\. Known keys there: image_size"),
        ({"model.options.mixer": "rwkv9"}, r"model\.options\.mixer: there is none called 'rwkv9'; choose rwkv1"),
        ({"model.options.depth": 0}, r"model\.options\.depth: .*greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_named(values, message):
    with pytest.raises(InputError, match=message):
        Recipe.read("paper", values=values)


LIGHT = ("facerwkv.training.recipe", "facerwkv.models.zoo", "facerwkv.mixers", "facerwkv.data.config")


@pytest.mark.parametrize("module", LIGHT)
def test_configurations_load_neither_torch_nor_lightning(module):
    heavy = ("torch", "lightning", "timm", "torchvision", "numpy", "rich")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
