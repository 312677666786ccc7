"""What the plugin and the workers say to each other. Standard library only.

Both sides import this package and nothing else of each other, and take everything from here. Every
value is frozen, is parsed strictly at the edge, and carries no identifying value: a study is named
by its ``job_id`` (random, made by the plugin) and by Orthanc's own id of it.

The way of one study::

    plugin  --StudyMessage (Celery, JSON)-->  worker
    plugin  <--StudyReport (REST, JSON)-----  worker      one at each transition
    plugin  ---Claim (answer to PROCESSING)-> worker      may this worker go on?
    plugin  <--TextPictures (REST, JSON)----  worker      what a human must look at
    plugin  <--ImageInDoubt (REST, JSON)----  worker      what a human may decide over
    plugin  <--ImagePictures (REST, JSON)---  worker      one exported image, before and after
    plugin  <--PatientsAsked (REST, JSON)---  worker      has the study's UID another patient, too?
    plugin  ---PatientsTold (the answer)----> worker
    plugin  <--WorkerAnnouncement (REST)----  worker      at start, then as a heartbeat

Old and new stand side by side while a gateway is upgraded (docs/scale-out.md):

* Every value names its ``version``. Versions ``OLDEST_VERSION`` to ``CONTRACT_VERSION`` are read.
* Version 1 has no key beside its own. From version 2 on a key that is not known is passed over, so
  that a later version may tell more without being refused.
* A message is written in the oldest version that can say it, a report in the version that the
  plugin said it has: ``REQUEST_HEADER`` of a worker tells the plugin the worker's version, and the
  answer comes in the older one of the two.
* A message of a version that is not known yet is ``LaterVersion``: a worker gives it back unopened.
"""

from __future__ import annotations

from typing import Final

from prichexy_worker.contract.pictures import (
    ImageInDoubt,
    ImagePictures,
    TextPictures,
)
from prichexy_worker.contract.reading import (
    PSEUDONYMOUS_UID,
    ContractError,
    LaterVersion,
    version_of,
)
from prichexy_worker.contract.studies import (
    Claim,
    Looked,
    PatientsAsked,
    PatientsTold,
    StudyMessage,
    StudyReport,
)
from prichexy_worker.contract.terms import (
    ANNOUNCE_INTERVAL_SECONDS,
    API_ROOT,
    CONTRACT_VERSION,
    DEFAULT_QUEUE,
    ENDED,
    IMAGE_PARTS,
    LEAST_STRENGTH,
    MAX_ATTEMPTS,
    MAX_CLAIMS,
    MOST_BOXES,
    MOST_DOUBTS,
    MOST_IMAGES,
    MOST_MODELS,
    MOST_PICTURES,
    MOST_STRENGTH,
    MOST_TARGETS,
    OLDEST_VERSION,
    QUEUE_NAME,
    RELEASABLE,
    REPORTABLE,
    REQUEST_HEADER,
    TARGET_NAME,
    TASK_NAME,
    WHOLE_PICTURE_BYTES,
    WHOLE_SIDE,
    Box,
    Errand,
    Reason,
    Sentenced,
    State,
)
from prichexy_worker.contract.workers import (
    Available,
    ModelInfo,
    TargetInfo,
    WorkerAnnouncement,
)

__all__ = [
    "ANNOUNCE_INTERVAL_SECONDS",
    "API_ROOT",
    "CONTRACT_VERSION",
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
    "PSEUDONYMOUS_UID",
    "QUEUE_NAME",
    "RELEASABLE",
    "REPORTABLE",
    "REQUEST_HEADER",
    "SOFTWARE_VERSION",
    "TARGET_NAME",
    "TASK_NAME",
    "WHOLE_PICTURE_BYTES",
    "WHOLE_SIDE",
    "Available",
    "Box",
    "Claim",
    "ContractError",
    "Errand",
    "ImageInDoubt",
    "ImagePictures",
    "LaterVersion",
    "Looked",
    "ModelInfo",
    "PatientsAsked",
    "PatientsTold",
    "Reason",
    "Sentenced",
    "State",
    "StudyMessage",
    "StudyReport",
    "TargetInfo",
    "TextPictures",
    "WorkerAnnouncement",
    "version_of",
]

#: The version of all that is installed together; setup.cfg reads it from here.
SOFTWARE_VERSION: Final = "0.1.0"
