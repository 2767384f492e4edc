"""What a step takes, what fits, and what is said where it does not."""

from facerwkv.training.memory import SPARE, STATES, Cost, measure, too_small
from facerwkv.training.recipe import Recipe

GB = 1_000_000_000
SMALL = ["transform.image_size=[80, 120]", "model.name=facerwkv4_small"]


def test_a_step_takes_the_weights_four_times_and_what_each_image_keeps():
    assert Cost(100, 7, 0, 0).step(64) == round(SPARE * (STATES * 100 + 7 * 64))


def test_the_least_accumulation_that_fits_divides_the_batch():
    large = Cost(60_000_000, 112_500_000, 0, 0)  # 7.2 GB at 64 images, as the large model was measured
    assert [large.accumulation(64, free * GB) for free in (16, 8, 5, 2, 1)] == [1, 2, 2, 8, 16]
    assert large.accumulation(60, 5 * GB) == 2
    assert large.accumulation(64, GB // 3) is None


def test_the_sentence_names_the_accumulation_that_fits():
    recipe = Recipe.read("paper", SMALL)
    cost = measure(recipe)
    said = too_small(recipe, cost.step(16))
    assert "Use data.batch_size=16 train.accumulate=4, with the same gradients" in said
    assert f"{cost.step(64) / GB:,.1f} GB" in said
    assert "Not even one image fits" in too_small(recipe, cost.step(1) // 2)


def test_gradient_checkpointing_keeps_less_of_an_image():
    whole, parts = (measure(Recipe.read("paper", [*SMALL, *more])) for more in ([], ["train.grad_checkpointing=true"]))
    assert parts.kept < whole.kept / 1.5
    assert parts.weights == whole.weights
    assert min(parts.train_seconds, parts.seconds, whole.train_seconds, whole.seconds) > 0
