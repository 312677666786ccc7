"""A real Celery worker process with the real app and task, and a pretended anonymisation.

``python -m prichexy_testing.worker_process FOLDER`` reads the worker's settings from the
environment. What it does with a study is told by the message's revision; each attempt leaves a
line with the revision in FOLDER/attempts. What it does between studies leaves a letter in
FOLDER/looks.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Final

from prichexy_worker.app import Leaving, call_between_studies, create_app, work
from prichexy_worker.contract import Reason, State, StudyMessage
from prichexy_worker.logs import configure_logging
from prichexy_worker.retry import RetryPolicy
from prichexy_worker.settings import load_settings
from prichexy_worker.study import Outcome
from prichexy_worker.tasks import register

__all__ = ["FINISH", "LINGER", "LINGER_AND_LEAVE", "LINGER_AND_RETRY", "RETRY_ONCE", "main"]

FINISH: Final = 1  # exported at once
RETRY_ONCE: Final = 2  # fails once, then is exported
LINGER: Final = 3  # is worked on until FOLDER/release exists
LINGER_AND_RETRY: Final = 4  # the same, and fails once then
LINGER_AND_LEAVE: Final = 5  # the first attempt is worked on until the worker has to let go of it


def main(folder: Path) -> int:
    """Run until SIGTERM."""
    configure_logging()
    settings = load_settings()

    def process(message: StudyMessage) -> Outcome:
        with (folder / "attempts").open("a+") as attempts:
            attempts.seek(0)
            first = f"{message.revision}\n" not in attempts
            attempts.write(f"{message.revision}\n")
        if message.revision in (LINGER, LINGER_AND_RETRY):
            pause = threading.Event()
            while not (folder / "release").exists():
                pause.wait(0.05)
        if message.revision == LINGER_AND_LEAVE and first:
            while time.monotonic() <= leaving.by():
                threading.Event().wait(0.05)
            return Outcome(State.QUEUED, Reason.WORKER_STOPPED, again=True)
        if message.revision in (RETRY_ONCE, LINGER_AND_RETRY) and first:
            return Outcome(State.QUEUED, Reason.TARGET_UNREACHABLE, again=True)
        with (folder / "finished").open("a") as finished:
            finished.write(f"{message.revision}\n")
        return Outcome(State.EXPORTED)

    def look() -> None:
        with (folder / "looks").open("a") as looks:
            looks.write(".")

    app = create_app(settings)
    leaving = Leaving(settings.limits.stop_seconds)
    call_between_studies(app, look, 0.2)
    register(app, process, RetryPolicy(first=0.2))
    return work(app, settings)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
