"""The hub that models are pulled from: what is in a repository, and one file of it at a time, checked.

huggingface-hub does the work: requests, redirects, the token it finds, going on where a connection was cut. Every
failure becomes one sentence that ends in what to do. `HF_ENDPOINT` names another hub. Knows nothing of models.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined, unused-ignore]
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from magister.model.disk import flush

PART = ".part"
"""What the name of a file ends in while it comes."""

AGAIN = "run the same command again, it goes on where it was"
"""The next step after most failures."""

# The HTTP library is another one in each major version of huggingface-hub; its errors share a base with the hub's own.
_NETWORK: tuple[type[BaseException], ...] = (
    OSError,
    *(base for base in HfHubHTTPError.__bases__ if issubclass(base, BaseException)),
)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository."""

    size: int
    """Bytes."""
    sha256: str | None
    """Of large files; None where the hub says none."""
    git_blob: str | None = None
    """Of small files, as git names them; None where the hub says none."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit."""

    repository: str
    commit: str
    files: dict[str, RemoteFile]
    """By path."""


class NoSuchRevision(ValueError):
    """The repository is there, the revision is not."""


def endpoint() -> str:
    """The hub's address."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def look_up(repository: str, revision: str | None) -> Listing:
    """What is in a repository; `revision` is a branch, a tag or a commit, None the main branch. ValueError in one
    sentence where that cannot be found out."""
    with _sentences(repository, revision or "main"):
        found = HfApi(endpoint=endpoint()).model_info(repository, revision=revision, files_metadata=True)
    if not found.sha or not found.siblings:
        raise ValueError(f"{repository} is empty at {endpoint()}; name another")
    files = {}
    for file in found.siblings:
        if file.size is None:
            raise ValueError(
                f"{endpoint()} does not say how large {file.rfilename} of {repository} is; name another hub"
            )
        files[file.rfilename] = RemoteFile(file.size, *_digests(file))
    return Listing(repository, found.sha, files)


def fetch(listing: Listing, name: str, folder: Path) -> Path:
    """One file, in `folder` under its own name; what is there already, whole or in part, is not fetched again. Its size
    and the digest that the hub says are checked.

    `folder` must be this process's alone, and what is in it from the same commit. ValueError in one sentence where the
    file cannot be had; one that is not what the hub says is deleted first.
    """
    path, wanted = folder / name, listing.files[name]
    if path.is_file() and _fault(path, wanted) is None:
        return path
    part = part_of(path)
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    if part.stat().st_size > wanted.size:
        part.write_bytes(b"")
    address = hf_hub_url(listing.repository, name, revision=listing.commit, endpoint=endpoint())
    with _sentences(listing.repository, listing.commit, name), _quietly(), part.open("r+b") as file:
        # hf_hub_download would start anew after a kill, and keep a second copy of what it takes over its own protocol.
        there = file.seek(0, os.SEEK_END)
        http_get(address, file, resume_size=there, headers=build_hf_headers(), expected_size=wanted.size)
    if (fault := _fault(part, wanted)) is not None:
        part.unlink()
        raise ValueError(f"{name} of {listing.repository} came damaged: {fault}; {AGAIN}")
    flush(part)
    part.replace(path)
    return path


def part_of(path: Path) -> Path:
    """Where a file is while it comes."""
    return path.with_name(f"{path.name}{PART}")


def _digests(file: RepoSibling) -> tuple[str | None, str | None]:
    return (file.lfs.sha256, None) if file.lfs else (None, file.blob_id)


def _fault(path: Path, wanted: RemoteFile) -> str | None:
    size = path.stat().st_size
    if size != wanted.size:
        return f"it has {size:,} bytes, must have {wanted.size:,}"
    with path.open("rb") as file:
        if wanted.sha256 is not None:
            kind, said, found = "sha256", wanted.sha256, hashlib.file_digest(file, "sha256").hexdigest()
        elif wanted.git_blob is not None:
            head = f"blob {size}\0".encode()
            kind, said, found = "git digest", wanted.git_blob, hashlib.sha1(head + file.read()).hexdigest()
        else:
            return None
    return None if found == said else f"its {kind} is {found}, must be {said}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Without huggingface-hub's own progress bars."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


@contextmanager
def _sentences(repository: str, revision: str, name: str = "") -> Iterator[None]:
    """Turns what goes wrong into a ValueError that says what to do."""
    what = f"{name} of {repository}" if name else repository
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ValueError(f"{what} cannot be fetched: HF_HUB_OFFLINE is set; unset it") from error
    except GatedRepoError as error:
        page = f"{endpoint()}/{repository}"
        raise ValueError(
            f"{repository} is for people who agreed to its terms: do so at {page}, then {log_in}"
        ) from error
    except RevisionNotFoundError as error:
        raise NoSuchRevision(f"{repository} has no revision {revision}; see {endpoint()}/{repository}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"there is no {repository} at {endpoint()}, or it is private: check the name, or {log_in}"
        ) from (error)
    except HFValidationError as error:
        raise ValueError(f"name: {repository!r} is no name of a repository: {error}") from error
    except EntryNotFoundError as error:
        raise ValueError(f"{repository} has no file {name} at revision {revision}") from error
    except HfHubHTTPError as error:
        raise ValueError(_unreachable(what, error, error.response.status_code)) from error
    except _NETWORK as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ValueError(f"the disk is full ({error.strerror}): make room for {what}, then {AGAIN}") from error
        raise ValueError(_unreachable(what, error, None)) from error


def _unreachable(what: str, reason: BaseException, status: int | None) -> str:
    if status in (401, 403):
        return f"{endpoint()} refuses to give {what} (status {status}): log in with `hf auth login` or set HF_TOKEN"
    if status is not None:
        return f"{endpoint()} answers with status {status} when asked for {what}: {AGAIN} in a while"
    words = " ".join(str(reason).split()) or type(reason).__name__
    return f"{what} cannot be fetched from {endpoint()} ({words}): check the connection or HF_ENDPOINT, then {AGAIN}"
