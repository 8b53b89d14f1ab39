"""Tests a document has to pass. A new filter is one file here and one line in the catalog."""

from raysl.data.filters.base import Filter, apply_filters, run_filters

__all__ = ["Filter", "apply_filters", "run_filters"]
