import pytest
import torch

from facerwkv.core.errors import InputError
from facerwkv.data.normalise import normalise
from facerwkv.data.transforms import TransformConfig
from facerwkv.kernels import calls
from facerwkv.kernels.calls import library
from facerwkv.kernels.pixels import look_up

FORMS = ["reference", pytest.param("native", marks=pytest.mark.skipif(library() is None, reason="no C kernels"))]
SHAPES = [(2, 3, 5, 3), (1, 80, 61, 3), (3, 7, 4, 1), (0, 4, 4, 3), (2, 0, 4, 3)]


def bytes_of(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_byte_becomes_its_entry(form, shape):
    images, table = bytes_of(*shape), torch.arange(256 * shape[-1]).view(shape[-1], 256).float()
    expected = images.permute(0, 3, 1, 2).float() + 256 * torch.arange(shape[-1]).view(-1, 1, 1)
    got = look_up(images, table, form)
    assert got.is_contiguous()
    assert torch.equal(got, expected)


@pytest.mark.parametrize("form", FORMS)
def test_images_may_lie_in_memory_as_they_like(form):
    images, table = bytes_of(2, 6, 8, 3).transpose(1, 2)[:, ::2], torch.randn(3, 256)
    assert torch.equal(look_up(images, table, form), look_up(images.contiguous(), table, "reference"))


@pytest.mark.parametrize("channels", [1, 3])
def test_normalising_by_table_gives_the_very_digits(channels):
    config = TransformConfig(
        in_chans=channels, mean=(0.485, 0.456, 0.406)[:channels], std=(0.229, 0.224, 0.225)[:channels]
    )
    images = bytes_of(2, 33, 47, channels)
    assert torch.equal(normalise(images, config), normalise(images.float(), config))


def test_without_c_kernels_there_is_a_sentence_and_the_same_answer(monkeypatch):
    images, config = bytes_of(1, 4, 4, 3), TransformConfig(mean=(0.5,), std=(0.25,))
    expected = normalise(images, config)
    monkeypatch.setattr(calls, "library", lambda: None)
    assert torch.equal(normalise(images, config), expected)
    with pytest.raises(InputError, match="implementation='reference'"):
        look_up(images, torch.zeros(3, 256), "native")


@pytest.mark.parametrize("form", ["auto", *FORMS])
def test_other_numbers_than_bytes_and_other_tables_are_refused(form):
    images, table = bytes_of(1, 2, 2, 3), torch.zeros(3, 256)
    for wrong, reason in (
        ((images.float(), table), r"images as a dense tensor in uint8, not as torch\.float32"),
        ((images, table.long()), r"table as a dense tensor in float32, .* not as torch\.int64"),
        ((images, table[:1]), r"not \(1, 2, 2, 3\), \(1, 256\): c is 3 in images and 1 in table"),
        ((images, table[:, :255]), r"255 where 256 belongs"),
        ((images[0], table), r"images has 3 dimensions"),
        ((images, table.to("meta")), r"images on cpu, table on meta"),
    ):
        with pytest.raises(InputError, match=reason):
            look_up(*wrong, form)


@pytest.mark.skipif(library() is None, reason="no C kernels")
def test_a_table_that_the_c_form_cannot_take_gets_the_reference():
    images = bytes_of(1, 2, 2, 3)
    for table in (torch.randn(3, 256).double(), torch.randn(3, 256).requires_grad_()):
        assert torch.equal(look_up(images, table), look_up(images, table, "reference"))
        assert look_up(images, table).requires_grad == table.requires_grad
        with pytest.raises(InputError, match="Or use implementation='reference'"):
            look_up(images, table, "native")
