"""What ``prichexy-train prepare`` is told: where the tables are, how to split, which pairs."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from prichexy_train.settings import Section

__all__ = [
    "CHESTXRAY14_LABELS",
    "ChestXray14Source",
    "DrawnPairs",
    "DrawnSplit",
    "FolderSource",
    "Match",
    "OfficialSplit",
    "PairName",
    "PrepareSettings",
    "PublishedPairs",
]

#: The findings of ChestX-ray14, in the order in which its paper lists them.
CHESTXRAY14_LABELS: Final = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)

PairName = Literal["train", "train_all", "val", "test", "test_matched"]
Match = Literal["labels", "view", "sex", "age"]


class ChestXray14Source(Section):
    """ChestX-ray14 as the NIH gives it out: PNG files below folders ``images*``, and tables.

    Every table may also lie there compressed, with ``.gz`` behind its name.
    """

    layout: Literal["chestxray14"]
    #: The folder of the tables, seen from the source.
    tables: str = "."
    table: str = "Data_Entry_2017_v2020.csv"
    train_val_list: str = "train_val_list.txt"
    test_list: str = "test_list.txt"
    #: False: only a part of the images is there; the others, and their pairs, are left out.
    complete: bool = True


class FolderSource(Section):
    """A folder of PNG or JPEG files with one table, ``metadata.csv``.

    The table has the columns ``image`` (the file, seen from the source) and ``patient_id``, and
    where known ``labels`` (with | between them; "No Finding" is none), ``view``, ``sex`` (M, F),
    ``age`` (years) and ``followup`` (a number). Other columns are not read.
    """

    layout: Literal["folder"]
    table: str = "metadata.csv"
    #: The labels to train a classifier for, in the order of its outputs.
    labels: tuple[str, ...] = ()
    #: Where patients were numbered as they came, so that neighbouring numbers may be one person: a
    #: pattern for the whole patient id, with the groups ``series`` and ``number``.
    serial: str | None = None
    #: A table of images that are nearly the same picture, seen from the source: columns
    #: ``image_a`` and ``image_b``, and, where it is about several sets, ``set_a`` and ``set_b``.
    near_duplicates: str | None = None

    @field_validator("serial")
    @classmethod
    def _has_both_groups(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"is no pattern ({error})") from error
        if {"series", "number"} - groups.keys():
            raise ValueError("is no pattern with the groups (?P<series>…) and (?P<number>…)")
        return pattern


class OfficialSplit(Section):
    """ChestX-ray14's own lists; validation is what follows the first ``train_images`` lines."""

    by: Literal["official"]
    train_images: Annotated[int, Field(ge=1)] = 75_708


class DrawnSplit(Section):
    """Patients drawn into parts by ``seed``: shares of those with several images and of the others.

    Patients with nearly the same picture stay together. Where patients carry serial numbers,
    ``block`` numbers in a row stay together, and at the edge between two parts, where two
    neighbours would be on two sides, one of them is left out.
    """

    by: Literal["drawn"]
    seed: Annotated[int, Field(ge=0)] = 1
    val: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    block: Annotated[int, Field(ge=2)] = 25

    @model_validator(mode="after")
    def _leaves_some_to_train(self) -> DrawnSplit:
        if self.val + self.test >= 1:
            raise ValueError("val and test leave nothing to train on")
        return self


class PublishedPairs(Section):
    """A list of pairs as published with PriCheXy-Net: two image names and 1.0 or 0.0 a line."""

    drawn: Literal["published"]
    #: The file, in the folder of the tables.
    file: str


class DrawnPairs(Section):
    """Pairs drawn from one part of the split, half of them of one patient."""

    drawn: Literal["here"] = "here"
    seed: Annotated[int, Field(ge=0)] = 1
    #: The most pairs, both kinds together; there are fewer where the part does not hold so many.
    count: Annotated[int, Field(ge=2)]
    #: The most pairs of the same patient; left out: every two images are as likely as any other
    #: two, so patients with many images prevail.
    a_patient: Annotated[int, Field(ge=1)] | None = None
    #: Empty: a pair of two patients is any two images of theirs. Otherwise each pair (a, b) of one
    #: patient has a twin (a, c), where c is another patient's and agrees with b in all of these.
    match: tuple[Match, ...] = ()
    #: With "age": the most years between c and b; the nearest are taken first.
    age_within: Annotated[int, Field(ge=0)] = 2


class PrepareSettings(Section):
    """One file of ``train/configs/data``."""

    #: Stands in reports and run folders.
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    #: Rows and columns of the images in the cache.
    size: Annotated[int, Field(ge=16, multiple_of=16)] = 256
    #: Take images that are smaller than ``size``, too; otherwise they are an error.
    upscale: bool = False
    source: Annotated[ChestXray14Source | FolderSource, Field(discriminator="layout")]
    split: Annotated[OfficialSplit | DrawnSplit, Field(discriminator="by")]
    pairs: dict[PairName, PublishedPairs | DrawnPairs]

    @model_validator(mode="after")
    def _fits_together(self) -> PrepareSettings:
        official = isinstance(self.source, ChestXray14Source)
        published = any(isinstance(pairs, PublishedPairs) for pairs in self.pairs.values())
        if not official and (published or isinstance(self.split, OfficialSplit)):
            raise ValueError("official splits and published pairs are of layout chestxray14 only")
        missing = {"train", "val", "test"} - self.pairs.keys()
        if missing:
            raise ValueError(f"no pairs are described for {', '.join(sorted(missing))}")
        return self
