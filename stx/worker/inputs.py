"""Inputs are verified against the digests in their artifact.json: a damaged file is named, not computed with."""

from pathlib import Path

from stx import records
from stx.errors import DataError
from stx.paths import PartDir, StageDir
from stx.spec import read_artifact


def verified(part: PartDir, name: str) -> Path:
    """The path of one file of a finished part; DataError if it is not the one that was published."""
    return _verified(part, part.path / name, name=name)


def verified_payload(payload: Path, name: str) -> Path:
    """The same in the payload folder of a kind that does not grow."""
    return _verified(StageDir(payload.parent).result, payload / name, name=name)


def _verified(part: PartDir, path: Path, *, name: str) -> Path:
    artifact = read_artifact(part.artifact)
    if name not in artifact.files:
        raise DataError(f"artifact.json lists no {name}, only {sorted(artifact.files)}", where=str(part.path))
    if not path.is_file() or records.file_digest(path) != artifact.files[name]:
        raise DataError(
            "damaged: it is not the file whose digest artifact.json holds",
            where=str(path),
            hint=f"remove {part.path} and submit again: it will be made anew",
        )
    return path
