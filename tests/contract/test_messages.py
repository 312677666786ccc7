"""What the plugin and the workers say to each other survives the wire, and nothing else passes."""

import base64
import json
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_worker.contract import (
    CONTRACT_VERSION,
    MOST_BOXES,
    MOST_IMAGES,
    MOST_PICTURES,
    REPORTABLE,
    Available,
    Claim,
    ContractError,
    Errand,
    ImageInDoubt,
    ImagePictures,
    LaterVersion,
    Looked,
    ModelInfo,
    Reason,
    State,
    StudyMessage,
    StudyReport,
    TargetInfo,
    TextPictures,
    WorkerAnnouncement,
    version_of,
)

JOB_ID = "0123456789abcdef" * 2
STUDY_ID = "-".join(["0a1b2c3d"] * 5)
MODEL = ModelInfo("generator", "0.1.0", "f" * 64, "untrained", "Random weights.")
PNG = b"\x89PNG\r\n\x1a\n"
ARCHIVE = TargetInfo("archive", "dicom", "PACS at pacs:104", encrypted=True, check="commitment")
DEFAULT = replace(ARCHIVE, default=True)
PNG_FOLDER = TargetInfo("files", "png", "/srv/png", encrypted=True, check="read_back")
JPEG = b"\xff\xd8\xff"
EXAMPLES = [
    StudyMessage(JOB_ID, STUDY_ID, 1),
    StudyReport(JOB_ID, 2, State.PROCESSING, "worker@host"),
    StudyReport(JOB_ID, 2, State.FAILED, "w", Reason.UNEXPECTED, 3, {"fetch": 0.5}, {"psnr_db": 1}),
    StudyReport(JOB_ID, 2, State.EXPORTED, "w", key_id="0123456789abcdef", profile="f" * 64),
    StudyReport(JOB_ID, 2, State.EXPORTED, "w", model="e" * 64, edition="2026c"),
    Claim(proceed=False),
    TextPictures(JOB_ID, 2, 1, (PNG + b"one", PNG)),
    ImagePictures(JOB_ID, 2, 1, 2, 3, {"rows": 20.0}, (JPEG, JPEG + b"x", JPEG, JPEG)),
    MODEL,
    WorkerAnnouncement("worker@host", "0.1.0", "cpu", "No CUDA device was found.", MODEL),
    WorkerAnnouncement("w", "0.1.0", "cuda:0", "found", MODEL, ("gpu", "prichexy")),
    WorkerAnnouncement("w", "0.1.0", "cpu", "none", MODEL, targets=(ARCHIVE, PNG_FOLDER)),
    ARCHIVE,
    replace(ARCHIVE, default=True),
    WorkerAnnouncement(
        "w", "0.1.0", "cpu", "none", MODEL, targets=(replace(ARCHIVE, default=True),)
    ),
    StudyReport(JOB_ID, 2, State.QUEUED, "w", Reason.TARGET_REFUSED, target="research"),
    StudyMessage(JOB_ID, STUDY_ID, 1, ("research", "long-term_2")),
    Looked("d" * 64, ((0, 0, 65535, 1),), ((1, 2, 3, 4), (5, 6, 7, 8))),
    StudyMessage(JOB_ID, STUDY_ID, 2, looked=(Looked("d" * 64, ((1, 2, 3, 4),)), Looked("e" * 64))),
    StudyMessage(JOB_ID, STUDY_ID, 2, ("research",), errand=Errand.WITHDRAW),
    StudyReport(JOB_ID, 2, State.REJECTED, "w", Reason.WITHDRAWN, left_at=("nas", "research")),
    StudyReport(JOB_ID, 2, State.PROCESSING, "w", attempt=1, study_uid="2.25.17"),
    Claim(proceed=True, attempt=2, study_uids=("2.25.17", "2.25.18")),
    StudyReport(JOB_ID, 2, State.QUEUED, "w", Reason.TARGET_REFUSED, target="nas", elsewhere=True),
    ImageInDoubt(JOB_ID, 2, 1, 3, "d" * 64, 100, 50, ((1, 2, 50, 100),), PNG),
    StudyMessage(JOB_ID, STUDY_ID, 2, ("research",), bundle="b" * 64, strength=1.25),
    Available("b" * 64, MODEL),
    replace(MODEL, evidence="measured", protects=True),
    WorkerAnnouncement("w", "0.1.0", "cpu", "none", replace(MODEL, protects=True)),
    WorkerAnnouncement(
        "w", "0.1.0", "cpu", "x", MODEL, ("gpu",), models=(Available("b" * 64, MODEL),)
    ),
]
#: What need not be told; a worker that is told no errand anonymises.
OPTIONAL = {
    *("target", "targets", "queues", "models", "edition", "left_at", "study_uid", "study_uids"),
    *("looked", "errand", "bundle", "strength", "default", "elsewhere", "protects"),
}


def in_version(version, value):
    """Give the JSON object of a value in a version, also of those that are always in the first."""
    varies = isinstance(value, StudyReport | Claim | WorkerAnnouncement)
    return value.to_json(version) if varies else value.to_json()


names = st.text(string.ascii_lowercase, min_size=1, max_size=8)
reports = st.builds(
    StudyReport,
    job_id=st.just(JOB_ID),
    revision=st.integers(1, 10_000),
    state=st.sampled_from(sorted(REPORTABLE)),
    worker_id=st.just("worker@host"),
    reason=st.none() | st.sampled_from(list(Reason)),
    instances=st.integers(0, 1000),
    durations=st.dictionaries(names, st.floats(0, 1e6)),
    measures=st.dictionaries(names, st.floats(-1e6, 1e6)),
)


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_a_value_survives_the_wire(value):
    assert type(value).from_json(json.loads(json.dumps(value.to_json()))) == value


@given(reports)
def test_any_report_survives_the_wire(report):
    assert StudyReport.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_a_missing_key_is_refused(value):
    data = value.to_json()
    required = {"bundle"} if isinstance(value, Available) else set()
    untold = {"model"} if isinstance(value, StudyReport) else set()
    for key in data.keys() - (OPTIONAL - required) - untold:
        with pytest.raises(ContractError):
            type(value).from_json({k: v for k, v in data.items() if k != key})


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_unknown_key_is_refused_in_version_1_and_passed_over_since(value):
    if in_version(1, value)["version"] == 1 and getattr(value, "state", "") is not State.REJECTED:
        with pytest.raises(ContractError, match="PatientName"):
            type(value).from_json({**in_version(1, value), "PatientName": "x"})
    later = {**value.to_json(), "version": CONTRACT_VERSION, "PatientName": "x"}
    assert type(value).from_json(later) == value
    assert "PatientName" not in repr(type(value).from_json(later))


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_a_later_version_is_told_apart_from_what_is_none(value):
    with pytest.raises(LaterVersion):
        type(value).from_json({**value.to_json(), "version": CONTRACT_VERSION + 1, "more": 1})
    for bad in (0, -1, True, "2", 2.0, None):
        with pytest.raises(ContractError, match="version") as refused:
            type(value).from_json({**value.to_json(), "version": bad})
        assert not isinstance(refused.value, LaterVersion)


@pytest.mark.parametrize(
    ("header", "version"),
    [
        (None, 1),
        ("worker", 1),
        ("", 1),
        ("0", 1),
        ("1", 1),
        ("2", 2),
        (str(CONTRACT_VERSION), CONTRACT_VERSION),
        (str(CONTRACT_VERSION + 1), CONTRACT_VERSION),
        ("-2", 1),
        ("2" * 7, 1),
    ],
)
def test_both_sides_speak_the_older_version_of_the_two(header, version):
    assert version_of(header) == version


def test_what_version_1_cannot_say_is_said_in_its_words():
    stopped = StudyReport(JOB_ID, 1, State.QUEUED, "w", Reason.WORKER_STOPPED, target="research")
    assert StudyReport.from_json(stopped.to_json()) == stopped
    assert StudyReport.from_json(stopped.to_json(1)) == replace(
        stopped, reason=Reason.TOOK_TOO_LONG, target=""
    )


@pytest.mark.parametrize("version", [1, 2])
def test_a_study_that_is_too_large_has_too_many_instances_to_who_knows_no_other(version):
    large = StudyReport(JOB_ID, 1, State.QUARANTINED, "w", Reason.TOO_LARGE)
    assert StudyReport.from_json(large.to_json()) == large
    told = StudyReport.from_json(large.to_json(version))
    assert told == replace(large, reason=Reason.TOO_MANY_INSTANCES)


@pytest.mark.parametrize(
    ("reason", "instead"),
    [
        (Reason.RECOGNISABLE, Reason.IDENTITY_SURVIVED),
        (Reason.FINDINGS_CHANGED, Reason.PIXELS_NOT_SANE),
    ],
)
def test_what_is_left_of_a_patient_is_told_in_the_words_of_before(reason, instead):
    report = StudyReport(JOB_ID, 1, State.QUARANTINED, "w", reason)
    assert StudyReport.from_json(report.to_json()) == report
    assert StudyReport.from_json(report.to_json(2)) == replace(report, reason=instead)


@pytest.mark.parametrize("name", ["plugin", "user anna", ""])
def test_no_worker_has_a_name_that_the_audit_trail_has_for_others(name):
    told = StudyReport(JOB_ID, 1, State.PROCESSING, "plugin-2").to_json()
    assert StudyReport.from_json(told).worker_id == "plugin-2"
    with pytest.raises(ContractError, match="worker_id"):
        StudyReport.from_json({**told, "worker_id": name})


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("job_id", "DOE^JANE"),
        ("study_id", "1.2.840.113619"),
        ("revision", 0),
        ("revision", True),
        ("revision", "1"),
        ("job_id", None),
    ],
)
def test_a_bad_value_is_refused_without_being_repeated(key, bad):
    with pytest.raises(ContractError) as refused:
        StudyMessage.from_json({**EXAMPLES[0].to_json(), key: bad})
    assert key in str(refused.value)
    assert "DOE" not in str(refused.value)


def test_a_message_without_targets_is_the_one_from_before_there_were_any():
    message = StudyMessage(JOB_ID, STUDY_ID, 1)
    data = {"version": 1, "job_id": JOB_ID, "study_id": STUDY_ID, "revision": 1}
    assert message.to_json() == data
    assert StudyMessage.from_json(data) == message


@pytest.mark.parametrize(
    "bad", ["a", ["A"], [""], ["a", "a"], [1], [["a"]], ["a-"], ["a" * 33], ["a/b"], ["a\n"], None]
)
def test_what_is_no_list_of_names_of_targets_is_refused(bad):
    with pytest.raises(ContractError, match="targets"):
        StudyMessage.from_json({**EXAMPLES[0].to_json(), "targets": bad})


@pytest.mark.parametrize(
    "pictures",
    [
        [],
        "iVBORw0KGgo=",
        ["not base64"],
        ["SkFORV5ET0U="],
        [base64.b64encode(PNG).decode()] * (MOST_PICTURES + 1),
        [base64.b64encode(PNG + bytes(300_000)).decode()],
    ],
)
def test_what_is_no_small_number_of_small_pictures_is_refused(pictures):
    example = TextPictures(JOB_ID, 2, 1, (PNG,)).to_json()
    with pytest.raises(ContractError, match="pictures is not valid"):
        TextPictures.from_json({**example, "pictures": pictures})


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("pictures", []),
        ("pictures", [base64.b64encode(JPEG).decode()] * 5),
        ("pictures", [base64.b64encode(PNG).decode()] * 4),
        ("pictures", [base64.b64encode(JPEG + bytes(600_000)).decode()] * 4),
        ("number", 0),
        ("number", 4),
        ("count", MOST_IMAGES + 1),
        ("figures", {"rows": "20"}),
        ("figures", {"DOE^JANE": 1.0}),
    ],
)
def test_what_is_no_four_pictures_of_one_of_the_images_is_refused(key, bad):
    example = next(one for one in EXAMPLES if isinstance(one, ImagePictures)).to_json()
    with pytest.raises(ContractError, match="is not valid"):
        ImagePictures.from_json({**example, key: bad})


def test_pictures_are_not_shown_by_their_message():
    shown = ImagePictures(JOB_ID, 2, 1, 1, 1, {}, (JPEG + b"CANARY",) * 4)
    assert "CANARY" not in repr(shown)
    assert "CANARY" not in repr(TextPictures(JOB_ID, 2, 1, (PNG + b"CANARY",)))


@pytest.mark.parametrize("state", sorted(set(State) - REPORTABLE))
def test_a_worker_cannot_report_a_state_that_is_the_plugins(state):
    with pytest.raises(ContractError, match="state"):
        StudyReport.from_json({**EXAMPLES[1].to_json(), "state": state.value})


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), True, "1", 1e300, -1e300, 10**400, -(10**400)]
)
def test_figures_are_numbers_that_can_be_measured(number):
    for key in ("durations", "measures"):
        with pytest.raises(ContractError, match=key):
            StudyReport.from_json({**EXAMPLES[1].to_json(), key: {"fetch": number}})
    shown = next(one for one in EXAMPLES if isinstance(one, ImagePictures)).to_json()
    with pytest.raises(ContractError, match="figures"):
        ImagePictures.from_json({**shown, "figures": {"rows": number}})


@pytest.mark.parametrize("seconds", [-0.1, 15 * 86400])
def test_a_duration_is_neither_negative_nor_weeks_long(seconds):
    with pytest.raises(ContractError, match="durations"):
        StudyReport.from_json({**EXAMPLES[1].to_json(), "durations": {"fetch": seconds}})


def test_so_many_figures_are_refused():
    many = {f"figure_{number}": 1.0 for number in range(129)}
    for key in ("durations", "measures"):
        with pytest.raises(ContractError, match=key):
            StudyReport.from_json({**EXAMPLES[1].to_json(), key: many})


@pytest.mark.parametrize("key", ["instances", "attempt", "revision"])
def test_a_count_is_what_a_database_can_keep(key):
    assert StudyReport.from_json({**EXAMPLES[1].to_json(), key: 2**31 - 1})
    for count in (2**31, 10**30, -1):
        with pytest.raises(ContractError, match=key):
            StudyReport.from_json({**EXAMPLES[1].to_json(), key: count})


def test_a_name_of_a_figure_cannot_carry_text():
    with pytest.raises(ContractError, match="measures"):
        StudyReport.from_json({**EXAMPLES[1].to_json(), "measures": {"Jane Doe": 1.0}})


@pytest.mark.parametrize(
    "bad",
    [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [3, 2, 1, 4],
        [1, 4, 3, 2],
        [1, 2, 1, 4],
        [-1, 2, 3, 4],
        [1, 2, 3, 65536],
        [1, 2, 3, 4.0],
        [True, 2, 3, 4],
        ["1", 2, 3, 4],
        [[1, 2, 3, 4]],
        "1234",
        None,
        [1, 2, 3, 4] * (MOST_BOXES + 1),
    ],
)
def test_what_is_no_box_is_refused(bad):
    for key in ("erase", "keep"):
        with pytest.raises(ContractError, match=key):
            Looked.from_json({**Looked("d" * 64).to_json(), key: bad})
    image = ImageInDoubt(JOB_ID, 2, 1, 1, "d" * 64, 100, 50, (), PNG)
    with pytest.raises(ContractError, match="boxes"):
        ImageInDoubt.from_json({**image.to_json(), "boxes": bad})


def test_a_box_that_leaves_its_image_is_refused():
    image = ImageInDoubt(JOB_ID, 2, 1, 1, "d" * 64, 100, 50, (), PNG)
    for box in ([0, 0, 51, 100], [0, 0, 50, 101]):
        with pytest.raises(ContractError, match="boxes"):
            ImageInDoubt.from_json({**image.to_json(), "boxes": box})


def test_an_errand_that_is_not_known_is_no_order_to_anonymise():
    message = StudyMessage(JOB_ID, STUDY_ID, 2, errand=Errand.WITHDRAW)
    for bad in ("forget", None, 1, ["withdraw"]):
        with pytest.raises(ContractError, match="errand"):
            StudyMessage.from_json({**message.to_json(), "errand": bad})


@pytest.mark.parametrize("bad", [0, 0.49, 2.01, -1, True, "1", None, float("nan"), float("inf")])
def test_a_strength_beyond_its_bounds_is_refused(bad):
    message = StudyMessage(JOB_ID, STUDY_ID, 2, strength=1.5)
    with pytest.raises(ContractError, match="strength"):
        StudyMessage.from_json({**message.to_json(), "strength": bad})


def test_an_image_in_doubt_is_not_shown_by_its_message():
    image = ImageInDoubt(JOB_ID, 2, 1, 1, "d" * 64, 100, 50, (), PNG + b"CANARY")
    assert "CANARY" not in repr(image)


def test_every_reason_has_its_own_sentence():
    sentences = [reason.sentence for reason in Reason]
    assert len(set(sentences)) == len(sentences)
    assert all(sentence.endswith(".") for sentence in sentences)


def test_a_report_of_a_worker_that_does_not_tell_its_model_yet_is_understood():
    report = StudyReport(JOB_ID, 2, State.EXPORTED, "w")
    older = {
        key: value for key, value in report.to_json().items() if key not in ("model", "edition")
    }
    assert StudyReport.from_json(older) == report


def test_a_name_at_the_targets_is_told_to_version_3_alone_and_is_a_pseudonym():
    report = StudyReport(JOB_ID, 2, State.PROCESSING, "w", attempt=1, study_uid="2.25.17")
    claim = Claim(proceed=True, attempt=2, study_uids=("2.25.17",))
    for version in (1, 2):
        assert "study_uid" not in report.to_json(version)
        assert "study_uids" not in claim.to_json(version)
    for bad in ("1.2.840.1", "2.25.", 17):
        with pytest.raises(ContractError, match="study_uid is not valid"):
            StudyReport.from_json({**report.to_json(), "study_uid": bad})
        with pytest.raises(ContractError, match="study_uids is not valid"):
            Claim.from_json({**claim.to_json(), "study_uids": [bad]})


@pytest.mark.parametrize("version", [1, 2])
def test_a_plugin_of_before_is_not_told_which_target_is_the_default(version: int) -> None:
    announced = WorkerAnnouncement("w", "0.1.0", "cpu", "none", MODEL, targets=(DEFAULT,))
    told = announced.to_json(version)
    assert "default" not in json.dumps(told)
    assert WorkerAnnouncement.from_json(told).targets == ((ARCHIVE,) if version > 1 else ())
    assert TargetInfo.from_json(ARCHIVE.to_json()) == ARCHIVE, "as a worker of before tells it"


@pytest.mark.parametrize("version", [1, 2])
def test_a_plugin_of_before_is_not_told_that_a_model_protects(version: int) -> None:
    announced = WorkerAnnouncement("w", "0.1.0", "cpu", "none", replace(MODEL, protects=True))
    told = announced.to_json(version)
    assert "protects" not in json.dumps(told)
    assert WorkerAnnouncement.from_json(told).model == MODEL
