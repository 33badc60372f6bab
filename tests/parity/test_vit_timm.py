"""The Vision Transformer against timm with the same weights."""

from __future__ import annotations

import pytest
import torch

from adlbench.methods.classification.vit import VisionTransformer

timm_vit = pytest.importorskip("timm.models.vision_transformer")


@pytest.mark.parametrize(("channels", "size", "patch"), [(1, (28, 28), 7), (3, (32, 16), 4)])
def test_same_weights_give_the_same_logits_and_gradients(channels, size, patch):
    torch.manual_seed(0)
    own = VisionTransformer(size, channels, 10, patch=patch, width=48, depth=3, heads=4, mlp_ratio=4.0)
    peer = timm_vit.VisionTransformer(
        img_size=size, patch_size=patch, in_chans=channels, num_classes=10, embed_dim=48, depth=3, num_heads=4
    )
    with torch.no_grad():  # timm starts with a small head and zero positions: make every part count
        for parameter in peer.parameters():
            parameter.normal_(std=0.2)
    state = {
        name.replace("patch_embed.proj", "patch_embed").replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.2"): value
        for name, value in peer.state_dict().items()
    }
    own.load_state_dict(state)  # strict: the same tensors, all of them
    image = torch.randn(5, channels, *size)
    a, b = own(image), peer(image)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    a.square().sum().backward()
    b.square().sum().backward()
    theirs = dict(peer.named_parameters())
    for name, parameter in own.named_parameters():
        key = name.replace("patch_embed.", "patch_embed.proj.").replace("mlp.0", "mlp.fc1").replace("mlp.2", "mlp.fc2")
        torch.testing.assert_close(
            parameter.grad, theirs[key].grad, rtol=1e-4, atol=1e-4 * b.detach().abs().max().item()
        )


def test_it_has_as_many_parameters_as_the_paper_says():
    """ViT-Ti/16 at 224 pixels and 1,000 classes: 5.7 million; ViT-S/16: 22.1 million."""
    counts = {}
    for name, width, heads in (("Ti", 192, 3), ("S", 384, 6)):
        with torch.device("meta"):
            net = VisionTransformer((224, 224), 3, 1000, patch=16, width=width, depth=12, heads=heads, mlp_ratio=4.0)
        counts[name] = sum(p.numel() for p in net.parameters())
    assert counts == {"Ti": 5_717_416, "S": 22_050_664}
