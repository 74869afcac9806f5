"""The latents stage: moments (mean and STD) of the train split, as WebDataset shards; with them travel shift, scale and
the autoencoder's digest.

A shard that is published is complete and is not made again. Shards hold whole chunks of `batch` images.
"""

from stx.data import shards
from stx.data.latents import RECORD, SPLIT, LatentsInfo, publish_latents
from stx.model import rows
from stx.worker import publish
from stx.worker.attempt import Attempt
from stx.worker.autoencoder import Autoencoder, load
from stx.worker.images import Split, read_info, read_split
from stx.worker.progress import Progress, conclude


def run(attempt: Attempt) -> None:
    """Encode the train split, shard by shard."""
    source, encoder = attempt.input("images"), attempt.input("autoencoder")
    train, autoencoder = read_split(source, SPLIT), load(encoder.payload)
    progress = Progress(attempt, total=len(train.labels))
    payload = attempt.stage.payload
    payload.mkdir(exist_ok=True)
    spans = list(rows.spans(len(train.labels), batch=attempt.science["shard"]))
    for number, (first, last) in enumerate(spans):
        if shards.shard_path(payload, SPLIT, number).exists():
            progress.skip(last - first)
        else:
            _make_shard(progress, number=number, first=first, last=last, train=train, autoencoder=autoencoder)
    shards.publish_index(payload, SPLIT, num_shards=len(spans))
    images = read_info(source)
    channels, size, _ = autoencoder.latent_shape
    info = LatentsInfo(
        channels=channels,
        size=size,
        num_classes=images.num_classes,
        class_names=images.class_names,
        scale=autoencoder.scale,
        shift=autoencoder.shift,
        autoencoder=encoder.artifact().digest,
        count=len(train.labels),
        dtype=attempt.science["dtype"],
    )
    publish.publish_json(payload / RECORD, info.dump())
    conclude(progress, splits=[SPLIT])


def _make_shard(
    progress: Progress, *, number: int, first: int, last: int, train: Split, autoencoder: Autoencoder
) -> None:
    science = progress.attempt.science
    moments = rows.chunked(autoencoder.encode, train.images[first:last], batch=science["batch"])
    mean, std = moments.chunk(2, dim=1)
    publish_latents(
        progress.attempt.stage.payload,
        number,
        first=first,
        mean=mean.numpy(),
        std=std.numpy(),
        labels=train.labels[first:last].numpy(),
        dtype=science["dtype"],
    )
    progress.advance(last - first)
