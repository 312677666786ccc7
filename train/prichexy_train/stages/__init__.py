"""What is trained: one module a stage, each a task for the loop."""
