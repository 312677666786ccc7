"""Tells a worker whether the study that it has claimed is of one patient, and nothing else.

To Orthanc, two PatientIDs in one study are two studies. Who may look names up in Orthanc itself can
try any patient's; so workers may not, and ask here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prichexy_plugin.dashboard.from_workers import holding_study
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.studies import Studies
from prichexy_worker.contract import PatientsAsked, PatientsTold

__all__ = ["take_question"]


def take_question(ledger: Ledger, studies: Studies) -> Callable[[Any], object]:
    """Give what answers PatientsAsked with PatientsTold. It raises StudiesUnavailable, Unreadable.

    Without the claim that holds nothing is asked of Orthanc.
    """

    def take(data: Any) -> object:
        asked = PatientsAsked.from_json(data)
        study = holding_study(ledger, asked)
        if study is None:
            return PatientsTold(proceed=False).to_json()
        return PatientsTold(proceed=True, patients=studies.patients(study.study_id)).to_json()

    return take
