"""The script that Orthanc loads in fault tests: the shipped one, with shorter pauses.

The plugin's pauses are constants, made for hospitals: hours until a message is taken for lost,
minutes until a worker is. Here they are seconds. Nothing else is different.
"""

import os
from datetime import timedelta
from pathlib import Path

from prichexy_worker import contract, retry

_PATIENCE = float(os.environ["PRICHEXY_FAULTS_PATIENCE"])
# A worker is silent after four of these. They announce themselves each second.
contract.ANNOUNCE_INTERVAL_SECONDS = 1.5 * _PATIENCE  # type: ignore[misc]
retry._FIRST_PROBE = 0.5  # type: ignore[misc]
retry._LAST_PROBE = 2.0  # type: ignore[misc]
retry.PROBE_PATIENCE = timedelta(seconds=15)  # type: ignore[misc]

from prichexy_plugin import relay  # noqa: E402

# Well above the workers' broker.redelivery_seconds in these tests, as ever.
relay.RECALL_AFTER = timedelta(seconds=30 * _PATIENCE)  # type: ignore[misc]
relay._ASK_EVERY = timedelta(seconds=2)  # type: ignore[misc]

_SHIPPED = Path(__file__).resolve().parents[3] / "plugin/prichexy_orthanc.py"
exec(compile(_SHIPPED.read_text(encoding="utf-8"), str(_SHIPPED), "exec"))
