"""The plugin sends a study anew only after the broker itself would have."""

from prichexy_plugin.relay import RECALL_AFTER
from prichexy_worker.settings import Broker


def test_the_plugin_waits_well_longer_than_the_workers_redelivery_time():
    default = Broker.model_fields["redelivery_seconds"].default
    assert RECALL_AFTER.total_seconds() >= 2 * default
