import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facerwkv.core.errors import InputError
from facerwkv.data.augment import Augment, AugmentConfig, mix, uniforms
from facerwkv.data.normalise import normalise
from facerwkv.data.transforms import EvalTransform, TransformConfig, crop_box
from facerwkv.training.recipe import Recipe

EVERYTHING = AugmentConfig(flip=0.5, rotate=20, scale=0.2, translate=0.1, brightness=0.3, contrast=0.3, erase=0.5)
ONE_EACH = {"flip": 0.5, "rotate": 20, "scale": 0.2, "translate": 0.1, "brightness": 0.3, "contrast": 0.3, "erase": 0.5}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def scene_pixels(height, width, seed=0):
    """Smooth waves with noise on top: uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    waves = 127 + 60 * np.sin(x / 17) * np.cos(y / 11)
    noise = np.random.default_rng(seed).normal(0, 25, (height, width, 3))
    return np.clip(waves[..., None] * (1, 0.8, 0.6) + noise, 0, 255).astype(np.uint8)


def floats(count=4, height=24, width=36, channels=3):
    return torch.from_numpy(np.random.default_rng(1).random((count, channels, height, width), np.float32))


def pillow(image, height, width):
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("size", [(480, 720), (1200, 1600), (48, 48), (37, 91), (400, 599)])
@pytest.mark.parametrize("wanted", [(400, 600), (64, 64), (96, 40)])
def test_a_scene_is_squashed_as_pillow_does_it(size, wanted):
    image = scene_pixels(*size)
    got = EvalTransform(TransformConfig(image_size=wanted))(image)
    assert (got.shape, got.dtype, got.flags.c_contiguous) == ((*wanted, 3), np.uint8, True)
    difference = np.abs(got.astype(int) - pillow(image, *wanted))
    assert difference.mean() < 0.02
    assert difference.max() <= 1


def test_an_image_of_the_right_size_is_left_alone():
    image = scene_pixels(40, 60)
    assert np.array_equal(EvalTransform(TransformConfig(image_size=(40, 60)))(image), image)


@pytest.mark.parametrize("crop", ["scene", "face"])
def test_grey_is_pillows_grey(crop):
    image = scene_pixels(40, 60)
    got = EvalTransform(TransformConfig(image_size=(40, 60), in_chans=1, crop=crop))(image)
    assert np.array_equal(got[..., 0], np.asarray(Image.fromarray(image).convert("L")))


def test_a_scene_ignores_the_box_and_a_face_without_one_is_the_whole_image():
    image = scene_pixels(50, 70)
    scene, face = (EvalTransform(TransformConfig(image_size=(20, 20), crop=crop)) for crop in ("scene", "face"))
    assert np.array_equal(scene(image, (10, 10, 30, 30)), scene(image))
    assert np.array_equal(face(image), scene(image))


def test_a_face_is_the_square_around_its_box():
    image = scene_pixels(60, 80)
    config = TransformConfig(image_size=(28, 28), crop="face", margin=0.2)
    assert np.array_equal(EvalTransform(config)(image, (30, 20, 50, 40)), image[16:44, 26:54])


def test_a_face_at_the_border_is_filled_with_the_border():
    image = scene_pixels(60, 80)
    config = TransformConfig(image_size=(30, 30), crop="face", margin=0)
    expected = np.pad(image, ((10, 0), (15, 0), (0, 0)), mode="edge")[:30, :30]
    assert np.array_equal(EvalTransform(config)(image, (-15, -10, 15, 20)), expected)


class TestSceneAndFace:
    BOX = (30, 20, 50, 40)

    def given(self, **options):
        return EvalTransform(TransformConfig(image_size=(60, 80), crop="both", margin=0, **options))

    def test_the_face_is_black_in_the_scene_and_stands_behind_it(self):
        image = scene_pixels(60, 80)
        both = self.given()(image, self.BOX)
        scene = image.copy()
        scene[20:40, 30:50] = 0
        face = EvalTransform(TransformConfig(image_size=(60, 80), crop="face", margin=0))(image, self.BOX)
        assert both.shape == (60, 80, 6)
        assert np.array_equal(both[..., :3], scene)
        assert np.array_equal(both[..., 3:], face)

    def test_a_black_scene_is_an_error_unless_prediction_asks_for_it(self):
        config = self.given(no_box="whole", in_chans=1).config
        assert config.no_box == TransformConfig(crop="both").no_box == "error"
        both = EvalTransform(config.model_copy(update={"no_box": "whole"}))(scene_pixels(60, 80))
        assert both.shape == (60, 80, 2)
        assert both[..., 0].max() == 0

    def test_without_a_box_the_middle_can_be_taken(self):
        image = scene_pixels(60, 80)
        assert np.array_equal(self.given(no_box="centre")(image), self.given()(image, (20, 15, 60, 45)))

    def test_without_a_box_one_can_be_asked_for(self):
        with pytest.raises(InputError, match=r"no face box.*data\.boxes=FILE.*no_box=centre"):
            self.given(no_box="error")(scene_pixels(60, 80))

    def test_both_are_normalised_alike(self):
        config = TransformConfig(image_size=(4, 4), crop="both", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
        half = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
        both = normalise(torch.cat([half, half], 3), config)
        one = normalise(half, config.model_copy(update={"crop": "face"}))
        torch.testing.assert_close(both, torch.cat([one, one], 1))
        assert torch.equal(both, normalise(torch.cat([half, half], 3).float(), config))


CROPS = [  # box, margin, (height, width), square
    ((10, 10, 20, 20), 0.0, (100, 100), (10, 10, 20, 20)),
    ((10, 10, 20, 20), 0.2, (100, 100), (8, 8, 22, 22)),
    ((10, 10, 30, 20), 0.0, (100, 100), (10, 5, 30, 25)),
    ((0, 0, 10, 40), 0.5, (50, 50), (-35, -20, 45, 60)),
    ((40, 40, 60, 60), 0.0, (50, 50), (40, 40, 60, 60)),
    ((5.2, 5.2, 5.4, 5.4), 0.0, (50, 50), (5, 5, 6, 6)),
]


@pytest.mark.parametrize(("box", "margin", "size", "square"), CROPS)
def test_crop_box(box, margin, size, square):
    assert crop_box(box, margin, size) == square


BAD_BOXES = [(20, 20, 10, 30), (20, 20, 20, 30), (100, 0, 120, 20), (0, -20, 20, -1), (0, 0, 1e6, 1e6)]


@pytest.mark.parametrize("box", [*BAD_BOXES, (math.nan, 0, 10, 10), (-math.inf, 0, 10, 10)])
def test_a_box_that_is_no_face_in_the_image_is_refused(box):
    with pytest.raises(InputError, match=r"The box \(.*image 90 wide and 60 high"):
        crop_box(box, 0.2, (60, 90))


@given(
    corner=st.tuples(st.floats(-80, 200), st.floats(-80, 120)),
    sides=st.tuples(st.floats(0.5, 200), st.floats(0.5, 200)),
    margin=st.floats(0, 1),
)
def test_the_crop_is_a_square_around_the_boxs_centre_that_covers_the_box(corner, sides, margin):
    box = (*corner, corner[0] + sides[0], corner[1] + sides[1])
    if box[2] <= 0 or box[3] <= 0 or box[0] >= 200 or box[1] >= 120:
        return
    left, top, right, bottom = crop_box(box, margin, (120, 200))
    side = max(sides) * (1 + 2 * margin)
    assert right - left == bottom - top >= 1
    half = 0.5 + 1e-9  # a pixel's, and what float64 rounds
    assert abs((right - left) - side) <= half or side < 1
    assert abs((left + right) / 2 - (box[0] + box[2]) / 2) <= half
    assert abs((top + bottom) / 2 - (box[1] + box[3]) / 2) <= half
    image = EvalTransform(TransformConfig(image_size=(8, 8), crop="face", margin=margin))(scene_pixels(120, 200), box)
    assert image.shape == (8, 8, 3)


def test_normalise_scales_then_standardises():
    images = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)  # (1, 1, 1, 3)
    config = TransformConfig(image_size=(1, 1), mean=(0.5, 0.2, 0.5), std=(0.5, 0.1, 0.25))
    got = normalise(images, config)
    assert (got.shape, got.dtype, got.is_contiguous()) == ((1, 3, 1, 1), torch.float32, True)
    assert got.flatten().tolist() == pytest.approx([-1.0, 0.0, 2.0], abs=1e-6)


def test_one_mean_serves_every_channel_and_grey_has_one():
    images = torch.full((2, 4, 5, 1), 255, dtype=torch.uint8)
    assert normalise(images, TransformConfig(in_chans=1, mean=(0.5,), std=(0.5,))).unique().tolist() == [1.0]
    assert normalise(images, TransformConfig(in_chans=1)).unique().tolist() == [1.0]
    assert normalise(images.expand(-1, -1, -1, 3), TransformConfig(mean=(0.5,))).unique().tolist() == [0.5]


@pytest.mark.parametrize("config", [TransformConfig(), TransformConfig(mean=(0.5,), std=(0.2,))])
def test_augmentation_comes_between_scaling_and_standardising(config):
    images = torch.arange(24, dtype=torch.uint8).view(1, 2, 4, 3)
    seen = []
    same = normalise(images, config, lambda unit: seen.append(unit) or unit)
    assert torch.equal(seen[0], images.permute(0, 3, 1, 2) / 255)
    assert torch.equal(same, normalise(images, config))
    darker = normalise(images, config, lambda unit: unit / 2)
    torch.testing.assert_close(darker, normalise(images / 2, config))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_images_stay_as_they_were(dtype, channels):
    images = torch.arange(24).to(dtype).view(1, 2, -1, channels)
    normalise(images, TransformConfig(in_chans=channels))
    assert images.flatten().tolist() == list(range(24))


@pytest.mark.parametrize("name", ONE_EACH)
def test_a_config_says_whether_it_changes_images(name):
    assert AugmentConfig(**{name: ONE_EACH[name]}).any_image
    assert not AugmentConfig(mixup=1, cutmix=1).any_image


BAD_CONFIGS = [
    ({"mean": [0.1, 0.2]}, "mean must have one number, or one for each of 3 channels"),
    ({"in_chans": 1, "std": [0.1, 0.2, 0.3]}, "std must have one number, or one for each of 1 channels"),
    ({"std": [0]}, "greater than 0"),
    ({"image_size": [0, 10]}, "image_size.0: .*greater than or equal to 1"),
    ({"crop": "head"}, "'scene', 'face' or 'both'"),
    ({"size": 3}, "Unknown key 'size'.*image_size"),
]


@pytest.mark.parametrize(("values", "message"), BAD_CONFIGS)
def test_a_wrong_transform_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        TransformConfig.parse(values)


def splitmix(state):
    """splitmix64 as published, in Python's integers."""
    mask = (1 << 64) - 1
    state = (state + 1) * 0x9E3779B97F4A7C15 & mask
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ state >> 27) * 0x94D049BB133111EB & mask
    return state ^ state >> 31


@pytest.mark.parametrize(("seed", "epoch", "sample"), [(0, 0, 0), (1, 2, 3), (-5, 7, 10**6), (2**63 + 1, 99, 2**40)])
def test_uniforms_are_splitmix64(seed, epoch, sample):
    mask = (1 << 64) - 1
    stream = splitmix(splitmix(splitmix(seed & mask) + epoch & mask) + sample & mask)
    expected = [(splitmix(stream + column & mask) >> 40) / (1 << 24) for column in range(5)]
    assert uniforms(seed, epoch, torch.tensor([sample]), 5)[0].tolist() == expected


def test_the_first_random_number_of_splitmix64_is_the_published_one():
    assert splitmix(0) == 0xE220A8397B1DCDAF


def test_uniforms_are_uniform_and_unrelated():
    numbers = uniforms(3, 1, torch.arange(50_000), 4).double()
    assert 0 <= numbers.min() < 1e-4 < 1 - 1e-4 < numbers.max() < 1
    assert numbers.mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.005)
    assert numbers.var(0).tolist() == pytest.approx([1 / 12] * 4, abs=0.002)
    following = uniforms(3, 2, torch.arange(50_000), 4).double()
    table = torch.cat((numbers, following, numbers.roll(1, 0)), 1).T
    assert (torch.corrcoef(table) - torch.eye(12)).abs().max() < 0.02


def test_augmentation_that_is_off_returns_its_input():
    images = floats()
    assert Augment(AugmentConfig(), 0)(images, torch.arange(4), 3) is images


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("config", [AugmentConfig(**{name: size}) for name, size in ONE_EACH.items()] + [EVERYTHING])
def test_a_sample_is_augmented_alike_alone_and_in_any_batch(config, device):
    images, ids = floats(5).to(device), torch.tensor([7, 1, 2, 900, 3], device=device)
    augment = Augment(config, seed=4)
    together = augment(images, ids, 2)
    order = torch.tensor([3, 0, 4, 2, 1], device=device)
    torch.testing.assert_close(augment(images[order], ids[order], 2), together[order], rtol=0, atol=1e-6)
    for place in range(5):
        alone = augment(images[place : place + 1], ids[place : place + 1], 2)
        torch.testing.assert_close(alone[0], together[place], rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(-(2**63), 2**63 - 1), epoch=st.integers(0, 1000), sample=st.integers(0, 2**31))
def test_augmented_images_keep_shape_and_range_and_repeat(seed, epoch, sample):
    images, ids = floats(1, 12, 20), torch.tensor([sample])
    once = Augment(EVERYTHING, seed)(images, ids, epoch)
    assert once.shape == images.shape
    assert 0 <= once.min() <= once.max() <= 1
    assert torch.equal(once, Augment(EVERYTHING, seed)(images, ids, epoch))


@pytest.mark.parametrize(("name", "size"), ONE_EACH.items())
def test_seed_epoch_and_sample_each_change_what_is_drawn(name, size):
    images = floats(1).expand(32, -1, -1, -1)
    config = AugmentConfig(**{name: size})
    ids = torch.arange(32)
    first = Augment(config, 0)(images, ids, 0)
    assert len(first.flatten(1).unique(dim=0)) > 1
    assert not torch.equal(first, Augment(config, 1)(images, ids, 0))
    assert not torch.equal(first, Augment(config, 0)(images, ids, 1))
    assert not torch.equal(first, Augment(config, 0)(images, ids + 32, 0))


def test_the_input_is_not_changed():
    images = floats()
    before = images.clone()
    Augment(EVERYTHING, 0)(images, torch.arange(4), 0)
    assert torch.equal(images, before)


def test_flips_are_exact_mirror_images_of_half_of_the_samples():
    images = floats(1, 6, 8).expand(400, -1, -1, -1)
    flipped = Augment(AugmentConfig(flip=0.5), 0)(images, torch.arange(400), 0)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert ((flipped == images).flatten(1).all(1) ^ mirrored).all()
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.08)


def test_a_flip_stays_a_flip_beside_other_movements():
    images = floats(64)
    ids = torch.arange(64)
    flip, rest = Augment(AugmentConfig(flip=0.5), 0), {"scale": 1e-9}
    both = Augment(AugmentConfig(flip=0.5, **rest), 0)(images, ids, 0)
    torch.testing.assert_close(both, flip(images, ids, 0), rtol=0, atol=1e-4)


def test_a_rotation_turns_a_wide_image_without_shearing_it():
    height, width = 60, 120
    y, x = np.mgrid[:height, :width] + 0.5
    images = torch.zeros(1, 1, height, width)
    images[0, 0] = torch.from_numpy(np.exp(-((x - 85) ** 2 + (y - 30) ** 2) / 18))  # a blob 25 right of the middle
    turned = Augment(AugmentConfig(rotate=30), 0)(images, torch.tensor([1]), 0)[0, 0].double().numpy()
    column, row = (turned * x).sum() / turned.sum() - 60, (turned * y).sum() / turned.sum() - 30
    angle = 30 * (2 * float(uniforms(0, 0, torch.tensor([1]), 2)[0, 1]) - 1)
    assert abs(angle) > 5
    assert math.hypot(column, row) == pytest.approx(25, abs=0.1)
    assert math.degrees(math.atan2(row, column)) == pytest.approx(angle, abs=0.3)
    assert turned.sum() == pytest.approx(images.sum().item(), rel=0.01)


def test_a_shift_is_a_part_of_the_width_and_the_height():
    images = torch.zeros(1, 1, 40, 80)
    images[..., 20, 40] = 1
    shifted = Augment(AugmentConfig(translate=0.25), 0)(images, torch.tensor([5]), 0)[0, 0]
    across, down = (2 * uniforms(0, 0, torch.tensor([5]), 12)[0, 3:5] - 1).tolist()
    rows, columns = torch.arange(40.0)[:, None], torch.arange(80.0)
    assert ((shifted * rows).sum() / shifted.sum()).item() == pytest.approx(20 + 0.25 * 40 * down, abs=1e-3)
    assert ((shifted * columns).sum() / shifted.sum()).item() == pytest.approx(40 + 0.25 * 80 * across, abs=1e-3)


def shipped_augment(recipe):
    return Augment(Recipe.read(recipe).augment.model_copy(update={"flip": 0.0}), 0)


def test_patt_lite_stretches_each_channel_about_its_own_mean():
    images = 0.4 + floats(1) * torch.tensor([0.02, 0.05, 0.08]).view(3, 1, 1)
    stretched = shipped_augment("patt_lite")(images, torch.arange(1), 0)
    torch.testing.assert_close(stretched.mean((2, 3)), images.mean((2, 3)))
    assert not torch.equal(stretched, images)


def test_poster_v2_erases_a_twentieth_of_every_image():
    images = floats(20, 60, 60)
    erased = shipped_augment("poster_v2")(images, torch.arange(20), 0) != images
    torch.testing.assert_close(erased.any(1).float().mean((1, 2)), torch.full((20,), 0.05), atol=0.006, rtol=0)


def test_without_antialiasing_images_are_resized_as_the_authors_did():
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    theirs = torch.nn.functional.interpolate(planes, size=(30, 20), mode="bilinear")[0].permute(1, 2, 0).numpy()
    ours = EvalTransform(Recipe.read("paper_as_coded", ["transform.image_size=[30, 20]"]).transform)(image)
    assert np.abs(ours - theirs).max() <= 0.51
    assert np.abs(EvalTransform(TransformConfig(image_size=(30, 20)))(image) - theirs).max() > 10


def test_brightness_scales_and_contrast_stretches_about_the_mean():
    images = 0.4 + 0.1 * floats(8)
    ids = torch.arange(8)
    lighter = Augment(AugmentConfig(brightness=0.3), 0)(images, ids, 0)
    factor = 1 + 0.3 * (2 * uniforms(0, 0, ids, 12)[:, 5] - 1)
    torch.testing.assert_close(lighter, images * factor[:, None, None, None])
    stretched = Augment(AugmentConfig(contrast=0.3), 0)(images, ids, 0)
    torch.testing.assert_close(stretched.mean((1, 2, 3)), images.mean((1, 2, 3)))
    factor = 1 + 0.3 * (2 * uniforms(0, 0, ids, 12)[:, 6] - 1)
    torch.testing.assert_close(stretched.std((1, 2, 3)), images.std((1, 2, 3)) * factor)


def test_erasing_puts_a_rectangle_of_the_mean_colour():
    images = floats(200, 50, 50)
    erased = Augment(AugmentConfig(erase=0.5), 0)(images, torch.arange(200), 0)
    changed = (erased != images).any(1)
    share = changed.float().mean((1, 2))
    hit = share > 0
    assert hit.float().mean().item() == pytest.approx(0.5, abs=0.12)
    assert 0.01 < share[hit].min() < share[hit].max() < 0.22
    for place in hit.nonzero().flatten().tolist():
        rows, columns = changed[place].any(1), changed[place].any(0)
        assert torch.equal(changed[place], rows[:, None] & columns)
        assert torch.equal(erased[place][:, changed[place]].amax(1), images.mean((2, 3))[place])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_the_gpu_augments_as_the_cpu_does():
    images, ids = floats(16), torch.arange(16)
    assert torch.equal(uniforms(3, 1, ids.cuda(), 12).cpu(), uniforms(3, 1, ids, 12))
    augment = Augment(EVERYTHING, 3)
    torch.testing.assert_close(augment(images.cuda(), ids.cuda(), 1).cpu(), augment(images, ids, 1), rtol=0, atol=1e-3)


def targets(count=6, classes=7):
    return torch.eye(classes)[torch.arange(count) % classes]


def test_mixing_that_is_off_returns_its_inputs():
    images, truth = floats(6), targets()
    assert all(a is b for a, b in zip(mix(images, truth, AugmentConfig(), (0, 0, 0)), (images, truth), strict=True))


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
@pytest.mark.parametrize("step", range(5))
def test_targets_are_probabilities_in_the_images_shares(way, step):
    count = 6
    images = torch.arange(count).float()[:, None, None, None].expand(-1, 3, 20, 30)  # every image is its own number
    got, truth = mix(images, targets(count), AugmentConfig(**{way: 1.0}), (0, 0, step))
    torch.testing.assert_close(truth.sum(1), torch.ones(count))
    torch.testing.assert_close((truth @ torch.arange(7.0)), got.mean((1, 2, 3)))


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_mixing_depends_on_the_key_alone(way):
    images, config = floats(6), AugmentConfig(**{way: 0.4})
    before = images.clone()
    results = {key: mix(images, targets(), config, key) for key in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]}
    assert torch.equal(images, before)
    for key, (got, truth) in results.items():
        again = mix(images, targets(), config, key)
        assert torch.equal(got, again[0])
        assert torch.equal(truth, again[1])
    assert len({got[0].sum().item() for got, _ in results.values()}) == 4


@pytest.mark.parametrize(("epoch", "mixed"), [(0, True), (1, True), (2, False), (7, False)])
def test_the_last_epochs_are_not_mixed(epoch, mixed):
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    got, shares = mix(images, targets(), AugmentConfig(mixup=1.0, mixup_off_epoch=2), (0, epoch, 3))
    assert torch.equal(got, images) != mixed
    assert torch.equal(shares, targets()) != mixed


def test_cutmix_pastes_one_rectangle_of_the_partner():
    images = torch.arange(6).float()[:, None, None, None].expand(-1, 3, 20, 30)
    got, _ = mix(images, targets(), AugmentConfig(cutmix=1.0), (0, 0, 3))
    changed = (got != images).any(1)[(got != images).any(1).any(-1).any(-1)][0]
    assert torch.equal(changed, changed.any(1)[:, None] & changed.any(0))
    assert 0 < changed.float().mean() < 1


def test_with_both_on_batches_take_turns():
    images = torch.arange(6).float()[:, None, None, None].expand(-1, 3, 20, 30)
    whole = [mix(images, targets(), AugmentConfig(mixup=1, cutmix=1), (0, 0, step))[0] for step in range(60)]
    cut = sum((got == got.round()).all().item() for got in whole)  # pasted pixels keep their whole numbers
    assert 18 <= cut <= 42


def test_one_sample_alone_stays_itself():
    images, truth = floats(1), targets(1)
    for way in ("mixup", "cutmix"):
        got, same = mix(images, truth, AugmentConfig(**{way: 1.0}), (0, 0, 0))
        torch.testing.assert_close(got, images)
        torch.testing.assert_close(same, truth)
