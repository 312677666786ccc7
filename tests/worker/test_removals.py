"""What a worker removes at an export target: what its ledger had sent, while its claim holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from prichexy_testing.archives import DicomwebArchive, OrthancArchive
from prichexy_testing.dicoms import radiograph_dataset, write
from prichexy_testing.fakes_worker import (
    JOB_ID,
    FakeLedger,
    FakeSource,
    FakeTarget,
    IdleDeformer,
    anonymized,
    instance_id,
    study_message,
)
from prichexy_testing.finders import Finds
from prichexy_worker import header
from prichexy_worker.contract import Reason, State, StudyReport
from prichexy_worker.destinations import Destinations
from prichexy_worker.errors import Rejected, Retryable
from prichexy_worker.export import FolderExport, PngFolderExport
from prichexy_worker.header.options import Option
from prichexy_worker.pipeline import Tools
from prichexy_worker.ports import Anonymized, Check, ExportTarget, InstanceName, unhindered
from prichexy_worker.pseudonyms import Pseudonyms
from prichexy_worker.sent import Sent
from prichexy_worker.study import Anonymizer, Outcome, process_study

UID = "1.2.840.99999.1"
PSEUDONYMS = Pseudonyms(bytes(range(32)))
TOOLS = Tools(engine=IdleDeformer(), pseudonyms=PSEUDONYMS, text_finder=Finds())
KEEPING_UIDS = dataclasses.replace(
    TOOLS, profile=dataclasses.replace(header.BASIC, options=frozenset({Option.UIDS}))
)
NAME = PSEUDONYMS.uid(UID)
OURS = ["Basic", "PriCheXy gateway 0.0.9"]
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def image(
    sop: str, *, study: str = NAME, patient: str = "PSEUDONYM", text: str = "", **attributes: object
) -> Anonymized:
    """Give an image as the pipeline gives it, with a header that targets can read."""
    made = {"DeidentificationMethod": OURS, **attributes}
    dataset = radiograph_dataset(identity={}, rows=8, columns=8, **made)
    dataset.PatientID, dataset.DerivationDescription = patient, text
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, "2.25.2"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop
    return anonymized(write(dataset), sop, study_uid=study, patient_id=patient)


def foreign(sop: str, **attributes: object) -> Anonymized:
    """Give an object that this gateway did not make."""
    return image(sop, DeidentificationMethod=None, **attributes)  # type: ignore[arg-type]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def unsafe(_content: bytes, _tools: Tools) -> Anonymized:
    raise Rejected(Reason.BURNED_IN_TEXT)


def run(
    target: ExportTarget,
    ledger: FakeLedger,
    anonymize: Anonymizer,
    *,
    images: int = 1,
    revision: int = 1,
    tools: Tools = TOOLS,
    clock: Callable[[], float] = lambda: 0.0,
    withdrawal_seconds: float = 1e9,
    max_seconds: float = 1e9,
) -> Outcome:
    originals = {instance_id(number): str(number).encode() for number in range(images)}
    return process_study(
        study_message(revision),
        FakeSource(originals, study_uid=UID),
        Destinations.only(target),
        ledger,
        tools,
        anonymize=anonymize,
        clock=clock,
        max_seconds=max_seconds,
        withdrawal_seconds=withdrawal_seconds,
    )


def safe(content: bytes, _tools: Tools) -> Anonymized:
    return anonymized(b"safe " + content, f"2.25.{content.decode()}", study_uid=NAME)


# --- what was sent, and nothing else --------------------------------------------------------


def _lay(folder: Path, instance: Anonymized) -> None:
    """Put a file into its place, as it is, whoever had made it."""
    path = folder / instance.study_uid / instance.series_uid / f"{instance.sop_uid}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(instance.content)


def test_a_quarantine_leaves_a_study_that_was_never_sent_in_its_folder(tmp_path: Path) -> None:
    """Where UIDs are kept, an archive may hold the hospital's own study of that name."""
    target, theirs = FolderExport(tmp_path), foreign("2.25.7", study=UID, patient="OWN")
    _lay(tmp_path, theirs)
    (tmp_path / UID / "annotations.json").write_text("{}")
    ledger = FakeLedger(sent=set())
    outcome = run(target, ledger, unsafe, tools=KEEPING_UIDS)
    assert outcome.state is State.QUARANTINED
    assert files(tmp_path) == ["2.25.7.dcm", "annotations.json"]
    assert ledger.reports[-1].left_at == ()  # it is nothing of ours


@pytest.mark.parametrize("kind", [DicomwebArchive, OrthancArchive])
@pytest.mark.parametrize("patient", ["OWN", "PSEUDONYM"])
def test_a_quarantine_deletes_no_study_that_was_never_sent(
    kind: type[DicomwebArchive | OrthancArchive], patient: str
) -> None:
    archive = kind()
    archive.put(foreign("2.25.7", study=UID, patient=patient).content)
    ledger = FakeLedger(sent=set())
    assert run(archive.target(), ledger, unsafe, tools=KEEPING_UIDS).state is State.QUARANTINED
    assert (archive.sops(), archive.changes) == (["2.25.7"], [])
    assert ledger.reports[-1].left_at == ()


def _folder(tmp_path: Path, held: list[Anonymized]) -> tuple[ExportTarget, Callable[[], list[str]]]:
    target = FolderExport(tmp_path)
    for one in held:
        target.store(one)
    return target, lambda: [name.removesuffix(".dcm") for name in files(tmp_path)]


def _dicomweb(_: Path, held: list[Anonymized]) -> tuple[ExportTarget, Callable[[], list[str]]]:
    archive = DicomwebArchive()
    for one in held:
        archive.put(one.content)
    return archive.target(), archive.sops


def _orthanc(_: Path, held: list[Anonymized]) -> tuple[ExportTarget, Callable[[], list[str]]]:
    archive = OrthancArchive()
    for one in held:
        archive.put(one.content)
    return archive.target(), archive.sops


Make = Callable[[Path, list[Anonymized]], tuple[ExportTarget, Callable[[], list[str]]]]
each_target = pytest.mark.parametrize("make", [_folder, _dicomweb, _orthanc])


@each_target
def test_a_withdrawal_takes_what_was_sent_and_tells_of_what_others_added(
    make: Make, tmp_path: Path
) -> None:
    sent = [image("2.25.3"), image("2.25.4")]
    added = foreign("2.25.7", SOPClassUID=SEGMENTATION)
    target, held = make(tmp_path, [*sent, added])
    for _ in range(2):
        assert not target.withdraw_study(NAME, Sent().with_these(sent), unhindered)
        assert held() == ["2.25.7"]


@each_target
def test_another_patients_objects_under_the_same_uid_stay_and_are_nothing_that_is_left(
    make: Make, tmp_path: Path
) -> None:
    sent, theirs = image("2.25.3"), foreign("2.25.7", patient="OWN")
    target, held = make(tmp_path, [sent, theirs])
    assert target.withdraw_study(NAME, Sent().with_these([sent]), unhindered)
    assert held() == ["2.25.7"]


@each_target
def test_what_a_lost_ledger_had_sent_stays_and_is_told_of(make: Make, tmp_path: Path) -> None:
    target, held = make(tmp_path, [image("2.25.3")])
    ledger = FakeLedger(sent=set())
    assert run(target, ledger, unsafe).state is State.QUARANTINED
    assert held() == ["2.25.3"]
    assert ledger.reports[-1].left_at == ("export",)


def test_a_file_of_ours_that_is_damaged_is_withdrawn_and_another_one_is_not(
    tmp_path: Path,
) -> None:
    target = FolderExport(tmp_path)
    for sop in ("2.25.3", "2.25.4"):
        _lay(tmp_path, anonymized(b"no DICOM", sop, study_uid=NAME))
    series = tmp_path / NAME / "2.25.2"
    for sop in ("2.25.3", "2.25.4"):
        (series / f".{sop}.dcm.0a.part").write_bytes(b"half")
    assert target.withdraw_study(NAME, Sent().with_these([image("2.25.3")]))
    assert files(tmp_path) == [".2.25.4.dcm.0a.part", "2.25.4.dcm"]


def test_a_researchers_notes_outlive_a_withdrawn_study_of_pictures(tmp_path: Path) -> None:
    target, one = PngFolderExport(tmp_path), image("2.25.3")
    target.store(one)
    target.withdraw_others([one], Sent().with_these([one]))
    (tmp_path / NAME / "2.25.2" / "notes.txt").write_text("a researcher's")
    assert target.withdraw_study(NAME, Sent().with_these([one]))
    assert [name for name in files(tmp_path) if not name.startswith(".")] == [
        "images.csv",
        "notes.txt",
    ]
    assert not (tmp_path / NAME / "images.csv").exists()


def test_what_was_made_and_never_sent_does_not_count_as_sent() -> None:
    """Another gateway with the same key makes the same image, and had sent it."""
    target = FakeTarget(held={"2.25.0": b"another gateway's"}, study_uid=NAME)
    ledger = FakeLedger(sent=set())

    def second_is_unsafe(content: bytes, tools: Tools) -> Anonymized:
        return safe(content, tools) if content == b"0" else unsafe(content, tools)

    assert run(target, ledger, second_is_unsafe, images=2).state is State.QUARANTINED
    assert target.held == {"2.25.0": b"another gateway's"}


# --- while the claim holds ------------------------------------------------------------------


@dataclass
class SlowTarget(FakeTarget):
    """From ``away_after`` stores on each request costs the time that an answer is waited for."""

    away_after: int = 10**6
    passed: list[float] = field(default_factory=lambda: [0.0])
    asked: int = 0
    on_removal: Callable[[], None] = lambda: None

    def _wait(self) -> None:
        self.asked += 1
        if self.stores >= self.away_after:
            self.passed[0] += 60
            raise Retryable(Reason.TARGET_UNREACHABLE)

    def store(self, instance: Anonymized) -> None:
        self._wait()
        super().store(instance)

    def withdraw(self, instance: InstanceName) -> None:
        self._wait()
        super().withdraw(instance)
        self.on_removal()

    def clock(self) -> float:
        return self.passed[0]


def test_a_target_that_goes_away_is_not_asked_to_take_back_image_after_image() -> None:
    target = SlowTarget(study_uid=NAME, away_after=30)
    outcome = run(target, FakeLedger(), safe, images=40, revision=2, clock=target.clock)
    assert outcome.reason is Reason.TARGET_UNREACHABLE
    assert (target.asked, target.passed) == (32, [120.0])


def _taken_over(ledger: FakeLedger) -> None:
    ledger.report(StudyReport(JOB_ID, ledger.revision, State.PROCESSING, "worker-2"))


def _refuses_the_last(target: FakeTarget) -> Anonymizer:
    def store(instance: Anonymized) -> None:
        if instance.sop_uid == "2.25.9":
            raise Retryable(Reason.TARGET_REFUSED)

    target.on_store = store
    return safe


def test_whoever_loses_the_claim_takes_nothing_more_back() -> None:
    """What is at the target by then may be what the next worker has exported."""
    target, ledger = SlowTarget(study_uid=NAME), FakeLedger()
    target.on_removal = lambda: _taken_over(ledger) if len(target.held) == 6 else None
    outcome = run(target, ledger, _refuses_the_last(target), images=10, revision=2)
    assert outcome == Outcome(None)
    assert len(target.held) == 6


@pytest.mark.parametrize("kind", [DicomwebArchive, OrthancArchive])
def test_a_claim_that_is_lost_within_a_withdrawal_ends_it_there(
    kind: type[DicomwebArchive | OrthancArchive],
) -> None:
    archive, ledger = kind(), FakeLedger(sent=set(), revision=1)
    sent = [image(f"2.25.{number}") for number in range(3, 8)]
    for one in (*sent, foreign("2.25.9", SOPClassUID=SEGMENTATION)):
        archive.put(one.content)
    ledger.sent |= Sent().with_these(sent).marks
    answer = archive.answer
    archive.answer = (  # type: ignore[method-assign]
        lambda request: (
            answer(request),
            _taken_over(ledger) if request.method == "DELETE" else None,
        )[0]
    )
    assert run(archive.target(), ledger, unsafe) == Outcome(None)
    assert len(archive.changes) == 1
    assert len(archive.held) == 5


@each_target
@pytest.mark.parametrize("others", [True, False])
def test_before_each_removal_it_is_asked_whether_it_may_go_on(
    make: Make, tmp_path: Path, *, others: bool
) -> None:
    sent = [image(f"2.25.{number}") for number in (3, 4, 5, 6)]
    target, held = make(tmp_path, [*sent, foreign("2.25.9", SOPClassUID=SEGMENTATION)])
    left = [2]

    def twice() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Retryable(Reason.TOOK_TOO_LONG)

    with pytest.raises(Retryable):
        _remove(target, sent, twice, others=others)
    assert len(held()) == 3


def _remove(
    target: ExportTarget, sent: list[Anonymized], may_go_on: Check, *, others: bool
) -> None:
    marks = Sent().with_these(sent)
    if others:
        target.withdraw_others(sent[:1], marks, may_go_on)
    else:
        target.withdraw_study(NAME, marks, may_go_on)


def test_while_the_ledger_does_not_answer_nothing_more_is_taken_back() -> None:
    target, ledger = SlowTarget(study_uid=NAME), FakeLedger()

    def goes_silent() -> None:
        ledger.unsure = len(target.held) == 6

    target.on_removal = goes_silent
    outcome = run(target, ledger, _refuses_the_last(target), images=10, revision=2)
    assert (outcome.state, outcome.again) == (None, True)
    assert len(target.held) == 6


def test_when_another_worker_may_soon_have_the_study_nothing_is_withdrawn_any_more() -> None:
    def attempt(*, left: int) -> tuple[Outcome, FakeLedger, FakeTarget]:
        passed = [0.0]

        def slowly(_content: bytes, _tools: Tools) -> Anonymized:
            passed[0] = 1700.0
            raise Rejected(Reason.BURNED_IN_TEXT)

        target, ledger = FakeTarget(held={"2.25.3": b"of before"}, study_uid=NAME), FakeLedger()
        ledger.left = left
        outcome = run(target, ledger, slowly, clock=lambda: passed[0], withdrawal_seconds=1620)
        return outcome, ledger, target

    outcome, ledger, target = attempt(left=2)
    assert outcome == Outcome(State.QUEUED, Reason.TOOK_TOO_LONG, again=True)
    assert target.held == {"2.25.3": b"of before"}
    outcome, ledger, target = attempt(left=1)
    assert outcome == Outcome(State.QUARANTINED, Reason.BURNED_IN_TEXT)
    assert target.held == {"2.25.3": b"of before"}
    assert ledger.reports[-1].left_at == ("export",)


# --- what a study that is made anew replaces ------------------------------------------------


@pytest.mark.parametrize("kind", [DicomwebArchive, OrthancArchive])
def test_an_image_whose_successor_is_not_taken_comes_back(
    kind: type[DicomwebArchive | OrthancArchive],
) -> None:
    archive, old, new = kind(), image("2.25.3", text="old"), image("2.25.3", text="new")
    target = archive.target()
    target.store(old)
    archive.takes = lambda content: content == old.content or len(archive.held) == 1
    with pytest.raises(Retryable) as error:
        target.store(new)
    assert target.fetch(old) == old.content
    assert "not there any more" not in str(error.value)
    archive.takes = lambda _content: True
    target.store(new)
    assert target.fetch(new) == new.content


@pytest.mark.parametrize("kind", [DicomwebArchive, OrthancArchive])
def test_an_image_that_cannot_be_put_back_is_told_of(
    kind: type[DicomwebArchive | OrthancArchive],
) -> None:
    archive, old, new = kind(), image("2.25.3", text="old"), image("2.25.3", text="new")
    target = archive.target()
    target.store(old)
    archive.takes = lambda _content: bool(archive.held)
    with pytest.raises(Retryable, match="the earlier image is not there any more") as error:
        target.store(new)
    assert error.value.reason is Reason.TARGET_REFUSED


# --- a server that lists a part -------------------------------------------------------------


def test_all_of_a_study_is_found_however_few_images_a_server_lists_at_once() -> None:
    sent = [image(f"2.25.{number}") for number in range(3, 10)]
    for pages in (True, False):
        archive = DicomwebArchive(page=3 if pages else 1000, pages=pages)
        for one in (*sent, foreign("2.25.99", patient="OWN")):
            archive.put(one.content)
        assert archive.target().withdraw_study(NAME, Sent().with_these(sent))
        assert archive.sops() == ["2.25.99"]


def test_a_server_that_lists_a_part_and_no_more_is_not_taken_to_have_told_all() -> None:
    archive = DicomwebArchive(page=3, pages=False, warns=True)
    sent = [image(f"2.25.{number}") for number in range(3, 10)]
    for one in sent:
        archive.put(one.content)
    target = archive.target()
    for others in (True, False):
        with pytest.raises(Retryable, match="not all of a study is listed"):
            _remove(target, sent, unhindered, others=others)
    assert len(archive.held) == 7
