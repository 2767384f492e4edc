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
    assert set(recipe.augment.model_dump().values()) == {0}


def test_the_authors_recipe_is_their_code():
    recipe = Recipe.read("paper_as_coded")
    assert recipe.transform.image_size == (600, 400)
    assert (recipe.schedule.name, recipe.optim.clip_norm) == ("as_coded", None)
    assert (recipe.data.validation, recipe.train.select) == ("copied", "last")


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
