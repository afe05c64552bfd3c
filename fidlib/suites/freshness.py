"""Whether what a suite published is of the cells and parameters of today."""

import json
from collections.abc import Mapping
from typing import Any

from fidlib.runs import machine, store
from fidlib.suites.read import Job, Suite


def stale(suite: Suite) -> dict[str, str]:
    """Notebooks of a suite to run again before a release, each with the reason."""
    folder = store.shelf("figures") / suite.name
    reasons = {}
    for job in suite.jobs:
        record = folder / f"{job.name}-provenance.json"
        content = json.loads(record.read_text("utf-8")) if record.exists() else None
        if reason := _stale(job, content):
            reasons[job.name] = reason
    return reasons


def _stale(job: Job, record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "nothing of it is published"
    commit = record["commit"]
    if commit == "unknown" or commit.endswith("-dirty"):
        return f"it was made by code that no commit has ({commit})"
    if not machine.is_behind(commit):
        return f"it was made at commit {commit}, which is not in the history of HEAD"
    if record.get("cells") != job.code:
        return "its code cells were changed since"
    asked = {**(record.get("asked") or {}), "scale": job.parameters.get("scale")}
    if asked != {"scale": None} | job.parameters:  # a scale is asked of each run
        return "its suite asks for other parameters now"
    return ""
