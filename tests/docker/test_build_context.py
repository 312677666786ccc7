"""Only what .dockerignore lets in can get into an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from prichexy_testing.rehearsal.context import BuildContext, IgnoreRules, read_context

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("rules", "path", "outside"),
    [
        ("a", "a", True),
        ("a", "a/b/c", True),
        ("a", "b/a", False),
        ("a/", "a/b", True),
        ("*.md", "x.md", True),
        ("*.md", "docs/x.md", False),
        ("**/*.md", "docs/deep/x.md", True),
        ("**/*.md", "x.md", True),
        ("a/**", "a/b/c", True),
        ("?", "ab", False),
        ("*\n!a", "a/b", False),
        ("*\n!a\na/secret", "a/secret", True),
        ("*\n!a/", "b", True),
        ("# a\n\n  a  ", "a", True),
        ("a.b", "axb", False),
    ],
)
def test_the_last_pattern_that_fits_decides(rules: str, path: str, outside: bool) -> None:
    assert IgnoreRules.parse(rules).ignored(path) is outside


@pytest.fixture
def context(tmp_path: Path) -> BuildContext:
    for path in ("keep/a.py", "keep/deep/b.py", "keep/__pycache__/a.pyc", "drop/c.py", ".git/d"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path, encoding="utf-8")
    (tmp_path / ".dockerignore").write_text("*\n!keep/\n**/__pycache__\n", encoding="utf-8")
    return read_context(tmp_path)


def test_the_context_holds_what_is_let_in_and_nothing_else(context: BuildContext) -> None:
    assert context.files == ("keep/a.py", "keep/deep/b.py")


def test_a_folder_gives_its_content_and_a_file_its_name(context: BuildContext) -> None:
    assert context.below("keep/") == {"keep/a.py": "a.py", "keep/deep/b.py": "deep/b.py"}
    assert context.below("keep/a.py") == {"keep/a.py": "a.py"}
    assert context.below("drop") == {}


def test_the_digest_changes_with_content_mode_and_name(context: BuildContext) -> None:
    seen = {context.digest(["keep"])}
    file = context.root / "keep/a.py"
    file.write_text("other", encoding="utf-8")
    seen.add(context.digest(["keep"]))
    file.chmod(0o700)
    seen.add(context.digest(["keep"]))
    file.rename(context.root / "keep/c.py")
    seen.add(read_context(context.root).digest(["keep"]))
    assert len(seen) == 4


def test_no_secret_and_no_tool_output_of_this_checkout_is_in_its_context() -> None:
    files = read_context(REPO).files
    allowed = {
        "docker",
        "gateway",
        "model",
        "orthanc-config",
        "plugin",
        "requirements",
        "train",
        "worker",
    }
    allowed |= {"LICENSE", "README.md", "pyproject.toml", "setup.cfg", "script"}
    assert {file.split("/")[0] for file in files} <= allowed
    assert not [file for file in files if "__pycache__" in file or file.endswith(".egg-info")]
    ignored = IgnoreRules.parse((REPO / ".dockerignore").read_text(encoding="utf-8"))
    assert ignored.ignored("docker/secrets/pseudonym_key")
    assert ignored.ignored(".gateway/secrets/admin.password")
