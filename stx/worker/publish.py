"""Publication of results: payload files first, each written beside its name and linked (first wins), artifact.json
last.

A payload file is never replaced. Who comes second, after a kill or as a rival attempt, keeps what stands and says so
if the bytes differ: equal bytes are promised for equal layouts only (CPU, fp32, threads, instruction set).
artifact.json lists the digests of what stands.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs import files
from stx import records
from stx.paths import PartDir
from stx.spec import Artifact, read_artifact
from stx.worker.attempt import Attempt

logger = logging.getLogger(__name__)


def publish_bytes(path: Path, data: bytes) -> str:
    """Publish one payload file; the sha256 of the file that stands."""
    return publish_chunks(path, [data])


def publish_json(path: Path, value: Any) -> str:
    """Publish a JSON payload file in its canonical bytes; the sha256 of the file that stands."""
    return publish_bytes(path, records.dumps(value) + b"\n")


def publish_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> str:
    """Publish a payload file that comes in pieces (tensors.chunks), hashed while written; the sha256 of what stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    temp = files.write_temp(path, _hashed(chunks, digest=digest))
    return _stand(path, ours=files.publish_file(temp, path), digest=digest.hexdigest())


def finish(
    attempt: Attempt, part: PartDir, *, names: Mapping[str, str], images: int | None, info: Mapping[str, Any]
) -> Artifact:
    """Publish artifact.json of `part`; a second is compared and kept out. `names`: file of the payload -> sha256."""
    ours = Artifact(kind=attempt.kind, key=attempt.key, images=images, files=dict(names), info=dict(info))
    if records.publish(part.artifact, ours.dump()):
        logger.info("published %s digest=%s files=%d", part.path, ours.digest[:12], len(names))
        return ours
    standing = read_artifact(part.artifact)
    if standing.digest != ours.digest:
        logger.warning("%s stands with digest=%s; ours is %s", part.artifact, standing.digest[:12], ours.digest[:12])
        attempt.notes["differs"] = [*attempt.notes.get("differs", []), str(part.path)]
    return standing


def _hashed(chunks: Iterable[bytes | memoryview], *, digest: Any) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _stand(path: Path, *, ours: bool, digest: str) -> str:
    if ours:
        return digest
    standing = records.file_digest(path)
    if standing != digest:
        logger.warning("%s stands with sha256=%s; ours is %s", path, standing[:12], digest[:12])
    return standing
