"""Reading in W&B: the saved workspace, a sweep's report as a run, and runs read back from W&B as the report's records.

metrics.jsonl is the truth and W&B its mirror, so whatever is read here must be what the run folder says.
"""
