"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from planner.errors import OutputError


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 with its own line ends; ``path`` is never seen half-written.

    The text goes to a temporary file in the same folder, to the disk, and then in ``path``'s place.

    Raises:
        OutputError: the folder is missing, the path is a folder or a device, permission, a full
            disk.
    """
    write_files({Path(path): text})


def write_files(contents: Mapping[Path, str | bytes]) -> None:
    """As :func:`write_text` for several files: none takes its place before all are on the disk."""
    with ExitStack() as files:
        for path, content in contents.items():
            files.enter_context(_staged(path, content))


@contextmanager
def _staged(path: Path, content: str | bytes) -> Iterator[None]:
    """Inside, ``content`` stands in a file beside ``path``; then it takes ``path``'s place."""
    try:
        target = path
        if target.is_dir():
            raise OutputError(f"cannot write {target}: it is a folder; give a file name")
        if target.exists() and not target.is_file():
            # A device such as /dev/null would become a plain file.
            raise OutputError(f"cannot write {target}: it is a device or a pipe, not a file")
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {target}: there is no folder {target.parent}")
        # A link stays a link: what it points to is replaced.
        target = Path(os.path.realpath(target))
        number, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(_mode(target))
            yield
            Path(name).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _mode(target: Path) -> int:
    """Permissions of the file that is replaced, or those that a new file gets."""
    if target.exists():
        return target.stat().st_mode & 0o7777
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
