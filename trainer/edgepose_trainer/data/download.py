"""Fetches the archives of a dataset: resumed where it stopped, checked, unpacked whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import http.client
import json
import logging
import os
import shutil
import stat
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from edgepose_trainer.data.config import DataConfig, Download
from edgepose_trainer.data.files import DAMAGED_ZIP, cache_dir, write_whole
from edgepose_trainer.data.progress import Progress

log = logging.getLogger(__name__)

ATTEMPTS = 5
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18
MAX_MEMBERS = 2_000_000
_BAD_NAMES = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EINVAL)
MAX_RATIO = 100  # of unpacked to packed bytes: labels reach 10, bombs 1000


def download_dataset(data: DataConfig, progress: Progress | None = None) -> bool:
    """Fetches what the YAML's `download` names, if the dataset is not there. progress(bytes done, total).

    Returns whether anything was fetched. Raises ConnectionError without a network, ValueError where an archive is not
    what was expected; then nothing of that archive is unpacked.
    """
    missing = [item for item in data.downloads if not _marker(item).exists()]
    if not missing or (len(missing) == len(data.downloads) and _is_there(data)):
        return False
    for item in missing:
        if not item.into.is_relative_to(item.within):
            raise ValueError(
                f"{item.url} would be unpacked into {item.into}, which leads out of {item.within}: if you trust it, "
                "fetch and unpack it yourself"
            )
        _fetch_and_unpack(item, progress)
    return True


def _is_there(data: DataConfig) -> bool:
    paths = [p for part in data.sets for group in (part.splits, part.annotations) for ps in group.values() for p in ps]
    return all(p.exists() or glob.glob(str(p), recursive=True) for p in paths)


def _marker(item: Download) -> Path:
    """A file that says that this archive lies unpacked in its folder."""
    return item.into / f".downloaded-{_digest(item.url)}.json"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _fetch_and_unpack(item: Download, progress: Progress | None) -> None:
    name = PurePosixPath(urllib.parse.urlsplit(item.url).path).name or "archive.zip"
    archive = cache_dir() / "downloads" / f"{_digest(item.url)}-{name}"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with _alone(archive.with_name(archive.name + ".lock")):
        if _marker(item).exists():  # another process was faster
            return
        if not archive.exists():  # it is there when an earlier run could not unpack it for want of space
            log.info("downloading %s", item.url)
            fetch(item, archive, progress)
        try:
            unpack(archive, item.into)
        except ValueError:
            archive.unlink()
            raise
        write_whole(_marker(item), json.dumps({"url": item.url, "size": archive.stat().st_size}).encode())
        archive.unlink()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetch(item: Download, archive: Path, progress: Progress | None = None) -> None:
    """The archive at `archive`, whole and checked. What arrived before a break is kept in NAME.part to go on from."""
    part = archive.with_name(archive.name + ".part")
    for attempt in range(ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _fetch_rest(item, part, progress)
            break
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # the last attempt ended after the last byte, or the file is another one now
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    break
                _seen(part).unlink(missing_ok=True)  # the next one begins anew
            raise ConnectionError(f"{item.url}: the server answers {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            after = part.stat().st_size if part.exists() else 0
            if after == before or attempt == ATTEMPTS - 1:
                raise ConnectionError(_unreachable(item, error, after)) from None
    _check_hash(item, part)
    os.replace(part, archive)
    _seen(part).unlink(missing_ok=True)


def _unreachable(item: Download, error: Exception, kept: int) -> str:
    reason = getattr(error, "reason", error)
    so_far = f"; {kept} bytes are kept and the next attempt goes on from there" if kept else ""
    return (
        f"{item.url} cannot be fetched ({reason}){so_far}. Is there a network? Without one, bring the archive by "
        f"other means and unpack it into {item.into}"
    )


def _fetch_rest(item: Download, part: Path, progress: Progress | None) -> None:
    """One request for what is missing."""
    seen = _seen(part)
    have = part.stat().st_size if part.exists() else 0
    validator = _validator(seen) if have else ""
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if validator else {}
    request = urllib.request.Request(item.url, headers={"User-Agent": "edgepose", **headers})
    with _OPENER.open(request, timeout=TIMEOUT) as response:
        goes_on = response.status == 206 and _starts_at(response.headers.get("Content-Range"), have)
        have = have if goes_on else 0
        total = have + _length(response.headers, item)
        if item.size is not None and total != item.size:
            raise ValueError(f"{item.url} has {total} bytes on the server, expected {item.size}: it is another file")
        _check_room(part.parent, total - have)
        write_whole(seen, json.dumps({"validator": _new_validator(response.headers)}).encode())
        with open(part, "ab" if goes_on else "wb") as file:
            _copy(response, file, have, total, progress)


def _seen(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _validator(seen: Path) -> str:
    """What the server called the file when its first bytes were fetched; "" where that is unknown: begin again."""
    try:
        return str(json.loads(seen.read_text())["validator"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _new_validator(headers: Any) -> str:
    etag = headers.get("ETag") or ""
    return str(headers.get("Last-Modified") or "") if not etag or etag.startswith("W/") else str(etag)


def _starts_at(content_range: str | None, have: int) -> bool:
    return bool(content_range) and str(content_range).startswith(f"bytes {have}-")


def _length(headers: Any, item: Download) -> int:
    value = headers.get("Content-Length") or ""
    if not value.isdigit():
        raise ValueError(f"{item.url}: the server does not say how many bytes it sends (Content-Length)")
    return int(value)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 2**30:.1f} GiB are needed in {folder}, {free / 2**30:.1f} are free")


def _copy(response: Any, file: Any, have: int, total: int, progress: Progress | None) -> None:
    while have < total:
        chunk = response.read(min(CHUNK, total - have))
        if not chunk:
            raise http.client.HTTPException(f"the connection ended after {have} of {total} bytes")
        file.write(chunk)
        have += len(chunk)
        if progress:
            progress(have, total)


def _check_hash(item: Download, part: Path) -> None:
    if item.sha256 is None:
        return
    digest = hashlib.sha256()
    with open(part, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != item.sha256:
        part.unlink()
        _seen(part).unlink(missing_ok=True)
        raise ValueError(f"{item.url}: the SHA-256 is {digest.hexdigest()}, expected {item.sha256}; it was deleted")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith(("http://", "https://")):
            raise ValueError(f"{req.full_url} leads to {newurl!r}, which is not http(s)")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_Redirects())


# --- unpacking


def unpack(archive: Path, into: Path) -> None:
    """Unpacks a .zip beside `into` and moves it there when all of it is good. Raises ValueError."""
    into.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as file, tempfile.TemporaryDirectory(dir=into, prefix=".unpack-") as folder:
            members = _checked_members(file, archive)
            _check_room(into, sum(m.file_size for m in members))
            _extract(file, members, folder, archive)
            _merge(Path(folder), into)
    except (*DAMAGED_ZIP, RuntimeError) as error:  # RuntimeError: encrypted, or packed in a way not known
        raise ValueError(f"{archive} is not a whole .zip: {error}") from None


def _extract(file: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: str, archive: Path) -> None:
    try:
        for member in members:
            file.extract(member, folder)
    except OSError as error:
        if error.errno not in _BAD_NAMES:
            raise
        raise ValueError(f"{archive} holds names that cannot be files here: {error}") from None


def _checked_members(file: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    members = file.infolist()
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"{archive} holds {len(members)} files, more than {MAX_MEMBERS}")
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member.filename:
            raise ValueError(f"{archive} would write outside its folder: {member.filename!r}")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{archive} holds {member.filename!r}, which is neither file nor folder")
    total = sum(m.file_size for m in members)
    packed = archive.stat().st_size
    if total > MAX_RATIO * packed:
        raise ValueError(f"{archive} would grow from {packed} to {total} bytes, more than {MAX_RATIO} times")
    return members


def _merge(source: Path, into: Path) -> None:
    """Moves what lies in `source` into `into`; folders that are there already are filled."""
    for item in list(source.iterdir()):
        target = into / item.name
        if item.is_dir() and target.is_dir():
            _merge(item, target)
        else:
            os.replace(item, target)
