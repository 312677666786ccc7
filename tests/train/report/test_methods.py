"""Methods have words, an order, and at most one published row to stand beside."""

from __future__ import annotations

from typing import Any

import pytest

from prichexy_train.records import MethodOf
from prichexy_train.report.methods import described
from prichexy_train.report.published import published

DEFORMATION = {"kind": "deformation", "size": 256, "mu_coarse": 0.0, "cells": 8}


def method(name: str, **settings: Any) -> MethodOf:
    return MethodOf(name=name, settings=settings)


@pytest.mark.parametrize(
    ("of", "label"),
    [
        (method("real"), "Real images"),
        (method("privacy-net", kind="privacy-net", size=256), "Privacy-Net"),
        (method("dp-pix:b=4", b=4, eps=0.1), "DP-Pix b = 4"),
        (method("dp-pix:b=4,eps=1", b=4, eps=1.0), "DP-Pix b = 4, ε = 1"),
        (
            method("random:mu=0.01", mu=0.01, border="corrected", coarseness=1),
            "Random deformation μ = 0.01",
        ),
        (
            method("random:mu=0.01,coarseness=8", mu=0.01, border="corrected", coarseness=8),
            "Random deformation μ = 0.01, coarseness 8",
        ),
        (
            method("prichexy-net:mu=0.005", mu=0.005, border="corrected", **DEFORMATION),
            "PriCheXy-Net μ = 0.005",
        ),
        (
            method("prichexy-net:mu=0.01,border=paper", mu=0.01, border="paper", **DEFORMATION),
            "PriCheXy-Net μ = 0.01, paper’s operator",
        ),
        (method("newcomer:x=1", x=1), "newcomer:x=1"),
    ],
)
def test_a_method_is_called_by_what_tells_it_apart(of: MethodOf, label: str) -> None:
    assert described(of).label.replace("\N{NO-BREAK SPACE}", " ") == label


def test_methods_stand_in_the_order_of_family_operator_and_strength() -> None:
    listed = [
        method("real"),
        method("dp-pix:b=2", b=2),
        method("dp-pix:b=8", b=8),
        method("random:mu=0.01", mu=0.01),
        method("prichexy-net:mu=0.005,border=paper", mu=0.005, border="paper"),
        method("prichexy-net:mu=0.01,border=paper", mu=0.01, border="paper"),
        method("prichexy-net:mu=0.005", mu=0.005, border="corrected"),
        method("newcomer:mu=0.001", mu=0.001),
    ]
    mixed = listed[3:] + listed[:3]
    ordered = sorted(mixed, key=lambda one: described(one).order)
    assert [one.name for one in ordered] == [one.name for one in listed]


def test_published_figures_stand_beside_the_same_family_and_strength() -> None:
    def found(of: MethodOf) -> float | None:
        row = published().of(described(of))
        return row and row.verification.mean

    deformation = {**DEFORMATION, "mu": 0.01}
    by_paper = found(method("prichexy-net:mu=0.01", **deformation, border="paper"))
    corrected = found(method("prichexy-net:mu=0.01", **deformation, border="corrected"))
    assert by_paper is not None
    assert by_paper == corrected
    assert found(method("prichexy-net:mu=0.03", **{**deformation, "mu": 0.03})) is None
    assert found(method("random:mu=0.01", mu=0.01)) is None
    coarse = {**deformation, "mu_coarse": 0.05}
    assert found(method("prichexy-net:mu=0.01,coarse=0.05", **coarse)) is None


def test_every_published_row_has_a_method_of_ours() -> None:
    ours = [
        method("real"),
        method("privacy-net", kind="privacy-net"),
        *(method("prichexy-net", mu=mu, border="paper") for mu in (0.001, 0.005, 0.01)),
        *(method("dp-pix", b=cell, eps=0.1) for cell in (1, 2, 4, 8)),
    ]
    rows = [published().of(described(one)) for one in ours]
    assert [id(row) for row in rows] == [id(row) for row in published().rows]
