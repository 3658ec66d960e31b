"""Errors whose message is one line for the user: it names the file, key or shape, and what to do."""

from __future__ import annotations

import errno
import os
import re

_MEND = {
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EEXIST: "choose another name",
    errno.ENOTDIR: "choose another name: a file is in the place of a folder",
    errno.EISDIR: "choose another name: a folder is in the place of a file",
    errno.EACCES: "choose another place, or allow it",
    errno.EPERM: "choose another place, or allow it",
    errno.EROFS: "choose another place, which can be written",
    errno.ENOSPC: "free some space",
    errno.ENOENT: "look whether it has been removed or renamed",
}
"""What to do about an error of the system."""
_LONGEST = 120


class PTQ4VMError(Exception):
    """Base of every error that the command line prints as a single line."""


class DataError(PTQ4VMError):
    """A clip, frame or folder is missing, damaged or inconsistent."""


class WeightsError(PTQ4VMError):
    """Pretrained weights cannot be found, verified or loaded."""


class WeightsUnavailableError(WeightsError):
    """No place that has pretrained weights could be reached (no network, a tool not installed)."""


class DownloadError(PTQ4VMError):
    """What was fetched from the network is damaged or not what was asked for."""


class UnavailableError(DownloadError):
    """Something cannot be fetched: no network, or a tool is not installed."""


class CheckpointError(PTQ4VMError):
    """A run folder or quantized checkpoint is missing, damaged or of another network or bit-width."""


class ExportError(PTQ4VMError):
    """An exported file is missing, damaged, not one of ours, or does not compute what its checkpoint does."""


class ConfigError(PTQ4VMError):
    """A configuration value is unknown, out of range or matches nothing."""


class TrainingError(PTQ4VMError):
    """Optimisation produced a value that cannot be continued from (NaN or infinite loss)."""


class SaveError(PTQ4VMError):
    """A file could not be written (disk full, folder not writable)."""


def shortened(error: BaseException, end: bool = False) -> str:
    """The beginning of a library's long message in one line, or its end, where the cause stands in some."""
    text = " ".join(str(error).split())
    if len(text) <= _LONGEST:
        return text
    return f"...{text[-_LONGEST:]}" if end else f"{text[:_LONGEST]}..."


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks; of one that a data loader's worker passed on, its own last line.

    One of the system names the file and what to do.
    """
    if isinstance(error, OSError) and error.strerror and error.errno in _MEND:
        name = "" if error.filename is None else os.fsdecode(error.filename)
        shown = name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}...{name[-_LONGEST // 2 :]}"
        named = f"{' '.join(shown.split())}: " if shown else ""
        return f"{named}{error.strerror.lower()}; {_MEND[error.errno]}"
    text = str(error).strip()
    if "Original Traceback" in text:
        text = re.sub(r"^[\w.]+: ", "", text.splitlines()[-1])
    return " ".join(text.split())
