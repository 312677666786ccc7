"""The card of a bundle says of its field what is true of its operator."""

from __future__ import annotations

from typing import Any

import pytest

from prichexy_train.bundle_card import Card, readme
from prichexy_train.bundle_figures import no_figures


def card(**section: Any) -> str:
    run = {
        "stage": "anonymizer",
        "seed": 1,
        "starts": [{"software": "0.1.0", "commit": None, "device": "a CPU"}],
        "best_epoch": 1,
        "sets": {"drawn": "da7a"},
    }
    words = {"evidence": "trained", "statement": "A statement.", "weights_sha256": "0" * 64}
    words |= {"mu": 0.01, "border": "corrected", "input_size": 256} | section
    provenance = {"runs": {"anonymizer": run}}
    return readme(Card("name", "1", words, no_figures(), provenance))


def test_a_corrected_field_is_bounded_everywhere() -> None:
    text = card()
    assert "at most 1.28 pixels along an axis at that size |" in text
    assert "border;" not in text


def test_a_generator_that_sees_less_than_it_is_given_says_so() -> None:
    assert "sees 256 × 256 pixels; " in card()
    assert "sees 256 × 256 pixels (shrunk to 128 × 128); " in card(field_size=128)


def test_a_coarse_field_adds_its_bound() -> None:
    assert "at most 7.65 pixels along an axis" in card(coarse={"mu": 0.05, "cells": 8})


@pytest.mark.parametrize(("size", "bound", "defect"), [(256, "1.28", "81.7"), (32, "0.15", "10.3")])
def test_the_papers_field_is_bounded_inside_and_its_border_is_not(
    size: int, bound: str, defect: str
) -> None:
    text = card(border="paper", input_size=size)
    assert f"at most {bound} pixels along an axis at that size, 4 pixels and more inside" in text
    assert f"a field of zeros already moves pixels by up to {defect} along an axis" in text
