"""From run records to tables, plots and one page."""
