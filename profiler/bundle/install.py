"""Install an archive: every file is checked before anything is used; environments are built from its wheels with `--no-index`.

Files are unpacked into the cache beside their place; what an interrupted run unpacked and checked is not unpacked again. Models and variants
appear by rename.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from profiler import environments
from profiler.bundle import manifest as described
from profiler.environments import Progress
from profiler.errors import StoreError
from profiler.models.folder import file_sha256

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Installed:
    """`models`: what to give to --model."""

    environments: tuple[str, ...]
    models: tuple[str, ...]


def install(archive: Path, progress: Progress) -> Installed:
    """Raises StoreError (no bundle, a wrong checksum, for another Python or machine), EnvironmentError_ with pip's last lines."""
    with _opened(archive) as tar:
        first = tar.next()
        file = tar.extractfile(first) if first is not None and first.name == described.NAME else None
        if file is None:
            raise StoreError(f"{archive}: no bundle: it does not begin with {described.NAME}", hint="`profile bundle OUT.tar` makes one")
        content = described.load(file.read(), str(archive))
        described.fits(content, str(archive))
        _same_pins(content, archive)
        root = environments.cache_root()
        staging = root / "bundles" / sha256(content.dump()).hexdigest()[:16]
        try:
            staging.mkdir(parents=True, exist_ok=True)
            with environments.locked(staging.with_suffix(".lock"), lambda: progress(f"{archive}: another process installs it, waiting")):
                _unpack(tar, content, staging, archive, progress)
                for name in content.environments:
                    wheels = staging / "wheels" / name
                    environments.ensure(environments.ENVIRONMENTS[name], progress, ["--no-index", "--find-links", str(wheels)])
                for kind in ("models", "variants"):
                    _place(staging / kind, root / kind)
                shutil.rmtree(staging)
        except OSError as error:
            raise StoreError(f"{error.filename or root}: {error.strerror}", hint="set SLM_PROFILER_CACHE to a folder with space") from error
    there = [root / "models" / name for name in content.models]
    return Installed(tuple(content.environments), tuple(str(p) if p.is_dir() else p.name for p in there))


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(archive, "r:") as tar:
            yield tar
    except OSError as error:
        raise StoreError(f"{archive}: {error.strerror}", hint="give the archive that `profile bundle` made") from error
    except tarfile.TarError as error:
        raise StoreError(f"{archive}: not a whole archive: {error}", hint="copy it again, or make it again") from error


def _same_pins(content: described.Manifest, archive: Path) -> None:
    for name, pins in content.environments.items():
        spec = environments.ENVIRONMENTS.get(name)
        if spec is None or environments.env_hash(spec) != pins:
            hint = "install the profiler from the archive's own wheels/core"
            raise StoreError(f"{archive}: its wheels of {name!r} are for profiler {content.profiler_version}, this one pins others", hint)


def _unpack(tar: tarfile.TarFile, content: described.Manifest, staging: Path, archive: Path, progress: Progress) -> None:
    """Every file of the manifest, checked while it is written; the archive's other members are not touched."""
    progress(f"{archive}: unpacking and checking {len(content.files)} files")
    members = {member.name: member for member in tar if member.isfile()}
    for name, wanted in content.files.items():
        target = staging / name
        if target.is_file() and file_sha256(target) == wanted:
            continue
        member = members.get(name)
        source = tar.extractfile(member) if member is not None else None
        if source is None:
            raise StoreError(f"{archive}: {name} is missing", hint="copy it again, or make it again")
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, new = sha256(), target.with_name(target.name + ".new")
        with new.open("wb") as sink:
            while block := source.read(BLOCK_BYTES):
                digest.update(block)
                sink.write(block)
        if digest.hexdigest() != wanted:
            new.unlink()
            raise StoreError(f"{archive}: {name} has sha256 {digest.hexdigest()[:16]}…, expected {wanted[:16]}…", hint="copy it again")
        new.replace(target)


def _place(source: Path, target: Path) -> None:
    """Folders into the cache, each by one rename; one that is there already stays."""
    target.mkdir(parents=True, exist_ok=True)
    for folder in sorted(source.iterdir()) if source.is_dir() else ():
        if not (target / folder.name).exists():
            folder.replace(target / folder.name)
