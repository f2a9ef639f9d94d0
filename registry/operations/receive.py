"""Files that arrived one by one become a version, as a directory on this machine would.

Whoever sent them described them too, but only what is read here counts. So the blobs are laid out under their paths once more
(hard links: nothing is copied), and what follows is an ordinary push.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from registry.blobs.protocol import LocalBlobStore
from registry.domain.digest import Digest
from registry.domain.paths import require_plain
from registry.errors import InvalidInputError, RegistryError

#: Of one version.
MAX_FILES = 2000


@contextmanager
def laid_out(files: Mapping[str, Digest], blobs: LocalBlobStore, *, called: str) -> Iterator[Path]:
    """A directory with these files, gone at the end. In the sentence of an error raised inside, the directory is ``called``.

    Raises InvalidInputError for a path that does not stay below it, MissingBlobError.
    """
    if len(files) > MAX_FILES:
        raise InvalidInputError(
            f"{called} has {len(files):,} files, expected at most {MAX_FILES:,}", code="too-many-files"
        )
    for path in files:
        require_plain(path)
    blobs.workplace.mkdir(parents=True, exist_ok=True)
    directory = Path(mkdtemp(prefix="receiving-", dir=blobs.workplace))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # a collector takes what nobody holds
        for path, digest in files.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            blobs.lay_out(digest, directory / path)
        yield directory
    except RegistryError as error:
        error.replace_words({f"{directory}/": "", str(directory): called})
        raise
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)
