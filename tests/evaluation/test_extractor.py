"""The classifier as a feature extractor of torch-fidelity."""

from pathlib import Path

import pytest
import torch
import torch_fidelity

from stx.evaluation import extractor, frechet_distance, precision_recall
from stx.model.autoencoder import pixels
from stx.model.blocks import initialised
from stx.model.classifier import Classifier

BATCH = 16


def tiny_classifier() -> Classifier:
    def build() -> Classifier:
        return Classifier(image_channels=1, channels=(4, 8), feature_width=6, num_classes=10)

    return initialised(build, seed=1).requires_grad_(False).eval()


def some_images(count: int, *, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 16, 16), generator=generator).to(torch.uint8)


def labels(count: int) -> torch.Tensor:
    return torch.arange(count) % 10


@pytest.fixture
def no_downloads_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch"


def test_what_is_extracted_is_what_the_classifier_says(no_downloads_no_cache: Path) -> None:
    classifier, images = tiny_classifier(), some_images(BATCH, seed=0)
    name = extractor.register(classifier, key="says", batch=BATCH)
    found = extractor.extract(name, images, labels(BATCH), batch=BATCH, cuda=False)
    said = classifier(pixels(images))
    assert torch.equal(found.features, said.features)
    assert torch.equal(found.logits, said.logits)
    assert not no_downloads_no_cache.exists()


def test_a_row_does_not_depend_on_how_many_others_there_are(no_downloads_no_cache: Path) -> None:
    name = extractor.register(tiny_classifier(), key="rows", batch=BATCH)
    images = some_images(2 * BATCH + 5, seed=1)
    whole = extractor.extract(name, images, labels(len(images)), batch=BATCH, cuda=False)
    tail = extractor.extract(name, images[2 * BATCH :], labels(5), batch=BATCH, cuda=False)
    assert torch.equal(whole.features[2 * BATCH :], tail.features)


def test_torch_fidelity_itself_computes_the_same_scores(no_downloads_no_cache: Path) -> None:
    name = extractor.register(tiny_classifier(), key="itself", batch=BATCH)
    sets = [some_images(64, seed=2), some_images(96, seed=3)]
    generated, real = (extractor.extract(name, one, labels(len(one)), batch=BATCH, cuda=False) for one in sets)
    theirs = torch_fidelity.calculate_metrics(
        input1=extractor.ImageTensor(sets[0]),
        input2=extractor.ImageTensor(sets[1]),
        feature_extractor=name,
        fid=True,
        prc=True,
        batch_size=BATCH,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    ours = frechet_distance.compute(generated, real) | precision_recall.compute(generated, real)
    assert ours["frechet_distance"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert ours["precision"] == theirs["precision"]
    assert ours["recall"] == theirs["recall"]


def test_registering_twice_keeps_one_name(no_downloads_no_cache: Path) -> None:
    classifier = tiny_classifier()
    assert extractor.register(classifier, key="twice", batch=BATCH) == extractor.register(
        classifier, key="twice", batch=BATCH
    )
