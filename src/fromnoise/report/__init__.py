"""The report: one page a run, a pure function of the JSON files in its folder."""
