"""The report: reads artifacts and metrics, writes tables and figures."""
