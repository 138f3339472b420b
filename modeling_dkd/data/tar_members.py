"""Files in tar archives, read where they lie or as they stream by: nothing is written under their names."""

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, Self


COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
# By the first bytes, whatever the name says.
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}


class TarMember(NamedTuple):
    """A plain file in an archive: its name there, and its `size` bytes from `offset` of the archive."""

    name: str
    offset: int
    size: int

    def read(self, archive: Path) -> bytes:
        """The bytes of the file."""
        with open(archive, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class _Header(tarfile.TarInfo):
    """A header that is told of where it is torn; tarfile alone takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"at byte {archive.offset:,} {error}") from error


def tar_members(archive: Path) -> Iterator[TarMember]:
    """Plain files in a tar archive that is not compressed which hold anything, in its order.

    Raises:
        ValueError: It cannot be read or ends too early (the message names it).
    """
    try:
        length = archive.stat().st_size
        with tarfile.open(archive, "r:", tarinfo=_Header) as members:
            for member in members:
                members.members = []  # type: ignore[attr-defined] # tarfile would keep every one of them
                if not member.isreg() or member.issparse() or not member.size:
                    continue
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError(f"it ends within {member.name[:100]}")
                yield TarMember(member.name.lstrip("/"), member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        packer = _packer(archive)
        reason = (
            f"it is packed with {packer}, whatever its name says; unpack it"
            if packer
            else f"{error}; fetch it again, or take it away"
        )
        raise ValueError(f"cannot read the archive {archive}: {reason}") from error


def _packer(archive: Path) -> str:
    """What a file is packed with, by its first bytes; "" nothing that is known."""
    try:
        with open(archive, "rb") as file:
            begin = file.read(max(map(len, PACKED)))
    except OSError:
        return ""
    return next((name for sign, name in PACKED.items() if begin.startswith(sign)), "")


def passing_members(archive: IO[bytes], place: str) -> Iterator[tuple[TarMember, Callable[[], bytes]]]:
    """The same of an archive, compressed or not, that can be read in one go alone.

    Args:
        archive: At its begin.
        place: What messages call it.

    Returns:
        Members, and what gives the bytes of each until the next is asked for.

    Raises:
        ValueError: It cannot be read or ends too early (the message has its place).
    """
    with _naming(place), tarfile.open(fileobj=archive, mode="r|*", bufsize=2**18, tarinfo=_Header) as members:
        for member in members:
            members.members = []  # type: ignore[attr-defined] # as above
            content = members.extractfile(member) if member.isreg() and member.size else None
            if content is None or member.issparse():
                continue

            def read(content: IO[bytes] = content) -> bytes:
                with _naming(place):
                    return content.read()

            yield TarMember(member.name.lstrip("/"), member.offset_data, member.size), read
            while content.read(2**20):  # what is passed over must be there too
                pass


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Say of which archive it is that something cannot be read."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"cannot read the archive {place}: {error}") from error
