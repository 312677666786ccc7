"""What the plugin and the workers say to each other survives the wire, and nothing else passes."""

import base64
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_worker.contract import (
    CONTRACT_VERSION,
    MOST_PICTURES,
    REPORTABLE,
    Claim,
    ContractError,
    ModelInfo,
    Reason,
    State,
    StudyMessage,
    StudyReport,
    TextPictures,
    WorkerAnnouncement,
)

JOB_ID = "0123456789abcdef" * 2
STUDY_ID = "-".join(["0a1b2c3d"] * 5)
MODEL = ModelInfo("generator", "0.1.0", "f" * 64, "untrained", "Random weights.")
PNG = b"\x89PNG\r\n\x1a\n"
EXAMPLES = [
    StudyMessage(JOB_ID, STUDY_ID, 1),
    StudyReport(JOB_ID, 2, State.PROCESSING, "worker@host"),
    StudyReport(JOB_ID, 2, State.FAILED, "w", Reason.UNEXPECTED, 3, {"fetch": 0.5}, {"psnr_db": 1}),
    StudyReport(JOB_ID, 2, State.EXPORTED, "w", key_id="0123456789abcdef", profile="f" * 64),
    Claim(proceed=False),
    TextPictures(JOB_ID, 2, 1, (PNG + b"one", PNG)),
    MODEL,
    WorkerAnnouncement("worker@host", "0.1.0", "cpu", "No CUDA device was found.", MODEL),
]

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
def test_an_unknown_or_missing_key_is_refused(value):
    data = value.to_json()
    with pytest.raises(ContractError, match="PatientName"):
        type(value).from_json({**data, "PatientName": "x"})
    for key in data:
        with pytest.raises(ContractError):
            type(value).from_json({k: v for k, v in data.items() if k != key})


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_another_version_is_refused(value):
    with pytest.raises(ContractError, match="version"):
        type(value).from_json({**value.to_json(), "version": CONTRACT_VERSION + 1})


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


def test_pictures_are_not_shown_by_their_message():
    assert "CANARY" not in repr(TextPictures(JOB_ID, 2, 1, (PNG + b"CANARY",)))


@pytest.mark.parametrize("state", sorted(set(State) - REPORTABLE))
def test_a_worker_cannot_report_a_state_that_is_the_plugins(state):
    with pytest.raises(ContractError, match="state"):
        StudyReport.from_json({**EXAMPLES[1].to_json(), "state": state.value})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), True, "1"])
def test_figures_are_finite_numbers(number):
    with pytest.raises(ContractError, match="durations"):
        StudyReport.from_json({**EXAMPLES[1].to_json(), "durations": {"fetch": number}})


def test_a_name_of_a_figure_cannot_carry_text():
    with pytest.raises(ContractError, match="measures"):
        StudyReport.from_json({**EXAMPLES[1].to_json(), "measures": {"Jane Doe": 1.0}})


def test_every_reason_has_its_own_sentence():
    sentences = [reason.sentence for reason in Reason]
    assert len(set(sentences)) == len(sentences)
    assert all(sentence.endswith(".") for sentence in sentences)
