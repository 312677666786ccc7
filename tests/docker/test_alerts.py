"""The Prometheus files are what Prometheus takes, and each alert rings when it should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "docker" / "prometheus"
PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
ALERTS = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
PLUGIN = 'instance="ingest:8042",job="prichexy"'
WORKER = 'instance="worker:9108",job="prichexy-worker"'

#: By alert: series (values a minute apart), how many minutes until it must ring, and none before.
CASES: dict[str, tuple[dict[str, str], int]] = {
    "PriCheXyDown": ({f"up{{{PLUGIN}}}": "0x300"}, 5),
    "PriCheXyProblems": ({f"prichexy_problems{{{PLUGIN}}}": "2x300"}, 5),
    "PriCheXyLedgerDown": ({f"prichexy_ledger_up{{{PLUGIN}}}": "0x300"}, 2),
    "PriCheXyBrokerDown": ({f"prichexy_broker_up{{{PLUGIN}}}": "0x300"}, 10),
    "PriCheXyHandingOutStopped": (
        {f'prichexy_circuit_open{{{PLUGIN},blame="target"}}': "1x300"},
        15,
    ),
    "PriCheXyPaused": ({f'prichexy_paused{{{PLUGIN},stage="export"}}': "1x300"}, 240),
    "PriCheXyNoWorker": ({f"prichexy_workers_alive{{{PLUGIN}}}": "0x300"}, 10),
    "PriCheXyAnotherKey": ({f"prichexy_workers_with_another_key{{{PLUGIN}}}": "1x300"}, 5),
    "PriCheXyStudiesLate": (
        {f'prichexy_studies_late{{{PLUGIN},cause="no_worker"}}': "3x300"},
        30,
    ),
    "PriCheXyStandstill": (
        {
            f'prichexy_studies{{{PLUGIN},state="queued"}}': "3x300",
            f'prichexy_study_seconds_count{{{PLUGIN},end="exported"}}': "7x300",
        },
        60,
    ),
    "PriCheXyStudiesFailed": (
        {f'prichexy_study_seconds_count{{{PLUGIN},end="failed"}}': "0x9 1x300"},
        10,
    ),
    "PriCheXyQuarantineWaits": (
        {f'prichexy_studies{{{PLUGIN},state="quarantined"}}': "1x5000"},
        3 * 24 * 60,
    ),
    "PriCheXyDiskAlmostFull": (
        {
            f"prichexy_disk_free_bytes{{{PLUGIN}}}": "9x300",
            f"prichexy_disk_size_bytes{{{PLUGIN}}}": "100x300",
        },
        15,
    ),
    "PriCheXyAuditNotTold": (
        {f"prichexy_audit_untold_seconds{{{PLUGIN}}}": "0+60x300"},
        66,
    ),
    "PriCheXyWorkerHangs": ({f"prichexy_worker_busy_seconds{{{WORKER}}}": "0+60x300"}, 31),
    "PriCheXyWorkerNotReady": ({f"prichexy_worker_ready{{{WORKER}}}": "0x300"}, 15),
}
#: A gateway that is well: nothing of it may ring an alert.
WELL = {
    f"up{{{PLUGIN}}}": "1x300",
    f"up{{{WORKER}}}": "1x300",
    f"prichexy_problems{{{PLUGIN}}}": "0x300",
    f"prichexy_ledger_up{{{PLUGIN}}}": "1x300",
    f"prichexy_broker_up{{{PLUGIN}}}": "1x300",
    f'prichexy_circuit_open{{{PLUGIN},blame="target"}}': "0x300",
    f'prichexy_paused{{{PLUGIN},stage="export"}}': "0x300",
    f"prichexy_workers_alive{{{PLUGIN}}}": "1x300",
    f"prichexy_workers_with_another_key{{{PLUGIN}}}": "0x300",
    f'prichexy_studies_late{{{PLUGIN},cause="no_worker"}}': "0x300",
    f'prichexy_studies{{{PLUGIN},state="queued"}}': "3x300",
    f'prichexy_studies{{{PLUGIN},state="quarantined"}}': "0x300",
    f'prichexy_study_seconds_count{{{PLUGIN},end="exported"}}': "0+1x300",
    f'prichexy_study_seconds_count{{{PLUGIN},end="failed"}}': "4x300",
    f"prichexy_disk_free_bytes{{{PLUGIN}}}": "50x300",
    f"prichexy_disk_size_bytes{{{PLUGIN}}}": "100x300",
    f"prichexy_audit_untold_seconds{{{PLUGIN}}}": "30x300",
    f"prichexy_worker_busy_seconds{{{WORKER}}}": "0x300",
    f"prichexy_worker_ready{{{WORKER}}}": "1x300",
}

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool of Debian's prometheus is not installed"
)


def promtool(*arguments: str) -> None:
    """Run promtool. Fails with what it wrote."""
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rehearse(folder: Path, series: dict[str, str], checks: list[dict[str, object]]) -> None:
    """Have promtool play ``series`` to the rules and compare what rings."""
    test = {
        "rule_files": [str(FOLDER / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in series.items()
                ],
                "alert_rule_test": checks,
            }
        ],
    }
    file = folder / "rehearsal.yml"
    # YAML reads JSON.
    file.write_text(json.dumps(test), encoding="utf-8")
    promtool("test", "rules", str(file))


def ringing(folder: Path, name: str, series: dict[str, str], minute: int) -> str:
    """Give what promtool says rings, when it is told that nothing should."""
    test = [{"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []}]
    try:
        rehearse(folder, series, test)  # type: ignore[arg-type]
    except AssertionError as failure:
        return str(failure)
    return ""


def test_prometheus_takes_the_files() -> None:
    promtool("check", "config", "--syntax-only", str(FOLDER / "prometheus.yml"))
    promtool("check", "rules", str(FOLDER / "alerts.yml"))


def test_every_alert_has_a_case_and_a_line_on_the_page() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert names == list(CASES)
    section = PAGE.read_text(encoding="utf-8").split("## Alerts, and what to do")[1]
    assert re.findall(r"^\| `(PriCheXy\w+)`", section, re.MULTILINE) == names


def test_alerts_ask_for_documented_metrics_only() -> None:
    page = PAGE.read_text(encoding="utf-8")
    documented = set(re.findall(r"`(prichexy_\w+)`", page))
    asked = {name for alert in ALERTS for name in re.findall(r"prichexy_\w+", alert["expr"])}
    assert asked
    assert {re.sub(r"_(count|bucket|sum)$", "", name) for name in asked} <= documented


@pytest.mark.parametrize("name", list(CASES))
def test_an_alert_rings_in_time_and_not_before(name: str, tmp_path: Path) -> None:
    series, minute = CASES[name]
    assert not ringing(tmp_path, name, series, minute - 1)
    assert f'alertname="{name}"' in ringing(tmp_path, name, series, minute)


def test_a_gateway_that_is_well_rings_none(tmp_path: Path) -> None:
    checks: list[dict[str, object]] = [
        {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []}
        for name in CASES
        for minute in (0, 20, 70, 200)
    ]
    rehearse(tmp_path, WELL, checks)


def test_what_somebody_paused_is_neither_late_nor_at_a_standstill(tmp_path: Path) -> None:
    paused = {
        **CASES["PriCheXyStandstill"][0],
        f'prichexy_studies_late{{{PLUGIN},cause="export_paused"}}': "3x300",
        f'prichexy_studies_late{{{PLUGIN},cause="intake_paused"}}': "2x300",
        f'prichexy_paused{{{PLUGIN},stage="export"}}': "1x300",
    }
    for name in ("PriCheXyStandstill", "PriCheXyStudiesLate"):
        assert not ringing(tmp_path, name, paused, 200)
