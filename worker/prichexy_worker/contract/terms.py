"""What both sides call things: states, errands and reasons, with the limits that they keep."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, Self

__all__ = [
    "ANNOUNCE_INTERVAL_SECONDS",
    "API_ROOT",
    "CONTRACT_VERSION",
    "DECISIONS",
    "DEFAULT_QUEUE",
    "ENDED",
    "IMAGE_PARTS",
    "LEAST_STRENGTH",
    "MAX_ATTEMPTS",
    "MAX_CLAIMS",
    "MOST_BOXES",
    "MOST_DOUBTS",
    "MOST_IMAGES",
    "MOST_MODELS",
    "MOST_PICTURES",
    "MOST_STRENGTH",
    "MOST_TARGETS",
    "OLDEST_VERSION",
    "QUEUE_NAME",
    "RELEASABLE",
    "REPORTABLE",
    "REQUEST_HEADER",
    "TARGET_NAME",
    "TASK_NAME",
    "WHOLE_PICTURE_BYTES",
    "WHOLE_SIDE",
    "Box",
    "Errand",
    "Reason",
    "Sentenced",
    "State",
]

CONTRACT_VERSION: Final = 3
#: What was published before, and is still read and, to who knows no other, written.
OLDEST_VERSION: Final = 1
#: The version that brought decisions of people, and errands.
DECISIONS: Final = 3
TASK_NAME: Final = "prichexy.anonymize_study"
DEFAULT_QUEUE: Final = "prichexy"
API_ROOT: Final = "/prichexy/api/v1"
#: Programs send this header with every POST; a browser cannot, across origins. Its value is the
#: version of the contract that the sender has; any other value stands for version 1.
REQUEST_HEADER: Final = "X-PriCheXy"
#: How many attempts at a study may fail. Whoever claims it after that gives it up: it takes back
#: from the export target what an earlier revision or attempt left there, and reports FAILED. What
#: is not counted, such as an attempt while the target was away: see retry.py.
MAX_ATTEMPTS: Final = 5
#: A worker tells of so many export targets.
MOST_TARGETS: Final = 64
#: How many claims of a study are counted at all before the plugin itself ends it as failed.
MAX_CLAIMS: Final = 2 * MAX_ATTEMPTS
ANNOUNCE_INTERVAL_SECONDS: Final = 30.0
#: So many pictures of regions in doubt a study has at most.
MOST_PICTURES: Final = 12
#: So many images of a study are shown whole to a human who decides, each of so many bytes at most:
#: radiographs of WHOLE_SIDE take 0.5 to 2.5 MB.
MOST_DOUBTS: Final = 12
WHOLE_PICTURE_BYTES: Final = 4 * 1024 * 1024
#: The longer side of such a picture, in pixels, or that of the image where it is shorter: as large
#: as the search for text ever sees it, so that whoever decides can read what the search can find.
WHOLE_SIDE: Final = 2272
#: So many boxes of one kind an image has at most: found, to be erased, or to be left alone.
MOST_BOXES: Final = 96
#: So many models beside the one in use a worker announces.
MOST_MODELS: Final = 5
#: The factor on the displacement that an administrator may ask for.
LEAST_STRENGTH: Final = 0.5
MOST_STRENGTH: Final = 2.0
#: What the pictures of an exported image show, in their order.
IMAGE_PARTS: Final = ("original", "anonymised", "displacement", "difference")
#: Of so many images of a study there are pictures at most.
MOST_IMAGES: Final = 64
#: What an export target may be called: by the plugin's rules, and in the workers' settings.
TARGET_NAME: Final = re.compile(r"(?=.{1,32}\Z)[a-z0-9]+([_-][a-z0-9]+)*")
#: What a queue may be called: by the plugin's rules, and in the workers' settings.
QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class State(StrEnum):
    """Where a study is. The last four are ends."""

    WATCHED = "watched"  # arrived, still receiving instances
    PENDING = "pending"  # taken in; not yet handed to the broker
    QUEUED = "queued"  # the broker has it, or a worker gave it back for another attempt
    PROCESSING = "processing"  # a worker has claimed it
    EXPORTED = "exported"  # whole at the export target, compared where that can be
    QUARANTINED = "quarantined"  # could not be made safe; a human decides
    FAILED = "failed"  # given up after MAX_ATTEMPTS, with the reason of the last one
    REJECTED = "rejected"  # not taken in, with the reason


#: The states that a study stays in until something new arrives for it.
ENDED: Final = frozenset({State.EXPORTED, State.QUARANTINED, State.FAILED, State.REJECTED})
#: The states that a worker may report.
REPORTABLE: Final = frozenset(
    {
        State.PROCESSING,
        State.QUEUED,
        State.EXPORTED,
        State.QUARANTINED,
        State.FAILED,
        State.REJECTED,  # from version 3 on, of an export that was withdrawn
    }
)


class Errand(StrEnum):
    """What a worker is asked to do with a study."""

    ANONYMIZE = "anonymize"
    WITHDRAW = "withdraw"  # take its export back from every target, and make no new one


class Sentenced(StrEnum):
    """Codes for programs, each with the ``sentence`` that people are told."""

    sentence: str

    def __new__(cls, code: str, sentence: str = "") -> Self:
        """Make a member whose value is ``code``."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member


class Reason(Sentenced):
    """Why a study is where it is."""

    # Intake: why a study was not taken in.
    NO_RULE_MATCHES = "no_rule_matches", "No intake rule takes this study in."
    OWN_OUTPUT = "own_output", "The study is this gateway's own output."
    COPY_OF_A_STUDY = "copy_of_a_study", "Orthanc made this study by anonymising or modifying one."
    GONE = "gone", "The study was deleted from the ingest Orthanc."
    # People: why somebody turned a study away.
    NOT_NEEDED = "not_needed", "An operator turned the study away: it is of no use here."
    NO_CONSENT = "no_consent", "An operator turned the study away: its use is not consented to."
    WRONGLY_SENT = "wrongly_sent", "An operator turned the study away: it was sent by mistake."
    # And why somebody had an original deleted; the study's own reason stays.
    DELETED_DONE = "deleted_done", "Somebody had the original deleted: it is no longer needed."
    DELETED_CONSENT = (
        "deleted_no_consent",
        "Somebody had the original deleted: its use is not consented to.",
    )
    DELETED_WRONG = (
        "deleted_wrongly_sent",
        "The original was to be deleted: it was sent by mistake.",
    )
    # And why somebody paused the intake or the export. What waits for it has the first of these.
    PAUSED = "paused", "Somebody paused the export. It goes on when somebody lets it."
    PAUSED_WORK = "paused_work", "Paused: somebody works on the gateway or on a target."
    PAUSED_DOUBT = "paused_doubt", "Paused: results or settings are in doubt, and looked into."
    PAUSED_LOAD = "paused_load", "Paused: others need the network or the machine now."
    PAUSED_PROJECT = "paused_project", "Paused: the project's rules or consents are not clear."
    # Why somebody released a study from quarantine; the worker and its gate judge it all the same.
    RELEASED_ERASED = (
        "released_erased",
        "Somebody looked at the images and named all that is to be erased.",
    )
    RELEASED_NO_TEXT = (
        "released_no_text",
        "Somebody looked at the images: what was found and is not erased is no text.",
    )
    RELEASED_NAMES_NOBODY = (
        "released_names_nobody",
        "Somebody looked at the images: text that stays in them names nobody.",
    )
    # Why somebody had an export taken back.
    WITHDRAWN_CONSENT = (
        "withdrawn_no_consent",
        "An administrator had the export withdrawn: its use is not consented to.",
    )
    WITHDRAWN_FAULTY = (
        "withdrawn_faulty",
        "An administrator had the export withdrawn: it is not as it should be.",
    )
    WITHDRAWN_WRONG = (
        "withdrawn_wrongly_sent",
        "An administrator had the export withdrawn: it was sent by mistake.",
    )
    # What a worker says of it; the study then has the administrator's reason.
    WITHDRAWN = "withdrawn", "The export was withdrawn from the targets."
    # Quarantine: what could not be made safe.
    UNSUPPORTED_SOP_CLASS = (
        "unsupported_sop_class",
        "An object is no CR, DX or captured radiograph.",
    )
    NOT_A_CHEST_RADIOGRAPH = "not_a_chest_radiograph", "An object is not of the chest."
    NO_PIXEL_DATA = "no_pixel_data", "An object has no pixel data."
    MULTI_FRAME = "multi_frame", "An object has more than one frame."
    COLOUR = "colour", "An object is in colour."
    UNSUPPORTED_PIXELS = "unsupported_pixels", "An object's pixel format is not supported."
    UNDECODABLE = "undecodable", "An object's pixel data cannot be decoded."
    UNREADABLE = "unreadable", "An object is not readable DICOM."
    BURNED_IN_TEXT = "burned_in_text", "An object shows, or says that it shows, burned-in text."
    IDENTITY_SURVIVED = "identity_survived", "An identifying value was found in the result."
    CONFORMANCE_BROKEN = "conformance_broken", "A result breaks a DICOM rule that its source keeps."
    PIXELS_NOT_SANE = "pixels_not_sane", "A result's pixels are not like those of its source."
    CHECK_IMPOSSIBLE = "check_impossible", "A check of a result could not be made."
    INCOMPLETE_HEADER = "incomplete_header", "An object lacks an identifier that it must have."
    MIXED_PATIENTS = "mixed_patients", "The study holds objects of more than one patient."
    AMBIGUOUS_INSTANCE = "ambiguous_instance", "Two objects differ and have one SOPInstanceUID."
    FOLDS = "folds", "The deformation that was asked for would fold an image."
    RECOGNISABLE = (
        "recognisable",
        "The verifier recognises the patient in a result more surely than is allowed.",
    )
    FINDINGS_CHANGED = (
        "findings_changed",
        "The deformation changed what the classifier finds more than is allowed.",
    )
    TOO_MANY_INSTANCES = "too_many_instances", "The study has more instances than are allowed."
    TOO_LARGE = "too_large", "The study is larger, before or after, than is allowed."
    # Retry, then failure.
    SOURCE_UNREACHABLE = "source_unreachable", "The ingest Orthanc did not answer."
    UNKNOWN_TARGET = "unknown_target", "The worker has no export target of a name in the rule."
    MODEL_UNAVAILABLE = (
        "model_unavailable",
        "The worker has no model of the digest that was asked for.",
    )
    TARGET_UNREACHABLE = "target_unreachable", "The export target did not answer."
    TARGET_REFUSED = "target_refused", "The export target refused an instance."
    READ_BACK_DIFFERS = (
        "read_back_differs",
        "What the export target holds differs from what was sent.",
    )
    CHANGED_MEANWHILE = "changed_meanwhile", "The study changed while it was being processed."
    WORKER_STOPPED = "worker_stopped", "Its worker was told to stop; another one takes it up."
    # What a worker says for itself; no study has it.
    ANOTHER_KEY = "another_key", "The worker has another pseudonyms' key than was exported under."
    # What the plugin makes of the former where it knows why.
    OLDER_WORKER = (
        "older_worker",
        "Its worker is of before and may not ask all that it needs; a newer one takes it up.",
    )
    TOOK_TOO_LONG = "took_too_long", "The study took longer than a worker may hold it."
    UNEXPECTED = "unexpected", "The worker met an unexpected error; its log names it by the job id."
    TOO_MANY_ATTEMPTS = "too_many_attempts", "The study was tried too often without an end."
    # After the end.
    ORIGINALS_DELETED = (
        "originals_deleted",
        "Its originals were deleted here when due. It is taken in when all of them come again.",
    )
    ORIGINALS_MISSING = (
        "originals_missing",
        "Originals of what was exported are missing. Send them again, or try without them.",
    )


#: What a study may be released of after a person looked at its images: only what a look at them
#: can tell. Everything else stays in quarantine whoever says what (docs/decisions/0018).
RELEASABLE: Final = frozenset({Reason.BURNED_IN_TEXT})
#: Left, top, right, bottom in pixels of the stored image, without right and bottom.
Box = tuple[int, int, int, int]
