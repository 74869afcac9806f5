"""The small classifier."""

import torch

from stx.model.blocks import initialised
from stx.model.classifier import Classifier, accuracy


def tiny() -> Classifier:
    def build() -> Classifier:
        return Classifier(image_channels=1, channels=(4, 8), feature_width=6, num_classes=3)

    return initialised(build, seed=1).requires_grad_(False)


def test_it_gives_features_and_logits_at_any_resolution() -> None:
    for size in (16, 28, 32):
        output = tiny()(torch.zeros(2, 1, size, size))
        assert output.features.shape == (2, 6)
        assert output.logits.shape == (2, 3)


def test_an_image_is_judged_alike_in_any_company_and_mode() -> None:
    model = tiny()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 1, 16, 16, generator=generator)
    trained = model.train()(images).logits
    company = torch.cat([images[:1], 9.0 * images[1:]])
    assert torch.equal(trained, model.eval()(images).logits)
    assert torch.equal(trained[0], model(company).logits[0])


def test_the_quickstart_classifier_is_small() -> None:
    model = Classifier(image_channels=1, channels=(16, 32, 64), feature_width=64, num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 89_770


def test_accuracy_counts_the_largest_logit() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    assert accuracy(logits, torch.tensor([1, 0, 0, 0])) == 0.75
