"""Paths as people write them: ``~`` and ``$VARIABLES`` mean what they mean to a shell.

Expanded once, where a path comes in: the configuration and the command line. Knows no file.
"""

import os
import pwd
import re
import tempfile
from pathlib import Path

from rerank_batch.errors import StorageError

_VARIABLE = re.compile(r"\$(?:(?P<plain>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[^}]*)\})")


def expanded(path: str) -> str:
    """The path or URI with its variables, and with a home folder for a ``~`` at its beginning.

    Raises:
        ValueError: a variable is not set, or nobody has such a home; the message names it.
    """
    return with_home(with_variables(path))


def expanded_model(name: str) -> str:
    """The same for the location in ``family:location``.

    Raises:
        ValueError: as `expanded`.
    """
    family, colon, location = name.partition(":")
    return f"{family}{colon}{expanded(location)}"


def with_variables(path: str) -> str:
    """The path with the values of its variables.

    Raises:
        ValueError: a variable is not set, or cannot be part of a path.
    """

    def value(match: re.Match[str]) -> str:
        name = match["plain"] or match["braced"]
        content = os.environ.get(name or "")
        if not content:
            state = "empty" if content == "" else "not set"
            raise ValueError(f"the variable {match.group()} is {state}; set it, or write the path")
        if not is_text(content):
            raise ValueError(f"the variable {match.group()} holds bytes that are not UTF-8")
        return content

    return _VARIABLE.sub(value, path)


def with_home(path: str) -> str:
    """The path with a home folder for a ``~`` at its beginning.

    Raises:
        ValueError: nobody has such a home.
    """
    if not path.startswith("~"):
        return path
    first, slash, rest = path.partition("/")
    if first == "~":
        folder = home()
        if folder is None:
            raise ValueError("~ is no folder: HOME is not set, and this user has no home; set HOME")
        return f"{folder.rstrip('/')}{slash}{rest}" or "/"
    try:
        return f"{pwd.getpwnam(first[1:]).pw_dir.rstrip('/')}{slash}{rest}"
    except KeyError:
        raise ValueError(
            f"{first} is nobody's home folder; for a folder of that name write ./{first}"
        ) from None


def home() -> str | None:
    """The home of this user; None in a container that gives it none."""
    if stated := os.environ.get("HOME"):
        return stated
    try:
        return pwd.getpwuid(os.getuid()).pw_dir or None
    except KeyError:
        return None


def expanded_cache(path: str) -> str:
    """The same for a cache, but for a ``~`` of this user's own, which is left to `cache_folder`.

    Raises:
        ValueError: as `expanded`.
    """
    path = with_variables(path)
    return path if path.partition("/")[0] == "~" else with_home(path)


def cache_folder(path: str) -> Path:
    """The folder of a cache; without a home, ``~`` is a folder of this user's for temporary files.

    Raises:
        StorageError: somebody else has that temporary folder.
    """
    if path.partition("/")[0] == "~" and home() is None:
        return temporary_home() / path.partition("/")[2]
    return Path(with_home(path)).absolute()


def user_cache() -> Path:
    """The user's cache, as desktops and containers set it.

    Raises:
        StorageError: there is none, and the temporary folder is somebody else's.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or cache_folder("~/.cache"))


def is_text(value: str) -> bool:
    """Whether it can be written as UTF-8; stray bytes of an argument or a variable cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def temporary_home() -> Path:
    """A private folder for a user without a home.

    Raises:
        StorageError: it cannot be made, or it is somebody else's.
    """
    folder = Path(tempfile.gettempdir()) / f"rerank_batch-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        mine = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
    except OSError as error:
        raise StorageError(
            f"there is no home folder and {folder} cannot be used ({error.strerror}); set "
            "storage.cache, or HOME"
        ) from None
    if not mine:
        raise StorageError(
            f"there is no home folder and {folder} is not this user's; set storage.cache, or HOME"
        )
    return folder
