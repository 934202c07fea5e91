"""The only code that writes or deletes below the output root.

Every path is resolved from the root's descriptor, one component at a time and never through a
link, so nothing lands outside, whatever others do to the tree meanwhile.  A file is put in place
by a rename: a reader sees the old one or the new one.  What is there and is not ours, by stamp or
by digest, stays.
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from assetd import stamp as stamps
from assetd.errors import PublishError
from assetd.model import Change, Diagnostic, Digest, Done, Output, Publication, Source, Stamp

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WAY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
STAGING_NAME: Final = ".assetd-staging"
MADE_NAME: Final = "made-folders"
"""Of the file in the state folder that says which folders down to the output root we made."""


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
    _make_root(out_dir, os.path.join(state_dir, MADE_NAME))
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


def _make_root(out_dir: str, note: str) -> None:
    """Make the output root, and note which folders were not there: only those are ours."""
    made = []
    path = out_dir
    while not os.path.lexists(path):
        made.append(path)
        path = os.path.dirname(path)
    os.makedirs(out_dir, exist_ok=True)
    if made:
        # By inode: a folder that somebody makes in its place is not ours, and a project that
        # is moved keeps them.
        with open(note, "a", encoding="ascii") as file:
            file.writelines(f"{os.lstat(path).st_ino}\n" for path in made)


def made_roots(out_dir: str, state_dir: str) -> list[str]:
    """The output root and the folders above it, as far as we made them; the root comes first."""
    made: set[int] = set()
    with (
        contextlib.suppress(OSError, ValueError),  # ValueError: cut short by a power loss
        open(os.path.join(state_dir, MADE_NAME), encoding="ascii") as file,
    ):
        made.update(map(int, file))
    found = []
    path = out_dir
    with contextlib.suppress(OSError):
        while (seen := os.lstat(path)).st_ino in made and stat.S_ISDIR(seen.st_mode):
            found.append(path)
            path = os.path.dirname(path)
    return found


def remove_root(out_dir: str, state_dir: str) -> list[str]:
    """Remove our staging there, and of `made_roots` those that are empty; returns these."""
    with contextlib.suppress(OSError):
        shutil.rmtree(os.path.join(out_dir, STAGING_NAME))
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(out_dir, f"{STAGING_NAME}-probe"))
    gone: list[str] = []
    with contextlib.suppress(OSError):  # one that is not empty stays, and those above it
        for path in made_roots(out_dir, state_dir):
            os.rmdir(path)
            gone.append(path)
    return gone


class There(Enum):
    """What stands at the place of an output."""

    NOTHING = "nothing"
    FILE = "file"
    """A regular file; it was read if somebody wanted that."""
    UNREADABLE = "unreadable"
    """A regular file that may not be read, or folders on the way that may not."""
    OTHER = "other"
    """A link, a folder, a device; or such a thing in the place of a folder on the way."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the place of an output has shown."""

    there: There
    stamp: Stamp | None = None
    """Of what a rename would replace; None if there is nothing, or nothing that it could."""
    digest: Digest | None = None
    """None: nobody looked inside."""
    what: str | None = None
    """Half a sentence about what is unreadable or something else."""


def see(
    out_dir: str, outputs: Iterable[Output], look_inside: Callable[[Output, Stamp], bool]
) -> Iterator[tuple[Output, Seen]]:
    """What is at the place of each output; no link is followed, and nothing is changed.

    Args:
        out_dir: The output root.
        outputs: As the record has them.
        look_inside: Of an output and the stamp of the file there: whether to read it.
    """
    try:
        root = _Root(out_dir, make=False)
    except FileNotFoundError:
        yield from ((output, Seen(There.NOTHING)) for output in outputs)
        return
    except (PublishError, OSError) as error:
        kind = There.OTHER if isinstance(error, PublishError) else There.UNREADABLE
        what = _text(error)
        yield from ((output, Seen(kind, what=what)) for output in outputs)
        return
    with contextlib.closing(root):
        for output in outputs:
            yield output, _see(root, output, look_inside)


def _see(root: "_Root", output: Output, look_inside: Callable[[Output, Stamp], bool]) -> Seen:
    try:
        folder_path, name = _split(output.path)
        folder = root.folder(folder_path, make=False)
        current = root.look(folder, name)
    except FileNotFoundError:
        return Seen(There.NOTHING)
    except PublishError as error:
        return Seen(There.OTHER, what=str(error))
    except OSError as error:
        return Seen(There.UNREADABLE, what=f"its folder cannot be read: {_text(error)}")
    if current is None:
        return Seen(There.NOTHING)
    if stat.S_ISDIR(current.st_mode):
        return Seen(There.OTHER, what="a folder is there")
    stamp = stamps.of_stat(current)
    if not stat.S_ISREG(current.st_mode):
        what = "a link is there" if stat.S_ISLNK(current.st_mode) else "no regular file is there"
        return Seen(There.OTHER, stamp, what=what)
    if not look_inside(output, stamp):
        return Seen(There.FILE, stamp)
    try:
        stamp, digest = root.read(folder, name)
    except OSError as error:
        return Seen(There.UNREADABLE, stamp, what=f"it cannot be read: {_text(error)}")
    return Seen(There.FILE, stamp, digest)


def remove_folders(out_dir: str, made: Iterable[str]) -> list[str]:
    """Remove those of the folders *made* by us that are empty; returns them."""
    folders = set(made)
    try:
        root = _Root(out_dir, make=False)
    except (PublishError, OSError):
        return []
    with contextlib.closing(root):
        for folder in sorted(folders, key=lambda path: path.count("/"), reverse=True):
            root.prune(folder, folders.__contains__)
        return root.removed


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


def is_free(out_dir: str, path: str) -> bool:
    """Whether nothing is at the place of the output *path*, nor in the way to it."""
    output = Output(path, Source("", ""), "", None)
    _, seen = next(see(out_dir, [output], lambda _output, _stamp: False))
    return seen.there is There.NOTHING


def apply(
    out_dir: str,
    change: Change,
    in_place: Callable[[str], Output | None],
    made_folder: Callable[[str], bool],
    *,
    sync_folders: bool = False,
    take_over: bool = False,
    torn: bool = False,
) -> Done:
    """Put in place and take away what *change* says; may be done again after it was cut short.

    Args:
        out_dir: The output root, a real path; made if it is not there.
        change: What to do.
        in_place: What the record knows to be there before.
        made_folder: Whether the record says that we made a folder.
        sync_folders: Bring the renames to the disk before returning.
        take_over: Replace what is not ours too: somebody asked for it.
        torn: The machine went down: a file that holds the beginning of what is to come, and no
            more, is ours.  Its name reached the disk, its content and the record did not.
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
                _place(root, publication, in_place, placed, take_over=take_over, torn=torn)
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
        root.prune_behind(deleted, made_folder)
        for publication in waiting:
            try:
                _place(root, publication, in_place, placed, take_over=take_over, torn=torn)
            except _ObstacleError as error:
                # Of ours, or stuck: another slice, or another try, may take it away.
                passing = made_folder(error.path) or in_place(error.path) is not None
                blocked[publication.output] = Diagnostic(str(error), transient=passing)
            except (PublishError, OSError) as error:
                blocked[publication.output] = _diagnostic(error)
        root.prune_behind(blocked, made_folder)  # made for what did not come
        if sync_folders:
            try:
                root.sync()
            except OSError as error:
                # They are there, and may not be after a power cut: the next try finds them
                # right, and syncs again.
                why = Diagnostic(f"cannot be brought to the disk: {_text(error)}", transient=True)
                blocked |= dict.fromkeys(placed, why)
                placed.clear()
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
    torn: bool,
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
    ready = staged is not None
    if current is not None:
        ready = staged is not None and os.path.lexists(staged)
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
        if torn and not ours and known is None and ready and staged is not None:
            ours = root.begins(folder, name, staged)
        if not ours and not take_over:
            what = "it was edited since" if known is not None else "a file that is not ours"
            raise PublishError(
                f"{publication.output} in the output folder is kept: {what}; "
                "remove it, or let `assetd build --take-over` replace it"
            )
    lost = _LostError(f"{publication.output} was lost on its way: it is made again")
    if not ready or staged is None:
        raise lost
    try:
        os.rename(staged, name, dst_dir_fd=folder)
    except FileNotFoundError as error:
        raise lost from error
    landed = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(landed.st_mode):
        # Asked only now, when nobody can exchange it any more: staging is a worker's.
        os.unlink(name, dir_fd=folder)
        raise _LostError(f"{publication.output} was no file when it came: it is made again")
    placed[publication.output] = stamps.of_stat(landed)


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
            return self.read(folder, name)
        except OSError:
            return None

    def read(self, folder: int, name: str) -> tuple[Stamp, Digest]:
        """Stamp and digest of the regular file at *name*; raises OSError if it has none."""
        fd = os.open(name, _FILE, dir_fd=folder)
        try:
            digest, stamp = stamps.digest_file(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        return stamp, digest

    def begins(self, folder: int, name: str, staged: str) -> bool:
        """Whether the regular file at *name* holds the beginning of *staged*, and no more."""
        try:
            fd = os.open(name, _FILE, dir_fd=folder)
            with open(fd, "rb") as there, open(staged, "rb") as whole:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return False
                pieces = iter(lambda: there.read(1 << 20), b"")
                return all(whole.read(len(piece)) == piece for piece in pieces)
        except OSError:
            return False

    def prune_behind(self, outputs: Iterable[str], made: Callable[[str], bool]) -> None:
        """Remove the folders that *outputs* would be in, as far as they are empty and ours."""
        for folder in sorted({_split(p)[0] for p in outputs}, key=len, reverse=True):
            self.prune(folder, made)

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
