"""The Orthanc plugin: takes studies in, keeps the ledger, serves the dashboard."""
