"""Classes are texts, however they are typed; taken from the folders; renamed; merged."""

import pytest

from facerwkv.core.errors import InputError
from facerwkv.data.load import load_dataset
from facerwkv.training.recipe import Recipe, named_labels, named_pairs
from tests.data import trees

TYPED = [
    ("[1, 2, 10]", ("1", "2", "10")),
    ("[yes, no]", ("yes", "no")),
    ("[on, off, null, 1.0, 0x10]", ("on", "off", "null", "1.0", "0x10")),
    ("[AU: 4, 'AU: 6', AU 12]", ("AU: 4", "AU: 6", "AU 12")),
    ("auto", ("auto",)),
    ("null", None),
    ("[2024-01-01]", ("2024-01-01",)),
]


@pytest.mark.parametrize(("text", "expected"), TYPED)
def test_labels_are_texts_wherever_they_are_typed(text, expected, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"data:\n  labels: {text}\n")
    recipes = [Recipe.read("modern", [f"data.labels={text}"]), Recipe.read(file)]
    recipes.append(Recipe.read("modern", [f"data={{labels: {text}}}"]))
    (tmp_path / "again.yaml").write_text(recipes[0].to_yaml())
    recipes.append(Recipe.read(tmp_path / "again.yaml"))  # as a resumed run reads it
    assert [recipe.data.labels for recipe in recipes] == [expected] * 4


@pytest.mark.parametrize("text", ["{1: surprise, yes: no}", "{1: surprise, 'yes': 'no'}"])
def test_renamed_classes_are_texts(text):
    assert Recipe.read("modern", [f"data.rename={text}"]).data.rename == {"1": "surprise", "yes": "no"}


@pytest.mark.parametrize(
    ("text", "expected"), [("1, 2 ,7", ["1", "2", "7"]), ("yes,no", ["yes", "no"]), ("AU: 4,b", ["AU: 4", "b"])]
)
def test_the_option_labels(text, expected):
    assert named_labels(text) == expected
    assert named_labels("auto") == ["auto"]


@pytest.mark.parametrize("lines", ["1=surprise\n2=fear\n", "1 surprise\n\n2\tfear", "\ufeff1: surprise\r\n2, fear\r\n"])
def test_a_file_of_labels(lines, tmp_path):
    (tmp_path / "labels.txt").write_bytes(lines.encode())
    assert (
        named_pairs(str(tmp_path / "labels.txt")) == named_pairs("1=surprise, 2=fear") == {"1": "surprise", "2": "fear"}
    )
    (tmp_path / "names.txt").write_text("surprise\nfear\n")
    assert named_labels(str(tmp_path / "names.txt")) == ["surprise", "fear"]
    with pytest.raises(InputError, match=r"'surprise' of surprise renames nothing: write OLD=NEW"):
        named_pairs("surprise")


def test_auto_takes_the_names_of_the_folders(tmp_path):
    trees.folders(tmp_path, ("10", "2", "Bored", "happy"), 1)
    assert load_dataset(f"imagefolder:{tmp_path}", labels=["auto"]).labels == ("Bored", "happy", "2", "10")


def test_renaming_maps_numbers_and_merges_classes(tmp_path):
    trees.folders(tmp_path, ("1", "2", "Angry", "fear"), 2)
    source = f"imagefolder:{tmp_path}"
    rename = {"1": "surprise", "2": "negative", "anger": "negative", "fear": "negative"}
    dataset = load_dataset(source, labels=["auto"], rename=rename)
    assert dataset.labels == ("negative", "surprise")
    assert [each.label for each in dataset.splits["train"]].count("negative") == 6
    with pytest.raises(InputError, match=r"has no class 7 to rename; it has Angry, fear, 1, 2\."):
        load_dataset(source, labels=["auto"], rename={"7": "x"})


def test_renaming_merges_votes(tmp_path):
    rename = {"happiness": "positive", "surprise": "positive", "neutral": "neutral"}
    source = trees.build("ferplus_soft", tmp_path)
    samples = load_dataset(source, labels=["positive", "neutral"], rename=rename).splits["train"]
    assert samples[-1].votes == {"neutral": 4 / 6, "positive": 2 / 6}
