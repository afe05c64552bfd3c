"""What proves ownership: keys, claims with exact p-values, and how they are forged."""
# ruff: noqa: F401 - what a reader types after `fl.ownership`

from fidlib.ownership.claims import (
    UNCOMMITTED,
    Evidence,
    answers,
    exact,
    fresh_keys,
    level,
    matches,
    verify,
)
from fidlib.ownership.forging import fitted, free_chain, judged, seed_search
from fidlib.ownership.keys import Key, commit, load, of
