"""Files in tar archives that are not compressed, read where they lie: nothing is written under their names."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


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


def tar_members(archive: Path) -> Iterator[TarMember]:
    """Plain files in a tar archive that hold anything, in its order.

    Raises:
        ValueError: It cannot be read or ends too early (the message names it).
    """
    try:
        length = archive.stat().st_size
        with tarfile.open(archive, "r:") as members:
            for member in members:
                members.members = []  # type: ignore[attr-defined] # tarfile would keep every one of them
                if not member.isreg() or member.issparse() or not member.size:
                    continue
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError(f"it ends within {member.name[:100]}")
                yield TarMember(member.name.lstrip("/"), member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"cannot read the archive {archive}: {error}; fetch it again, or take it away") from error
