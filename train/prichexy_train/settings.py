"""What a run is told: TOML files, read strictly into frozen values."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from prichexy_train.errors import Misconfigured

__all__ = [
    "RANDOM_WEIGHTS",
    "Device",
    "ImageNetWeights",
    "Precision",
    "Section",
    "Training",
    "changeable_keys",
    "flat",
    "read_change",
    "read_settings",
]

Precision = Literal["float32", "bfloat16"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]

#: What stands in a configuration, or in a run's provenance, for weights drawn at random.
RANDOM_WEIGHTS: Final = "none"


def _weights(value: Any) -> Any:
    if value == "":
        raise ValueError(
            "must be given: a file of ImageNet weights, or "
            f'"{RANDOM_WEIGHTS}" for random ones, which learn far less from as many images'
        )
    return None if value == RANDOM_WEIGHTS else value


#: The file of ImageNet weights that a backbone begins with; None, and "none" in a file: random
#: ones. A file with "" leaves the choice to who uses it, and is refused until it is made.
ImageNetWeights = Annotated[Path | None, BeforeValidator(_weights)]


class Section(BaseModel):
    """A table of a configuration file: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    #: Keys of this table that say how a run computes and not what: they may differ when a run
    #: is taken up again.
    changeable: ClassVar[frozenset[str]] = frozenset()
    #: Keys that this table has not had from the beginning. At its default such a key is left out
    #: wherever settings are written or compared: a run of before is then the same run.
    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        for key in self.later:
            if getattr(self, key) == type(self).model_fields[key].default:
                values.pop(key, None)
        return values


class Training(Section):
    """How a network is trained: the table ``[training]`` of each stage.

    Sizes count the images or pairs of one step over all processes together.
    """

    changeable: ClassVar[frozenset[str]] = frozenset(
        {"device", "cache_on_device", "checkpoint_seconds", "compile"}
    )

    #: All randomness of a run follows from it.
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    #: Images or pairs in a step.
    batch_size: Annotated[int, Field(ge=1)] = 32
    #: The most epochs a run takes.
    epochs: Annotated[int, Field(ge=1)] = 100
    #: Epochs without a better validation before the run ends; left out: it never ends early.
    patience: Annotated[int, Field(ge=1)] | None = None
    #: The most steps an epoch takes; left out: as many as the data give.
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    #: For "sgd" only.
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    #: The largest norm of a network's gradient; left out: not limited.
    gradient_clip: Annotated[float, Field(gt=0)] | None = None
    #: "cosine" falls to 0 over all epochs; "plateau" falls by ``plateau_factor`` after
    #: ``plateau_patience`` epochs without a better validation.
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    #: Epochs, also in parts, over which the learning rate first rises from 0.
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    plateau_patience: Annotated[int, Field(ge=0)] = 1

    #: "bfloat16": matrix products and convolutions in 8 bits of precision, weights in float32.
    precision: Precision = "float32"
    #: In which precision the weights of the best epoch are kept. "float16" halves what has to be
    #: carried and is what bundles hold, so that what is measured is what ships.
    kept: Literal["float32", "float16"] = "float32"
    channels_last: bool = True
    #: Compile the networks: minutes at the start, for faster steps on a GPU.
    compile: bool = False
    device: Device = "auto"
    #: Hold all images in the GPU's memory when they fit; without effect on a CPU.
    cache_on_device: bool = True
    #: Seconds between two checkpoints within an epoch; each epoch ends with one, too.
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 300.0


Settings = TypeVar("Settings", bound=BaseModel)

#: In plain words, by pydantic's name of the mistake.
_PLAINLY: Final = {
    "extra_forbidden": "there is no such setting here (is the file another stage's?)",
    "missing": "is missing",
}


def read_settings(
    path: str | Path, model_class: type[Settings], changes: Sequence[str] = ()
) -> Settings:
    """Give the settings in the TOML file at ``path``, with ``changes`` of the form key=value.

    A change's key is dotted, as in ``training.epochs=3``; its value is read as TOML and, where
    that fails, taken as text. Raises Misconfigured, naming the file and the key.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path}: is not TOML: {error}") from error
    for change in changes:
        _change(values, change)
    try:
        return model_class.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'the file'}: "
            f"{_PLAINLY.get(problem['type'], problem['msg'].removeprefix('Value error, '))}"
            for problem in error.errors()
        )
        raise Misconfigured(f"{path}: {wrong}") from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested tables as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def changeable_keys(settings: BaseModel) -> frozenset[str]:
    """Give the dotted keys that may differ when a run is taken up again."""
    return frozenset(_changeable(settings, ""))


def _changeable(settings: BaseModel, prefix: str) -> Iterator[str]:
    if isinstance(settings, Section):
        yield from (f"{prefix}{key}" for key in settings.changeable)
    for key in type(settings).model_fields:
        value = getattr(settings, key)
        if isinstance(value, BaseModel):
            yield from _changeable(value, f"{prefix}{key}.")


def read_change(change: str) -> tuple[str, Any]:
    """Give a change's dotted key and its value. Raises Misconfigured."""
    key, equals, text = change.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise Misconfigured(f"--set {change}: not of the form key=value")
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        read = {"value": text}
    if len(read) > 1:
        raise Misconfigured(f"--set {key}: is more than one value")
    return key, read["value"]


def _change(values: dict[str, Any], change: str) -> None:
    key, value = read_change(change)
    *tables, last = key.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise Misconfigured(f"--set {change}: {table} is no table")
    values[last] = value
