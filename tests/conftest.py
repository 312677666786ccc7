"""How all tests run: none of them may fail because the machine is busy."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Hypothesis would call an example that takes 200 ms a failure, and slow generation an error.
settings.register_profile(
    "unhurried",
    settings.get_profile("ci" if os.environ.get("CI") else "default"),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unhurried")
