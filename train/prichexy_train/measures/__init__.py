"""What is computed from scores: AUC, intervals over patients, retrieval."""
