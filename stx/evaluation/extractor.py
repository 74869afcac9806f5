"""Our classifier as a feature extractor of torch-fidelity, and the extraction itself. Offline: no weights are fetched,
nothing is cached.

torch-fidelity makes an extractor from a registered class, so a class is made per classifier and registered under the
classifier's key: two classifiers never go by one name. Its cache is never used: it would be read with pickle, and keyed
by names that do not know our contents. Images stay uint8 (N, C, H, W) until they are inside the extractor; chunks are
padded to `batch` rows (stx/model/rows.py).
"""

from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

from stx.evaluation.base import Extracted
from stx.model import rows
from stx.model.autoencoder import pixels
from stx.model.classifier import Classifier

FEATURES = "features"
LOGITS = "logits"


def register(classifier: Classifier, *, key: str, batch: int) -> str:
    """Register `classifier` with torch-fidelity; the name under which it is found there."""
    name = f"classifier-{key}"
    if name not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(name, _extractor_class(classifier, batch=batch))
    return name


def extract(name: str, images: Tensor, labels: Tensor, *, batch: int, cuda: bool) -> Extracted:
    """What the registered extractor `name` makes of uint8 images (N, C, H, W)."""
    extractor = create_feature_extractor(name, [FEATURES, LOGITS], cuda=cuda, verbose=False)
    # save_cpu_ram: no loader processes, which would be forked from a program that holds threads and, maybe, a GPU.
    found = get_featuresdict_from_dataset(ImageTensor(images), extractor, batch, cuda, save_cpu_ram=True, verbose=False)
    return Extracted(features=found[FEATURES], logits=found[LOGITS], labels=labels)


class ImageTensor(Dataset):
    """A tensor as the dataset that torch-fidelity wants."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def _extractor_class(classifier: Classifier, *, batch: int) -> type[FeatureExtractorBase]:
    class ClassifierExtractor(FeatureExtractorBase):
        """The one classifier, in the shape torch-fidelity asks for."""

        def __init__(self, name: str, features_list: list[str], **options: object) -> None:
            super().__init__(name, features_list)
            self.classifier = classifier

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            """What can be asked for."""
            return (FEATURES, LOGITS)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            """Inception Score looks at class probabilities, everything else at features."""
            return LOGITS if metric == "isc" else FEATURES

        @staticmethod
        def can_be_compiled() -> bool:
            """No: scores must not depend on a compiler's version."""
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> Tensor:
            """Never asked for, see can_be_compiled."""
            raise NotImplementedError

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            """uint8 images to the requested tensors, in the requested order."""
            output = self.classifier(pixels(rows.padded(images, batch=batch)))
            found = {FEATURES: output.features, LOGITS: output.logits}
            return tuple(found[name][: len(images)] for name in self.features_list)

    return ClassifierExtractor
