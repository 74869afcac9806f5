"""The members of a tar file, which anyone may have written: read header by header, nothing is ever unpacked.

    512 bytes: name, size, type, checksum, ... | data, padded to 512 | ... | 512 zeros

The standard library decodes one header; the walk is ours, because tarfile's own follows whatever sizes a header names:
into memory (a long name of 8 GB), or backwards, for ever. Here every step goes forward and stays inside the file, and
what is not data (long names, pax records) is at most EXTRA_BYTES.
"""

import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from stx.errors import DataError

BLOCK = 512
EXTRA_BYTES = 1 << 20
HINT = "only whole, plain tars can be read at a position: unpack compressed ones to .tar"
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a pipe",
}
_PAX = re.compile(rb"([0-9]{1,7}) ([^=\n]{1,200})=")


class Member(NamedTuple):
    """One member: its data are `size` bytes from `start` on. `kind` says what it is if it is no plain file."""

    name: str
    start: int
    size: int
    kind: str

    @property
    def shown(self) -> str:
        """Its name as it can be printed."""
        return repr(self.name[:200])

    @property
    def leaves(self) -> bool:
        """Whether its name would lead out of the folder that a tar is unpacked in."""
        return self.name.startswith("/") or ".." in self.name.split("/")


def members(stream: BinaryIO, size: int, *, where: str) -> Iterator[Member]:
    """The members of the tar in a stream of `size` bytes, in order; DataError where it stops being one."""
    place, last, long_name, pax = 0, "the start", "", dict[str, str]()
    while place + BLOCK <= size:
        head = _read(stream, place, BLOCK)
        if not head.strip(b"\0"):
            return
        try:
            info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            raise DataError(
                f"cannot be read as a tar: what follows {last} is no header ({error})", where=where, hint=HINT
            ) from error
        start, length = place + BLOCK, int(pax.get("size", info.size))
        if length < 0 or start + length > size:
            raise DataError(f"cannot be read as a tar: truncated within {info.name[:200]!r}", where=where, hint=HINT)
        place = start + -(-length // BLOCK) * BLOCK
        if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            if length > EXTRA_BYTES:
                raise DataError(f"a header of {length:,} bytes after {last}: refused", where=where)
            extra = _read(stream, start, length)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                long_name = extra.rstrip(b"\0").decode(errors="surrogateescape")
            elif info.type == tarfile.XHDTYPE:
                pax = _pax(extra, where=f"{where} after {last}")
            continue
        member = Member(pax.get("path") or long_name or info.name, start, length, _kind(info))
        yield member
        last, long_name, pax = member.shown, "", {}
    if place != size or place == 0:
        raise DataError(f"cannot be read as a tar: what follows {last} is no header", where=where, hint=HINT)


def _read(stream: BinaryIO, place: int, length: int) -> bytes:
    stream.seek(place)
    return stream.read(length)


def _kind(info: tarfile.TarInfo) -> str:
    return "" if info.type in PLAIN else _KINDS.get(info.type, f"of type {info.type!r}")


def _pax(data: bytes, *, where: str) -> dict[str, str]:
    """The records of a pax header: `<length> <name>=<value>\n` each."""
    found: dict[str, str] = {}
    place = 0
    while place < len(data) and (match := _PAX.match(data, place)):
        end = place + int(match[1])
        if end <= match.end() or end > len(data):
            break
        found[match[2].decode(errors="surrogateescape")] = data[match.end() : end - 1].decode(errors="surrogateescape")
        place = end
    if place < len(data.rstrip(b"\0")) or not found.get("size", "0").isdecimal():
        raise DataError("a pax header that is none", where=where)
    return found
