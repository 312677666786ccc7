"""The page stands alone, can be read without seeing it, and holds no figure but the records'."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

from prichexy_testing.made_up_runs import (
    CORRECTED,
    PAPER,
    PAPERS_ATTACK,
    REAL,
    STRONG,
    MadeUp,
    set_summaries,
    table_of_runs,
)
from prichexy_train.report.evidence import gather
from prichexy_train.report.page import compose, write_page

VOID = {"meta", "img", "link", "br", "hr", "input", "use", "path"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> list[Element]:
        found = [self] if self.tag == tag else []
        return found + [one for child in self.children for one in child.all(tag)]

    @property
    def words(self) -> str:
        return " ".join([self.text, *(child.words for child in self.children)])


class Tree(HTMLParser):
    """What a page says; an element that is not closed is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("root", {})
        self._open = [self.root]
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert len(self._open) == 1, f"never closed: {[one.tag for one in self._open[1:]]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if "id" in element.attributes:
            self.ids.append(element.attributes["id"])
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].text += data


@dataclass(frozen=True)
class Written:
    html: str
    markdown: str
    tree: Tree


def written(made_up: MadeUp) -> Written:
    page = compose(gather(made_up.folder), "A made-up experiment", sets=set_summaries())
    html, markdown = write_page(page, made_up.folder.parent / "report")
    text = html.read_text(encoding="utf-8")
    return Written(text, markdown.read_text(encoding="utf-8"), Tree(text))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written(table_of_runs(tmp_path_factory.mktemp("whole") / "runs"))


def main_rows(page: Written) -> dict[str, list[str]]:
    """The first table: what each row's header says, and each cell."""
    table = page.tree.root.all("table")[0]
    return {
        row.all("th")[0].words.replace("\N{NO-BREAK SPACE}", " "): [
            cell.words.strip() for cell in row.all("td")
        ]
        for row in table.all("tbody")[0].all("tr")
    }


def test_nothing_is_fetched_and_nothing_runs(whole: Written) -> None:
    root = whole.tree.root
    for tag in ("script", "link", "iframe", "object", "embed", "base", "form"):
        assert not root.all(tag)
    assert not re.search(r"https?:|url\((?!#)|@import|javascript:|\son\w+=", whole.html)
    for image in root.all("img"):
        assert image.attributes["src"].startswith("data:")
    for link in root.all("a"):
        assert link.attributes["href"].startswith("#")
        assert link.attributes["href"][1:] in whole.tree.ids
    policy = root.all("meta")[2].attributes["content"]
    assert policy.startswith("default-src 'none'")


def test_every_identifier_is_there_once(whole: Written) -> None:
    assert len(whole.tree.ids) == len(set(whole.tree.ids))
    for name in re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', whole.html):
        assert name in whole.tree.ids


def test_tables_say_what_their_cells_belong_to(whole: Written) -> None:
    tables = whole.tree.root.all("table")
    assert len(tables) >= 7
    for table in tables:
        assert table.all("caption")[0].words.strip()
        heads = table.all("thead")[0].all("th")
        assert all(head.attributes["scope"] == "col" for head in heads)
        for row in table.all("tbody")[0].all("tr"):
            assert row.children[0].attributes["scope"] == "row"
            assert len(row.children) == len(heads)


def test_every_plot_is_told_in_words(whole: Written) -> None:
    drawings = whole.tree.root.all("svg")
    # The trade-off, a curve a method, and three curves for each of two trainings.
    assert len(drawings) == 1 + 5 + 2 * 2
    for drawing in drawings:
        assert drawing.attributes["aria-hidden"] == "true"
    told = [one for one in whole.tree.root.all("div") if one.attributes.get("role") == "img"]
    assert len(told) == len(drawings)
    assert all(len(one.attributes["aria-label"]) > 20 for one in told)
    trade_off = told[0].attributes["aria-label"]
    assert "Real images: strongest attack" in trade_off


def test_plots_take_the_colours_of_the_page(whole: Written) -> None:
    style = whole.tree.root.all("style")
    assert len(style) == 1  # one of a drawing's own would hold for the whole page
    assert "prefers-color-scheme: dark" in style[0].text
    drawn = "".join(re.findall(r"<svg.*?</svg>", whole.html, re.DOTALL))
    for variable in set(re.findall(r"var\((--[\w-]+)\)", drawn)):
        assert f"{variable}:" in style[0].text
    assert not re.search(r"#0a0[bc]\d\d", drawn)
    assert not re.search(r"fill: #\w+|stroke: #(?!000000; stroke-opacity: 0\b)", drawn)


def test_a_row_holds_what_was_recorded(table_of_runs: MadeUp) -> None:
    record = table_of_runs.folder / "utility-d-corrected" / "records" / "utility.json"
    told = json.loads(record.read_text())
    told |= {"auc": 0.123, "interval": [0.101, 0.145]}
    record.write_text(json.dumps(told))
    page = written(table_of_runs)
    row = main_rows(page)["PriCheXy-Net μ = 0.01"]
    assert "12.3 [10.1, 14.5]" in re.sub(r"\s+", " ", row[5])
    assert "12.3" in page.markdown


def test_the_papers_attack_is_a_mean_over_seeds(whole: Written, tmp_path: Path) -> None:
    made_up = MadeUp(tmp_path / "runs")
    made_up.attack(REAL, PAPERS_ATTACK, 1.0)
    aucs = [
        json.loads(file.read_text())["auc"] for file in made_up.folder.glob("**/records/*.json")
    ]
    mean = sum(aucs) / 3
    deviation = (sum((one - mean) ** 2 for one in aucs) / 2) ** 0.5
    cell = main_rows(written(made_up))["Real images"][0]
    assert cell.startswith(f"{100 * mean:.1f} ± {100 * deviation:.1f}")
    assert "3 seeds" in cell


def test_every_attack_stands_in_the_ladder_those_that_count_first(whole: Written) -> None:
    table = next(
        one for one in whole.tree.root.all("table") if "every attack" in one.all("caption")[0].words
    )
    names = [row.all("th")[0].words for row in table.all("tbody")[0].all("tr")]
    assert names == [
        "1. fresh anonymised",
        "3. strong frozen",
        "7. metadata (no image; not in the maximum)",
        "shuffled identities (control; not in the maximum)",
    ]
    bold = [
        [bool(cell.all("b")) for cell in row.all("td")] for row in table.all("tbody")[0].all("tr")
    ]
    assert [sum(column) for column in zip(*bold, strict=True)] == [1] * 5
    assert not any(bold[2]) and not any(bold[3])


def test_published_figures_are_marked_and_only_they(whole: Written) -> None:
    table = whole.tree.root.all("table")[0]
    heads = table.all("thead")[0].all("th")
    marked = ["Published" in head.words for head in heads]
    assert sum(marked) == 2
    for head, published in zip(heads, marked, strict=True):
        assert ("printed" in head.attributes.get("class", "")) == published
    rows = main_rows(whole)
    assert rows["PriCheXy-Net μ = 0.01, paper’s operator"][-2] == "57.7 ± 4.0"
    assert rows["PriCheXy-Net μ = 0.01"][-2].endswith("other operator")
    assert rows["Random deformation μ = 0.01"][-2] == "–"
    assert "MICCAI 2023" in whole.tree.root.all("footer")[0].words


def test_no_published_column_where_nothing_was_published(made_up: MadeUp) -> None:
    other = CORRECTED.model_copy(
        update={"name": "prichexy-net:mu=0.05", "settings": {**CORRECTED.settings, "mu": 0.05}}
    )
    made_up.attack(other, STRONG, 1.0)
    assert "Published" not in main_rows(written(made_up))
    assert "Published" not in written(made_up).tree.root.all("table")[0].words


def test_markdown_has_the_same_rows(whole: Written) -> None:
    for table in whole.tree.root.all("table"):
        caption = table.all("caption")[0].words.strip()
        assert f"**{caption}**" in whole.markdown.replace("\\", "")
    for name, cells in main_rows(whole).items():
        line = next(
            line
            for line in whole.markdown.replace("\N{NO-BREAK SPACE}", " ").splitlines()
            if line.startswith(f"| {name} |")
        )
        for cell in cells:
            assert cell.split()[0] in line


def test_markdown_names_no_examples_where_there_are_none(whole: Written) -> None:
    assert 'id="examples"' not in whole.html
    assert "\nPlots are in `report.html`.\n" in whole.markdown


def test_names_are_text_and_never_markup(made_up: MadeUp) -> None:
    wicked = MadeUp(made_up.folder)
    method = PAPER.model_copy(update={"name": "<b>bold|er</b>_x_", "digest": "d-wicked"})
    wicked.attack(method, STRONG, 1.0)
    page = written(wicked)
    assert "<b>bold" not in page.html
    assert "&lt;b&gt;bold|er" in page.html
    assert r"\<b>bold\|er\</b>\_x\_" in page.markdown


def test_an_unfinished_run_makes_an_interim_report(whole: Written, made_up: MadeUp) -> None:
    assert "interim" not in whole.html
    made_up.attack(REAL, STRONG, 1.0)
    made_up.run("late", finished=False)
    page = written(made_up)
    (warning,) = [one for one in page.tree.root.all("div") if one.attributes.get("role") == "note"]
    assert "late" in warning.words
    assert "interim" in page.markdown


def test_hours_machine_and_versions_are_told(whole: Written) -> None:
    words = re.sub(r"\s+", " ", whole.tree.root.all("main")[0].words)
    assert "3.0 h on made-up CPU" in words
    assert "0.1.0 at c0ffee" in words
    assert "torch 2.9" in words
    assert "3 unreadable images" in words


def test_the_same_records_give_the_same_page(made_up: MadeUp) -> None:
    made_up.attack(REAL, STRONG, 1.0)
    made_up.utility(REAL, 0.8)
    made_up.run("verifier")
    assert written(made_up).html == written(made_up).html
