"""Weights on disk: nothing is read before its digest fits, and nothing but tensors ever."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from prichexy_model.weights import WeightsError, load_weights, save_weights


def tensors() -> dict[str, torch.Tensor]:
    return {
        "conv.weight": torch.linspace(-2, 2, 24).reshape(2, 3, 4),
        "norm.running_var": torch.tensor([0.5, 60000.0]),
        "norm.num_batches_tracked": torch.tensor(2**40 + 1),
    }


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def written(path: Path, content: object) -> str:
    torch.save(content, path)
    return digest_of(path)


def test_what_is_saved_comes_back_as_float32_to_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    digest = save_weights(path, tensors())
    loaded = load_weights(path, digest)
    assert list(loaded) == list(tensors())
    for name, value in tensors().items():
        if value.is_floating_point():
            assert loaded[name].dtype == torch.float32
            assert torch.equal(loaded[name], value.half().float())
        else:
            assert torch.equal(loaded[name], value)


def test_the_file_holds_half_precision_and_a_view_does_not_drag_its_storage_along(
    tmp_path: Path,
) -> None:
    whole = torch.zeros(1_000_000)
    save_weights(tmp_path / "model.pt", {"part": whole[:1000]})
    assert (tmp_path / "model.pt").stat().st_size < 4000


def test_the_digest_given_is_that_of_the_file_and_does_not_depend_on_its_name(
    tmp_path: Path,
) -> None:
    first = save_weights(tmp_path / "model.pt", tensors())
    second = save_weights(tmp_path / "other-name.bin", tensors())
    assert first == second == digest_of(tmp_path / "model.pt")


def test_memory_format_and_gradients_do_not_change_the_file(tmp_path: Path) -> None:
    plain = torch.rand(4, 3, 5, 5)
    odd = plain.clone().to(memory_format=torch.channels_last).requires_grad_()
    assert save_weights(tmp_path / "a", {"w": plain}) == save_weights(tmp_path / "b", {"w": odd})


def test_a_changed_byte_is_refused_before_torch_sees_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt"
    digest = save_weights(path, tensors())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    def never(*_: Any, **__: Any) -> None:
        pytest.fail("torch.load was called")

    monkeypatch.setattr(torch, "load", never)
    with pytest.raises(WeightsError, match="SHA-256"):
        load_weights(path, digest)


@pytest.mark.parametrize("digest", ["", "0" * 63, "A" * 64, "z" * 64, "0" * 64 + "\n"])
def test_something_that_is_no_digest_is_refused(tmp_path: Path, digest: str) -> None:
    save_weights(tmp_path / "model.pt", tensors())
    with pytest.raises(WeightsError, match="no valid SHA-256"):
        load_weights(tmp_path / "model.pt", digest)


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.target),)


# Torch says so when it meets a pickle that it did not write itself.
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_a_pickled_object_is_refused_and_not_run_even_with_a_right_digest(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "model.pt"
    digest = written(path, {"w": Harmful(str(trace))})
    with pytest.raises(WeightsError, match="safely"):
        load_weights(path, digest)
    path.write_bytes(pickle.dumps(Harmful(str(trace))))
    with pytest.raises(WeightsError, match="safely"):
        load_weights(path, digest_of(path))
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="safely"):
        load_weights(path, digest_of(path))


@pytest.mark.parametrize(
    "content",
    [{}, [torch.zeros(1)], torch.zeros(1), {"w": 1.0}, {1: torch.zeros(1)}, {"w": {"v": 1}}],
    ids=["empty", "a list", "a tensor", "a number", "a numbered tensor", "nested"],
)
def test_what_is_no_state_dictionary_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(WeightsError, match="holds"):
        load_weights(path, written(path, content))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused_by_its_name(tmp_path: Path, value: float) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(WeightsError, match=r"conv\.weight"):
        load_weights(path, written(path, {"conv.weight": torch.tensor([1.0, value])}))


@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_a_value_that_half_precision_cannot_hold_is_not_saved(tmp_path: Path, value: float) -> None:
    with pytest.raises(WeightsError, match="half precision"):
        save_weights(tmp_path / "model.pt", {"w": torch.tensor([value])})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.pt: cannot be read"):
        load_weights(tmp_path / "model.pt", "0" * 64)


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "model.pt").mkdir()
    with pytest.raises(WeightsError, match="cannot be written"):
        save_weights(tmp_path / "model.pt", tensors())
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    with pytest.raises(WeightsError, match="cannot be written"):
        save_weights(tmp_path / "absent" / "model.pt", tensors())
