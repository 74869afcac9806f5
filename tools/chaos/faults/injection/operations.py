"""The functions of `os` that touch files, wrapped. pathlib, shutil and tempfile look them up there, too."""

import fcntl
import os

# What is wrapped: the name of the operation in tickets and records, and which argument names the file.
CHANGES = {
    "fsync": ("fsync", 0),
    "fdatasync": ("fsync", 0),
    "rename": ("rename", 1),
    "replace": ("replace", 1),
    "link": ("link", 1),
    "symlink": ("symlink", 1),
    "unlink": ("unlink", 0),
    "remove": ("unlink", 0),
    "mkdir": ("mkdir", 0),
    "rmdir": ("rmdir", 0),
    "truncate": ("truncate", 0),
    "ftruncate": ("truncate", 0),
    "posix_fallocate": ("write", 0),
    "utime": ("touch", 0),
    "chmod": ("touch", 0),
}
READS = {"stat": "stat", "lstat": "stat", "access": "stat", "listdir": "list", "scandir": "list"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
REAL = {
    name: getattr(os, name)
    for name in (*CHANGES, *READS, "open", "write", "pwrite", "writev", "posix_spawn", "posix_spawnp", "lseek", "fstat")
}


def install(injector):
    """Wrap them all."""
    for name, (operation, place) in CHANGES.items():
        _replace(name, _change(injector, REAL[name], operation, place))
    for name, operation in READS.items():
        _replace(name, _read(injector, REAL[name], operation))
    for name in ("posix_spawn", "posix_spawnp"):
        _replace(name, _spawn(injector, REAL[name]))
    _replace("open", _open(injector))
    _replace("write", _write(injector))
    _replace("pwrite", _pwrite(injector))
    _replace("writev", _writev(injector))


def _replace(name, function):
    function.__name__ = name
    # shutil asks these sets what a function can do.
    for abilities in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks, os.supports_effective_ids):
        if REAL[name] in abilities:
            abilities.add(function)
    setattr(os, name, function)


def _change(injector, function, operation, place):
    folder = "dst_dir_fd" if place else "dir_fd"

    def call(*arguments, **options):
        path = where(_argument(arguments, options, place), options.get(folder))
        return injector.around(operation, path, lambda: function(*arguments, **options))

    return call


def _read(injector, function, operation):
    def call(*arguments, **options):
        path = where(_argument(arguments, options, 0, default="."), options.get("dir_fd"))
        return injector.reading(operation, path, lambda: function(*arguments, **options))

    return call


def _argument(arguments, options, place, default=None):
    """The argument that names the file, given by place or by name."""
    names = (("path", "fd"), ("dst",))[place]
    if len(arguments) > place:
        return arguments[place]
    return next((options[name] for name in names if name in options), default)


def _open(injector):
    real = REAL["open"]

    def call(path, flags, mode=0o777, *, dir_fd=None):
        name = where(path, dir_fd)

        def run():
            return real(path, flags, mode, dir_fd=dir_fd)

        if not flags & WRITING:
            return injector.reading("read", name, run)
        return injector.around("open", name, run, grows=lambda: not _exists(name))

    return call


def _write(injector):
    real = REAL["write"]

    def call(descriptor, data):
        view = memoryview(data).cast("B")

        def half():
            return real(descriptor, view[: len(view) // 2])

        return injector.around(
            "write",
            where(descriptor),
            lambda: real(descriptor, data),
            grows=lambda: _grows(descriptor, len(view)),
            half=half if len(view) > 1 else None,
        )

    return call


def _pwrite(injector):
    real = REAL["pwrite"]

    def call(descriptor, data, offset):
        view = memoryview(data).cast("B")

        def half():
            return real(descriptor, view[: len(view) // 2], offset)

        return injector.around(
            "write",
            where(descriptor),
            lambda: real(descriptor, data, offset),
            grows=lambda: REAL["fstat"](descriptor).st_size < offset + len(view),
            half=half if len(view) > 1 else None,
        )

    return call


def _writev(injector):
    real = REAL["writev"]

    def call(descriptor, buffers):
        return injector.around(
            "write",
            where(descriptor),
            lambda: real(descriptor, buffers),
            grows=lambda: _grows(descriptor, sum(len(memoryview(one).cast("B")) for one in buffers)),
            half=lambda: real(descriptor, list(buffers)[:1]),
        )

    return call


def _spawn(injector, function):
    """A program whose output goes into a new file of the store (the log of a rank), which its process opens itself."""

    def call(path, argv, env, **options):
        opened = [action[2] for action in options.get("file_actions", ()) if action[0] == os.POSIX_SPAWN_OPEN]
        made = next((name for name in map(where, opened) if injector.covers(name)), "")
        return injector.around("spawn", made, lambda: function(path, argv, env, **options))

    return call


def _grows(descriptor, size):
    """Whether a write of so many bytes goes beyond the end of the file: a full disk has no block for that."""
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
        return True
    return REAL["lseek"](descriptor, 0, os.SEEK_CUR) + size > REAL["fstat"](descriptor).st_size


def _exists(name):
    try:
        REAL["lstat"](name)
    except FileNotFoundError:
        return False
    return True


def where(argument, dir_fd=None):
    """The absolute path of a path or descriptor; not absolute for what is no file."""
    if isinstance(argument, int):
        try:
            return os.readlink(f"/proc/self/fd/{argument}").removesuffix(" (deleted)")
        except OSError:
            return ""
    if argument is None:
        return ""
    name = os.fsdecode(argument)
    if dir_fd is not None and not name.startswith("/"):
        return os.path.join(where(dir_fd), name)
    return os.path.abspath(name)
