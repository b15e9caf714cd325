"""What lies on a claim, read from outside of the pods that write it."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hack.kube.kubectl import Kubectl


class Folder(Protocol):
    """A folder on a claim."""

    def __truediv__(self, name: str) -> Folder: ...

    def holds(self, name: str) -> bool:
        """Whether there is a file `name`."""
        ...

    def read(self, name: str) -> str:
        """The text of the file `name`.

        Raises:
            OSError, ControlPlaneError: it is not there, or nobody can be asked.
        """
        ...

    def found(self, pattern: str) -> dict[str, int]:
        """Inodes of all that matches, hidden files too, by path from here; sorted by it."""
        ...

    def fill(self, source: Path) -> None:
        """Copy what is in `source` of this machine to here."""
        ...

    def copy_to(self, target: Path) -> None:
        """Copy what is here to the new folder `target` of this machine, without what begins with a dot."""
        ...


@dataclass(frozen=True)
class FolderHere:
    """One that this machine sees: a cluster made here has its volumes here."""

    path: Path

    def __truediv__(self, name: str) -> FolderHere:
        return FolderHere(self.path / name)

    def holds(self, name: str) -> bool:
        return (self.path / name).is_file()

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def found(self, pattern: str) -> dict[str, int]:
        return listing(str(self.path), pattern)

    def fill(self, source: Path) -> None:
        shutil.copytree(source, self.path, dirs_exist_ok=True)

    def copy_to(self, target: Path) -> None:
        shutil.copytree(self.path, target, ignore=shutil.ignore_patterns(".*"))


@dataclass(frozen=True)
class FolderInPod:
    """One that only a pod sees, which has the trainer's image and sleeps."""

    kubectl: Kubectl
    namespace: str
    pod: str
    path: str

    def __truediv__(self, name: str) -> FolderInPod:
        return FolderInPod(self.kubectl, self.namespace, self.pod, f"{self.path}/{name}")

    def holds(self, name: str) -> bool:
        return name in self.found(name)

    def read(self, name: str) -> str:
        return self._run("cat", f"{self.path}/{name}")

    def found(self, pattern: str) -> dict[str, int]:
        imports, answer = "import json, sys\nfrom pathlib import Path", "print(json.dumps(listing(*sys.argv[1:])))"
        code = f"{imports}\n{inspect.getsource(listing)}\n{answer}"
        found: dict[str, int] = json.loads(self._run("python3", "-c", code, self.path, pattern))
        return found

    def fill(self, source: Path) -> None:
        self.kubectl("cp", f"{source}/.", f"{self.namespace}/{self.pod}:{self.path}")

    def copy_to(self, target: Path) -> None:
        target.mkdir(parents=True)
        for name in self.found("[!.]*"):
            self.kubectl("cp", f"{self.namespace}/{self.pod}:{self.path}/{name}", target / name)

    def _run(self, *command: str) -> str:
        return self.kubectl("exec", "-n", self.namespace, self.pod, "--", *command)


def listing(root: str, pattern: str) -> dict[str, int]:
    """`Folder.found`. As text, it is also run by the Python of a pod."""
    found = {}
    for path in sorted(Path(root).glob(pattern)):
        try:
            found[str(path.relative_to(root))] = path.stat().st_ino
        except OSError:
            continue  # gone since
    return found
