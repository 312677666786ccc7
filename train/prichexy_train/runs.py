"""The folder of a run: what it was told, what it did, where it stands, what came of it."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel
from torch import Tensor

from prichexy_train.checkpoints import load_checkpoint, save_checkpoint, write_whole
from prichexy_train.errors import Damaged, Failed, Misconfigured
from prichexy_train.locks import held, made_exclusive
from prichexy_train.parallel import broadcast, this_process
from prichexy_train.settings import changeable_keys, flat
from prichexy_train.toml_text import toml_text

__all__ = ["RunFolder", "load_best", "origin"]

_LOCK: Final = ".lock"
#: Held while one of several processes writes what they all have.
_TURN: Final = ".turn"
#: What a result may depend on.
_LIBRARIES: Final = ("torch", "monai", "numpy", "pytorch-ignite", "scikit-learn")


class RunFolder:
    """A run's files.

    ``settings.toml``    the settings, complete
    ``provenance.json``  seed, code, data, libraries, device, times: one entry a start
    ``history.jsonl``    one line an epoch
    ``checkpoint.pt``    where the run stands, exactly
    ``best.pt``          the networks of the best validation, as state dictionaries
    ``result.json``      what came of it; there when the run is finished
    ``tensorboard/``     the same history, for TensorBoard

    Under torchrun only the first process writes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.settings_file = self.path / "settings.toml"
        self.provenance_file = self.path / "provenance.json"
        self.history_file = self.path / "history.jsonl"
        self.checkpoint_file = self.path / "checkpoint.pt"
        self.best_file = self.path / "best.pt"
        self.result_file = self.path / "result.json"
        self.tensorboard = self.path / "tensorboard"

    @property
    def finished(self) -> bool:
        """Whether the run has a result."""
        return self.result_file.is_file()

    def result(self) -> dict[str, Any]:
        """Give the result of a finished run. Raises Damaged when it cannot be read."""
        return _read_json(self.result_file)

    def settings(self) -> dict[str, Any]:
        """Give the settings of the run, as tables. Raises Damaged when they cannot be read."""
        try:
            return tomllib.loads(self.settings_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Damaged(f"{self.settings_file}: cannot be read: is this a run?") from error

    def provenance(self) -> dict[str, Any]:
        """Give the run's provenance. Raises Damaged when it cannot be read."""
        return _read_json(self.provenance_file)

    def history(self) -> list[dict[str, Any]]:
        """Give what each epoch came to; empty before the first. Raises Damaged."""
        if not self.history_file.exists():
            return []
        try:
            text = self.history_file.read_text(encoding="utf-8")
            return [json.loads(line) for line in text.splitlines()]
        except (OSError, ValueError) as error:
            raise Damaged(f"{self.history_file}: cannot be read") from error

    @contextmanager
    def claimed(
        self,
        stage: str,
        settings: BaseModel,
        *,
        data: Mapping[str, str],
        seed: int,
        device: str,
        held_back: Mapping[str, str] | None = None,
        together: bool = False,
    ) -> Iterator[None]:
        """Within the block, the folder is this run's: made or taken up again, and locked.

        ``together``: other processes may be at the same run, which shares out what is to do.

        ``data`` names what the run reads, each with its digest; ``held_back``, by set, the test
        images that it does not learn from: see ``unseen``. A new run that fails before its first
        checkpoint leaves its folder free, so that it can be begun with better settings.

        Raises InUse when another process works in the folder, Failed when it cannot be made, and
        Misconfigured when it holds a run of another stage, with other settings or on other data;
        the text names what differs. Under torchrun the first process raises it, and the others
        end with its exit code.
        """
        if not this_process().first:
            if code := broadcast(None):
                raise SystemExit(code)
            yield
            return
        start = {"device": device, **origin()}
        with ExitStack() as stack:
            try:
                lock = stack.enter_context(held(self.path / _LOCK, together=together))
                with self._turn():
                    new = not self.settings_file.exists()
                    self._check(stage, settings, data)
                    self._write_start(stage, settings, data, held_back or {}, seed, start)
            except Failed as error:
                broadcast(2 if isinstance(error, Misconfigured) else 1)
                raise
            broadcast(0)
            try:
                yield
            except BaseException:
                if new and made_exclusive(lock):
                    self._forget_a_start()
                raise

    def _turn(self) -> AbstractContextManager[Any]:
        """Wait until no other process writes settings, provenance or result, then keep it so."""
        return held(self.path / _TURN, wait=True)

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Put ``history`` in place of the file's."""
        lines = "".join(json.dumps(line) + "\n" for line in history)
        write_whole(self.history_file, lines.encode())

    def finish(self, result: Mapping[str, Any], *, seconds: float) -> None:
        """Write the result, and with it the end; ``seconds`` are those of all starts together."""
        if not this_process().first:
            return
        with self._turn():
            provenance = self.provenance()
            provenance |= {"ended": _now(), "seconds": round(seconds, 1)}
            _write_json(self.provenance_file, provenance)
            _write_json(self.result_file, result)

    def save_best(self, networks: Mapping[str, Mapping[str, Tensor]], **words: Any) -> None:
        """Write the networks of the best validation so far."""
        save_checkpoint(self.best_file, {"networks": dict(networks), **words})

    def _check(self, stage: str, settings: BaseModel, data: Mapping[str, str]) -> None:
        if not self.settings_file.exists():
            return
        there = self.provenance()
        if there["stage"] != stage:
            raise Misconfigured(f"{self.path}: holds a run of {there['stage']}, not of {stage}")
        before, now = flat(self.settings()), flat(_plain(settings))
        for key in sorted((set(before) | set(now)) - changeable_keys(settings)):
            if before.get(key) != now.get(key):
                raise Misconfigured(
                    f"{self.settings_file}: {key} is {before.get(key)} there and {now.get(key)} "
                    "now; use another --run folder, or the settings of this one"
                )
        for name in sorted(set(there["data"]) | set(data)):
            if there["data"].get(name) != data.get(name):
                raise Misconfigured(f"{self.path}: was begun on other data: {name} differs")

    def _forget_a_start(self) -> None:
        """Remove what ``claimed`` wrote, unless more than curves without a point came of it."""
        with suppress(OSError):  # the error that ended the run matters more
            locks = {self.path / _LOCK, self.path / _TURN}
            ours = {self.settings_file, self.provenance_file, self.tensorboard, *locks}
            if set(self.path.iterdir()) <= ours:
                self.settings_file.unlink()
                self.provenance_file.unlink()
                shutil.rmtree(self.tensorboard, ignore_errors=True)

    def _write_start(
        self,
        stage: str,
        settings: BaseModel,
        data: Mapping[str, str],
        held_back: Mapping[str, str],
        seed: int,
        start: Mapping[str, Any],
    ) -> None:
        provenance: dict[str, Any] = {
            "stage": stage,
            "seed": seed,
            "data": dict(data),
            "started": _now(),
            "starts": [],
        }
        if self.provenance_file.exists():
            provenance = self.provenance()
        # The data are those of the first start, so this is true of a run begun without it, too.
        new = bool(held_back) and provenance.get("held_back") != dict(held_back)
        if held_back:
            provenance["held_back"] = dict(held_back)
        if self.finished:
            if new:
                _write_json(self.provenance_file, provenance)
            return
        provenance["starts"].append({"at": _now(), **start})
        # The settings last: a folder with settings has a provenance.
        _write_json(self.provenance_file, provenance)
        write_whole(self.settings_file, toml_text(_plain(settings)).encode())


def load_best(run: str | Path, name: str) -> dict[str, Tensor]:
    """Give the best state dictionary of the network ``name`` of a run, on the CPU.

    Raises Damaged when the run has none yet, or the file is damaged.
    """
    file = RunFolder(run).best_file
    networks = load_checkpoint(file).get("networks", {})
    if name not in networks:
        raise Damaged(f"{file}: holds no {name}, but {', '.join(networks) or 'nothing'}")
    found: dict[str, Tensor] = networks[name]
    return found


def origin() -> dict[str, Any]:
    """Give code version, commit, libraries and machine of this process, for a provenance."""
    return {
        "software": metadata.version("prichexy"),
        "commit": _commit(),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": this_process().world,
    }


def _commit() -> str | None:
    """Give the commit of the checkout that this code lies in, or was packed from, else None."""
    here = Path(__file__).resolve()
    # The file must be one of the repository's: an installed wheel may lie inside another one.
    tracked = _git(here, "ls-files", "--error-unmatch", here.name)
    if tracked:
        return _git(here, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return metadata.distribution("prichexy").read_text("commit") or None


def _git(file: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=file.parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _plain(settings: BaseModel) -> dict[str, Any]:
    # Through TOML, so that what is compared later has been on the same way.
    return tomllib.loads(toml_text(settings.model_dump(mode="json")))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Damaged(f"{path}: cannot be read: is this a run?") from error
    if not isinstance(value, dict):
        raise Damaged(f"{path}: is no JSON object")
    return value


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
