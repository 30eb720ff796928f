"""The edge to the file system: bounded reads, secrets, and writes that survive a power cut.

    data = read_bounded("report.proof", 16 * 2**20, "proof")
    seed, warnings = read_secret("seed.txt")                 # warnings: "... mode 0644, want 0600"
    write_secret_new("seed.txt", data)                       # never over something
    write_atomic("state.json", data)                         # old bytes or new bytes, never a mixture

What a crash leaves: `write_secret_new` the whole file or none, `write_atomic` the old bytes or the new; and perhaps a
`.nextcloud-audit-….tmp` beside them, which may be removed. (Where a file system has no hard links, as FAT, a crash of
`write_secret_new` may leave an empty file, which may be removed as well.) An error leaves neither a partial file nor a
temporary one. `write_atomic` replaces a symbolic link, it does not write through it.

Every failure is a Usage error that names the path and says why; a file that is too large is Malformed. On Windows
there are no modes to warn about and directories cannot be synced: both steps are left out there.

Not checked: who owns a file, access lists, and whether a parent directory lets somebody swap it. Synchronised
folders are known by the traces that their programs leave in them; one that leaves none is not noticed.
"""

from __future__ import annotations

import errno
import os
import stat

from verifier.errors import Malformed, Usage

MAX_SECRET_SIZE = 4096  # seed and reader key files have under 1 KiB (SPEC 2.1, 2.5)
SECRET_MODE = 0o600

# O_BINARY: Windows would translate line ends. O_NONBLOCK: opening a pipe must not wait for its writer.
_BINARY: int = getattr(os, "O_BINARY", 0)
_NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # file systems that do not sync directories

_NEXTCLOUD = "the Nextcloud or ownCloud client"
_FIXED_MARKS = {
    ".owncloudsync.log": _NEXTCLOUD,
    ".nextcloudsync.log": _NEXTCLOUD,
    ".dropbox": "Dropbox",
    ".stfolder": "Syncthing",
}


def read_bounded(path: str, limit: int, where: str) -> bytes:
    """The whole file, at most `limit` bytes of it. Pipes are welcome, directories are not."""
    try:
        fd = os.open(path, os.O_RDONLY | _BINARY)
    except (OSError, ValueError) as error:
        raise _refused(f"{where}: cannot read", path, error) from None
    return _read(fd, path, limit, where)[0]


def read_secret(path: str, where: str = "seed file", limit: int = MAX_SECRET_SIZE) -> tuple[bytes, list[str]]:
    """The bytes of a secret file, and a warning if others on this machine may touch it. Only regular files."""
    try:
        fd = os.open(path, os.O_RDONLY | _BINARY | _NONBLOCK)
    except (OSError, ValueError) as error:
        raise _refused(f"{where}: cannot read", path, error) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Usage(f"{where}: {_shown(path)} is not a regular file")
    data, mode = _read(fd, path, limit, where)
    if os.name == "nt" or not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return data, []
    return data, [f"{where}: {_shown(path)} is open to others on this machine, got mode {mode:04o}, want 0600"]


def write_secret_new(path: str, data: bytes) -> None:
    """Create a file that only its owner may read. Success means that it is on disk and that nothing was overwritten."""
    temporary = _beside(path)
    try:
        _create(temporary, data, SECRET_MODE)
        try:
            _name_new(temporary, path)
        finally:
            _discard(temporary)
        sync_directory_of(path)
    except FileExistsError:
        raise Usage(f"{_shown(path)} exists and is not overwritten: choose another name or move it away") from None
    except (OSError, ValueError) as error:
        raise _refused("cannot create", path, error) from None


def write_atomic(path: str, data: bytes, mode: int = SECRET_MODE) -> None:
    """Put these bytes in the place of the file. Also after a crash one finds either the old or the new, whole."""
    temporary = _beside(path)
    try:
        _create(temporary, data, mode)
        try:
            os.replace(temporary, path)
        except BaseException:
            _discard(temporary)
            raise
        sync_directory_of(path)
    except (OSError, ValueError) as error:
        raise _refused("cannot write", path, error) from None


def is_inside_synced_folder(path: str) -> str | None:
    """Say which directory at or above `path` a synchroniser owns, and by which trace; None if there is no trace.

    A state that another machine's older copy may replace protects nobody. The path need not exist yet.
    """
    try:
        directory = os.path.realpath(path)
    except (OSError, ValueError) as error:
        raise _refused("cannot resolve", path, error) from None
    while True:
        for name in _names(directory):
            program = _program(directory, name)
            if program:
                return f"{_shown(directory)} is synchronised by {program}, it holds {_shown(name)}"
        parent = os.path.dirname(directory)
        if parent == directory:
            return None
        directory = parent


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        # Not there yet, a file, or a parent that we may cross and not list: the fixed names can still be asked for.
        return [name for name in _FIXED_MARKS if os.path.lexists(os.path.join(directory, name))]


def _program(directory: str, name: str) -> str | None:
    """The program that leaves this name at the top of the folders that it synchronises."""
    if name.startswith((".sync_", "._sync_")) and name.endswith(".db"):
        return _NEXTCLOUD
    if name == ".dropbox" and os.path.isdir(os.path.join(directory, name)):
        return None  # the program's own settings in the home directory; its folder holds a file of that name
    return _FIXED_MARKS.get(name)


def _read(fd: int, path: str, limit: int, where: str) -> tuple[bytes, int]:
    """The bytes and the permission bits of an open file, which this closes."""
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            os.close(fd)
            raise Usage(f"{where}: {_shown(path)} is a directory, want a file")
        with os.fdopen(fd, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise _refused(f"{where}: cannot read", path, error) from None
    if len(data) > limit:
        raise Malformed(f"{_shown(path)} has more than {limit} bytes", where)
    return data, stat.S_IMODE(mode)


def _create(path: str, data: bytes, mode: int) -> None:
    """Make a new file with these bytes on disk, or raise OSError and leave none."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, SECRET_MODE)
    try:
        try:
            _fill(fd, data, mode)
        finally:
            os.close(fd)
    except BaseException:
        _discard(path)
        raise


def _beside(path: str) -> str:
    """A name in the same folder that nobody has."""
    return os.path.join(os.path.dirname(path), f".nextcloud-audit-{os.urandom(8).hex()}.tmp")


def _name_new(temporary: str, path: str) -> None:
    """Give a whole file its name, or raise FileExistsError where anything has it."""
    if os.name == "nt":
        os.rename(temporary, path)  # refuses what exists, there
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links here: the name is taken first, and then given to the file
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE))
        try:
            os.replace(temporary, path)
        except BaseException:
            _discard(path)
            raise


def _fill(fd: int, data: bytes, mode: int) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    if hasattr(os, "fchmod"):
        os.fchmod(fd, mode)  # opened as 0600 and widened only now; the umask has no say
    os.fsync(fd)


def _discard(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # the first error is the one to report


def sync_directory_of(path: str) -> None:
    """Make the name durable, too. Without this a power cut may bring the old directory back."""
    try:
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    except OSError:
        return  # Windows, or a directory that we may write and not read
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(fd)


def _refused(what: str, path: str, error: OSError | ValueError) -> Usage:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Usage(f"{what} {_shown(path)}: {reason.lower()}")


def _shown(path: str) -> str:
    """The path for a message; control characters and undecodable bytes must not reach a terminal."""
    return path if path.isprintable() else ascii(path)
