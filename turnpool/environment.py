"""Names of environment variables and secret files that belong to no setting.

A misspelt key would leave an API open without a word, so a name that may be one is refused. Other
unknown variables are logged: `TURNPOOL_` is turnpool's own prefix.
"""

import os
import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from pathlib import Path

from turnpool.errors import SettingsError

PREFIX = "TURNPOOL_"
# Flower's settings are checked by Flower itself, with their own prefix.
FLOWER = "FLOWER_"
# Read by the command line, as a client of the API.
CLIENT = {"URL", "API_KEY"}
SECRET = re.compile(r"KEY|SECRET|PASSW|TOKEN|CREDENTIAL")


def check_names(known: Collection[str], prefix: str, folder: str | None) -> None:
    """Refuse names of secrets, in the environment or in the folder, that are no setting of this prefix.

    `known`: names of the settings without the prefix. Raises SettingsError with one line.
    """
    names = {name.upper() for name in known}
    secrets = [name for name in names if SECRET.search(name)]
    for name in _unknown_variables(names, prefix):
        if SECRET.search(name) or get_close_matches(name, secrets, n=1, cutoff=0.8):
            raise SettingsError(f"{prefix}{name}: there is no such setting{_hint(name, names, prefix)}")
    if folder:
        for file in sorted(Path(folder).iterdir()):
            _check_file(file, names, prefix)


def unknown_variables(known: Collection[str]) -> list[str]:
    """Return variables with turnpool's prefix that are no setting, each with the nearest name."""
    names = {name.upper() for name in known}
    return [f"{PREFIX}{name}{_hint(name, names, PREFIX)}" for name in _unknown_variables(names, PREFIX)]


def _unknown_variables(names: Collection[str], prefix: str) -> Iterator[str]:
    for variable in sorted(os.environ):
        name = _own_part(variable, prefix)
        if name is not None and name not in names and not (prefix == PREFIX and name in CLIENT):
            yield name


def _check_file(file: Path, names: Collection[str], prefix: str) -> None:
    # Another separator or an extension is a mistake as well: the file would not be read.
    name = _own_part(re.sub(r"[-. ]", "_", file.name), prefix)
    if name is None:
        return
    if file.name.upper() != prefix + name or name not in names:
        hint = _hint(name, names, prefix).lower()
        raise SettingsError(f"TURNPOOL_SECRETS_DIR: {file.name} is no setting{hint}")
    try:
        is_inside = file.resolve(strict=True).is_relative_to(file.parent.resolve())
        file.read_text(encoding="utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text, or links to itself"
        raise SettingsError(f"TURNPOOL_SECRETS_DIR: {file.name} cannot be read: {reason}") from None
    if not is_inside:
        raise SettingsError(
            f"TURNPOOL_SECRETS_DIR: {file.name} is a link out of the folder; put the file there"
        )


def _own_part(name: str, prefix: str) -> str | None:
    """What follows the prefix; None for a name that is none of this prefix's."""
    upper = name.upper()
    if not upper.startswith(prefix) or (prefix == PREFIX and upper.startswith(PREFIX + FLOWER)):
        return None
    return upper.removeprefix(prefix)


def _hint(name: str, names: Collection[str], prefix: str) -> str:
    found = get_close_matches(name, names, n=1)
    return f"; the nearest is {prefix}{found[0]}" if found else ""
