"""The pictures of text that somebody must decide over; the audit trail says who looked at them."""

from __future__ import annotations

from prichexy_plugin.dashboard.http import Response
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pictures import Pictures

__all__ = ["answer_picture", "answer_whole_picture"]


def answer_whole_picture(
    ledger: Ledger, pictures: Pictures, job_id: str, number: int, actor: str
) -> Response:
    """Give the picture of an image that a human may decide over; the trail says who looked."""
    study = ledger.study(job_id)
    known = any(image.number == number for image in ledger.in_doubt(job_id))
    picture = pictures.whole(study.study_id, number) if study is not None and known else None
    if picture is None:
        return Response(404, "text/plain; charset=utf-8", "There is no such picture.\n")
    ledger.note_picture_shown(job_id, actor)
    return Response(200, "image/png", picture)


def answer_picture(
    ledger: Ledger, pictures: Pictures, job_id: str, number: int, actor: str
) -> Response:
    """Give one picture of a study that a human must look at; the audit trail says who did."""
    study = ledger.study(job_id)
    known = study is not None and number <= study.measures.get("text_pictures", 0)
    picture = pictures.picture(study.study_id, number) if study is not None and known else None
    if picture is None:
        return Response(404, "text/plain; charset=utf-8", "There is no such picture.\n")
    ledger.note_picture_shown(job_id, actor)
    return Response(200, "image/png", picture)
