"""What several test modules need: DICOM built in code, fakes, and the way to shared data."""
