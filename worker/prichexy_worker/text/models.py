"""Loads the models that find and read text: PP-OCR, of rapidocr's wheel, on this machine's CPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from prichexy_worker.errors import Misconfigured

if TYPE_CHECKING:
    from rapidocr import RapidOCR

__all__ = ["FAINTEST", "at_full_speed", "load"]

#: The least confidence, 0 to 1, with which the detector outlines something.
FAINTEST: Final = 0.45


@contextmanager
def at_full_speed() -> Iterator[None]:
    """Take numbers below 1.2e-38 for zero while the block runs, in this thread and those it starts.

    Two layers of the detector make many such numbers, which cost a processor a hundred times as
    much as any other: two thirds of a search. What is found is the same. onnxruntime's own option
    works once a process, in the thread that asks first, and stays on there for all else.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def load(threads: int) -> RapidOCR:
    """Give the models, on ``threads`` threads at most; nothing is fetched.

    Raises Misconfigured when a model is not installed.
    """
    # Importing it loads onnxruntime, which only a worker that searches for text needs.
    from rapidocr import RapidOCR  # noqa: PLC0415

    engine = "EngineConfig.onnxruntime"
    loaded = RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_preprocess_img": False,
            f"{engine}.intra_op_num_threads": min(threads, os.cpu_count() or 1),
            f"{engine}.inter_op_num_threads": 1,
            # Without its arena onnxruntime returns memory after every layer: half the speed.
            f"{engine}.enable_cpu_mem_arena": True,
            "Det.model_path": _model("det"),
            "Cls.model_path": _model("cls"),
            "Rec.model_path": _model("rec"),
            # The looks have the right size already.
            "Det.limit_type": "min",
            "Det.limit_side_len": 32,
            "Det.box_thresh": FAINTEST,
        }
    )
    logging.getLogger("RapidOCR").disabled = True
    # A process's first model turns off what ``at_full_speed`` turned on. Models load when they are
    # used first, and this is the smallest.
    loaded(np.zeros((32, 64, 3), np.uint8), use_det=False, use_cls=True, use_rec=False)
    return loaded


def _model(kind: str) -> str:
    """Give the path of the one model file of this kind in rapidocr's wheel: it fetches no other."""
    folder = Path(str(resources.files("rapidocr"))) / "models"
    found = sorted(folder.glob(f"*_{kind}_*.onnx"))
    if len(found) != 1:
        raise Misconfigured(
            f"the text search needs one {kind} model of rapidocr, and {len(found)} are installed: "
            "reinstall rapidocr"
        )
    return str(found[0])
