"""The only code that writes or deletes below the output root.

Every path is resolved from the root's descriptor, one component at a time and never through a
link, so nothing lands outside, whatever others do to the tree meanwhile.  A file is put in place
by a rename: a reader sees the old one or the new one.  What is there and is not ours, by stamp or
by digest, stays.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from assetd import stamp as stamps
from assetd.errors import PublishError
from assetd.model import Change, Diagnostic, Digest, Done, Output, Publication, Stamp

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WAY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
STAGING_NAME: Final = ".assetd-staging"


class _ObstacleError(PublishError):
    """Something is in the way that this change's deletions may take away."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path


class _LostError(PublishError):
    """What was staged is not there any more: it has to be made again."""


def staging_folder(out_dir: str, state_dir: str) -> str:
    """Where to stage outputs: in the state folder if a rename from there reaches the root.

    The answer comes from a rename that is tried: a bind mount has one device number and
    refuses all the same.

    Raises:
        PublishError: The output root or the state folder cannot be written.
    """
    try:
        return _staging_folder(out_dir, state_dir)
    except OSError as error:
        where = error.filename2 or error.filename or out_dir
        raise PublishError(f"{where} cannot be written: {error.strerror}") from error


def _staging_folder(out_dir: str, state_dir: str) -> str:
    preferred = os.path.join(state_dir, "staging")
    os.makedirs(preferred, exist_ok=True)
    os.makedirs(out_dir, exist_ok=True)
    # The same names each time, so that what a kill leaves behind goes with the next start.
    probe = f"{preferred}/probe"
    landed = os.path.join(out_dir, f"{STAGING_NAME}-probe")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(landed)
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.rename(probe, landed)
        os.unlink(landed)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(probe)
        if error.errno != errno.EXDEV:
            raise
        preferred = os.path.join(out_dir, STAGING_NAME)
        os.makedirs(preferred, exist_ok=True)
    return preferred


def identify(out_dir: str, path: str) -> tuple[Stamp, Digest] | None:
    """Stamp and digest of the output *path* as it is; None if no regular file is there.

    No link is followed, not even one in the middle.
    """
    try:
        with contextlib.closing(_Root(out_dir, make=False)) as root:
            folder, name = _split(path)
            return root.identify(root.folder(folder, make=False), name)
    except (OSError, PublishError):
        return None


def apply(
    out_dir: str,
    change: Change,
    in_place: Callable[[str], Output | None],
    made_folder: Callable[[str], bool],
    *,
    sync_folders: bool = False,
    take_over: bool = False,
) -> Done:
    """Put in place and take away what *change* says; may be done again after it was cut short.

    Args:
        out_dir: The output root, a real path; made if it is not there.
        change: What to do.
        in_place: What the record knows to be there before.
        made_folder: Whether the record says that we made a folder.
        sync_folders: Bring the renames to the disk before returning.
        take_over: Replace what is not ours too: somebody asked for it.
    """
    placed: dict[str, Stamp] = {}
    blocked: dict[str, Diagnostic] = {}
    deleted: list[str] = []
    kept: dict[str, str] = {}
    stuck: dict[str, Diagnostic] = {}
    try:
        root = _Root(out_dir, make=True)
    except (PublishError, OSError) as error:
        why = Diagnostic(f"{out_dir}: {_text(error)}", transient=True)
        return Done(
            {},
            {publication.output: why for publication in change.publish},
            (),
            {},
            {deletion.output: why for deletion in change.delete},
        )
    with contextlib.closing(root):
        # New files first, so that a page finds what it asks for while old ones go.  Only what
        # cannot come before a deletion (a file where a folder was, or the other way round)
        # waits for the deletions.
        waiting: list[Publication] = []
        for publication in change.publish:
            try:
                _place(root, publication, in_place, placed, take_over=take_over)
            except _ObstacleError:
                waiting.append(publication)
            except (PublishError, OSError) as error:
                blocked[publication.output] = _diagnostic(error)
        for deletion in change.delete:
            output = deletion.output
            try:
                if _delete(root, output, deletion.digest, in_place(output)):
                    deleted.append(output)
                else:
                    kept[output] = "edited since we published it"
            except PublishError as error:
                kept[output] = str(error)
            except OSError as error:
                stuck[output] = Diagnostic(
                    f"cannot delete {output}: {_text(error)}", transient=True
                )
        for folder in sorted({_split(p)[0] for p in deleted}, key=len, reverse=True):
            root.prune(folder, made_folder)
        for publication in waiting:
            try:
                _place(root, publication, in_place, placed, take_over=take_over)
            except _ObstacleError as error:
                # Of ours, or stuck: another slice, or another try, may take it away.
                passing = made_folder(error.path) or in_place(error.path) is not None
                blocked[publication.output] = Diagnostic(str(error), transient=passing)
            except (PublishError, OSError) as error:
                blocked[publication.output] = _diagnostic(error)
        if sync_folders:
            root.sync()
        return Done(
            placed,
            blocked,
            tuple(deleted),
            kept,
            stuck,
            tuple(f for f in root.made if f not in root.removed),
            tuple(root.removed),
        )


def _place(
    root: "_Root",
    publication: Publication,
    in_place: Callable[[str], Output | None],
    placed: dict[str, Stamp],
    *,
    take_over: bool,
) -> None:
    folder_path, name = _split(publication.output)
    folder = root.folder(folder_path, make=True)
    staged = publication.staged
    current = root.look(folder, name)
    if current is not None and stat.S_ISDIR(current.st_mode):
        raise _ObstacleError(
            f"{publication.output} in the output folder is a folder: a file must be there",
            publication.output,
        )
    ready = staged is not None and os.path.lexists(staged)
    if current is not None:
        known = in_place(publication.output)
        ours = known is not None and known.stamp == stamps.of_stat(current)
        if not ours or not ready:
            found = root.identify(folder, name)
            if found is not None and found[1] == publication.digest:
                # The right bytes already: adopted, not written again.
                if staged is not None:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(staged)
                placed[publication.output] = found[0]
                return
            ours = found is not None and known is not None and found[1] == known.digest
        if not ours and not take_over:
            what = "it was edited since" if known is not None else "a file that is not ours"
            raise PublishError(
                f"{publication.output} in the output folder is kept: {what}; "
                "remove it, or let `assetd build --take-over` replace it"
            )
    if not ready or staged is None:
        raise _LostError(f"{publication.output} was lost on its way: it is made again")
    os.rename(staged, name, dst_dir_fd=folder)
    placed[publication.output] = stamps.of_stat(os.stat(name, dir_fd=folder, follow_symlinks=False))


def _delete(root: "_Root", output: str, digest: Digest, known: Output | None) -> bool:
    folder_path, name = _split(output)
    try:
        folder = root.folder(folder_path, make=False)
    except (FileNotFoundError, _ObstacleError):
        return True
    current = root.look(folder, name)
    if current is None:
        return True
    if known is None or known.stamp != stamps.of_stat(current):
        found = root.identify(folder, name)
        if found is None or found[1] != digest:
            return False
    os.unlink(name, dir_fd=folder)
    return True


class _Root:
    """Descriptors of the output root and of folders below it, while a change is applied."""

    def __init__(self, out_dir: str, *, make: bool) -> None:
        # It was resolved when the configuration was read; no part of it must have become a
        # link since, so it is walked down to like what is below it.
        self._folders: dict[str, int] = {"": _open_root(out_dir, make=make)}
        self.made: list[str] = []
        self.removed: list[str] = []

    def close(self) -> None:
        """Close every descriptor."""
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()

    def folder(self, path: str, *, make: bool) -> int:
        """The descriptor of the folder *path*.

        Raises:
            FileNotFoundError: It is not there, and was not to be made.
            _ObstacleError: A file is in its way.
            PublishError: A link is in its way.
        """
        known = self._folders.get(path)
        if known is not None:
            return known
        above, name = _split(path)
        parent = self.folder(above, make=make)
        try:
            fd = os.open(name, _FOLDER, dir_fd=parent)
        except FileNotFoundError:
            if not make:
                raise
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=parent)
                self.made.append(path)
                if path in self.removed:
                    self.removed.remove(path)
            fd = self.folder_again(name, parent, path)
        except OSError as error:
            raise self._in_the_way(error, name, parent, path) from error
        if len(self._folders) >= 256:
            self._forget()
        self._folders[path] = fd
        return fd

    def folder_again(self, name: str, parent: int, path: str) -> int:
        """Open a folder that was just made."""
        try:
            return os.open(name, _FOLDER, dir_fd=parent)
        except OSError as error:
            raise self._in_the_way(error, name, parent, path) from error

    def _in_the_way(self, error: OSError, name: str, parent: int, path: str) -> Exception:
        if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
            return error
        found = self.look(parent, name)
        if found is not None and stat.S_ISLNK(found.st_mode):
            return PublishError(f"{path} in the output folder is a link: we write through none")
        return _ObstacleError(
            f"{path} in the output folder is a file: a folder must be there", path
        )

    def _forget(self) -> None:
        for path in [p for p in self._folders if p]:
            os.close(self._folders.pop(path))

    def look(self, folder: int, name: str) -> os.stat_result | None:
        """What is at *name*, the link itself if it is one; None for nothing."""
        try:
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def identify(self, folder: int, name: str) -> tuple[Stamp, Digest] | None:
        """Stamp and digest of the regular file at *name*; None if there is none."""
        try:
            fd = os.open(name, _FILE, dir_fd=folder)
        except OSError:
            return None
        try:
            digest, stamp = stamps.digest_file(f"/proc/self/fd/{fd}")
        except OSError:
            return None
        finally:
            os.close(fd)
        return stamp, digest

    def prune(self, path: str, made: Callable[[str], bool]) -> None:
        """Remove the folder *path* and those above it, as far as they are empty and ours."""
        while path and (path in self.made or made(path)):
            above, name = _split(path)
            try:
                parent = self.folder(above, make=False)
                os.rmdir(name, dir_fd=parent)
            except (OSError, PublishError):
                return
            fd = self._folders.pop(path, None)
            if fd is not None:
                os.close(fd)
            self.removed.append(path)
            path = above

    def sync(self) -> None:
        """Bring what was renamed in the open folders to the disk."""
        for fd in self._folders.values():
            os.fsync(fd)


def _open_root(out_dir: str, *, make: bool) -> int:
    fd = os.open("/", _WAY)
    parts = [part for part in out_dir.split("/") if part]
    for number, part in enumerate(parts, 1):
        flags = _FOLDER if number == len(parts) else _WAY
        try:
            try:
                below = os.open(part, flags, dir_fd=fd)
            except FileNotFoundError:
                if not make:
                    raise
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=fd)
                below = os.open(part, flags, dir_fd=fd)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                where = "/" + "/".join(parts[:number])
                raise PublishError(
                    f"{where} is a link or no folder: nothing is written through it"
                ) from error
            raise
        finally:
            os.close(fd)
        fd = below
    return fd


def _diagnostic(error: Exception) -> Diagnostic:
    # What the disk refuses may pass; what somebody put there does not go by itself.
    return Diagnostic(_text(error), transient=isinstance(error, OSError | _LostError))


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    if name in {"", ".", ".."} or "\0" in name:
        raise PublishError(f"{path!r} is no path below the output folder")
    return folder, name


def _text(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error}"
    return str(error)
