"""Workers that turn a study at the ingest Orthanc into one that may be published."""
