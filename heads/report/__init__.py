"""The report of one or several runs: one HTML page that needs nothing else, and its figures as PNG and parquet."""
