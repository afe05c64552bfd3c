"""Puts a study's models into parcels, for others to draw them."""

from pathlib import Path

from fidlib.measures import boundary, halves
from fidlib.study import parcel, reports
from fidlib.study.lineage import Name
from fidlib.study.study import ON_TRAIN, Study


def pack(study: Study, of: Name, path: Path) -> None:
    """Add a model to a parcel.

    Args:
        study: Whose it is.
        of: A lineage; it, its reports and its outputs are made if they are missing.
        path: The parcel, a zip file: there, or to be made.
    """
    test, sample, secret = map(study._store.carried, ("test", "sample", "triggers"))
    answers = study.outputs("host", test).logits.half()
    study.regions(of, test.images[boundary.three_right(test.labels, answers)])
    for split in (test, sample, secret):
        study.outputs(of, split)
    study.fidelity(of)
    study.fidelity(of, measures=halves.NAMES)
    study.fidelity(of, split=sample, measures=ON_TRAIN)
    pairs = [study._pair(of, "host", split)[0] for split in ("test", sample)]
    stored = study._find(of)
    shown = [split.images for split in (test, sample, secret)]
    others = reports.runs(stored.fingerprint, shown, pairs)
    parcel.pack(path, stored.fingerprint, stored.folder, others)
