import pytest
import torch

from facerwkv.models.zoo import create_model


def images(batch=3):
    return torch.randn(batch, 6, 112, 112, generator=torch.Generator().manual_seed(0))


def model(**options):
    torch.manual_seed(0)
    return create_model("caer_net_s", **options).eval()


@pytest.mark.parametrize(("streams", "count"), [("both", 2_390_028), ("face", 1_014_279), ("context", 1_310_730)])
def test_parameters_as_published(streams, count):
    assert sum(parameter.numel() for parameter in model(streams=streams).parameters()) == count


def test_attention_and_shares_sum_to_one():
    net = model()
    with torch.inference_mode():
        attention = net.attend(net.context(images()[:, :3]))
        shares = net.fusion(net.encode(images()))
    assert (attention.shape, shares.shape) == ((3, 1, 7, 7), (3, 2))
    torch.testing.assert_close(attention.sum((1, 2, 3)), torch.ones(3))
    torch.testing.assert_close(shares.sum(1), torch.ones(3))


SCENE, FACE = slice(0, 3), slice(3, 6)


@pytest.mark.parametrize(("streams", "seen", "unseen"), [("face", FACE, SCENE), ("context", SCENE, FACE)])
def test_one_stream_alone_sees_nothing_of_the_other(streams, seen, unseen):
    net, x = model(streams=streams), images()
    with torch.inference_mode():
        before = net(x)
        x[:, unseen] += 1
        assert torch.equal(net(x), before)
        x[:, seen] *= -1
        assert not torch.allclose(net(x), before)
