"""The typed stub, the port and the stand-in of the ``orthanc`` module name the same things."""

from __future__ import annotations

import ast
from pathlib import Path

from prichexy_plugin.host import Host, Output
from prichexy_testing.fake_orthanc import Answer, FakeOrthanc

REPO = Path(__file__).resolve().parents[2]


def _stub() -> dict[str, ast.stmt]:
    tree = ast.parse((REPO / "plugin" / "orthanc.pyi").read_text())
    return {
        node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }


def _public(kind: type) -> set[str]:
    names = set(vars(kind)) | set(vars(kind).get("__annotations__", {}))
    return {name for name in names if name[0].isupper()}


def test_the_stub_and_the_port_agree() -> None:
    assert set(_stub()) - {"RestOutput"} == _public(Host)
    output = _stub()["RestOutput"]
    assert isinstance(output, ast.ClassDef)
    assert {node.name for node in output.body if isinstance(node, ast.FunctionDef)} == (
        _public(Output)
    )


def test_the_stand_in_has_all_that_the_port_has() -> None:
    assert _public(Host) <= set(dir(FakeOrthanc))
    assert _public(Output) <= set(dir(Answer))
    for name in ("ChangeType", "ErrorCode", "HttpMethod"):
        group = _stub()[name]
        assert isinstance(group, ast.ClassDef)
        members = {
            node.target.id
            for node in group.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        assert members == set(vars(getattr(FakeOrthanc, name)))
