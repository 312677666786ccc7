"""What importing ignite warns of is no fault of the tests that import it first."""

import warnings

with warnings.catch_warnings():
    # torch.distributed.optim, which ignite imports, calls torch.jit.script at import.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ignite.engine  # noqa: F401

import pytest

from prichexy_testing import miniature_runs


@pytest.fixture(scope="session")
def miniature_runs_made(tmp_path_factory: pytest.TempPathFactory) -> miniature_runs.Runs:
    """Give finished runs of the first stages on the miniature set, made once."""
    return miniature_runs.make(tmp_path_factory.mktemp("miniature"))
