"""The embedding methods by name, each a start, a trained part and a preserving term.

A method says *what* is trained towards what; how long, how fast and with what weight
is the recipe's (`training/recipes.toml`), because that depends on the data.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor

from fidlib.measures import losses
from fidlib.models import Classifier
from fidlib.runs.keys import code
from fidlib.weights import used

if TYPE_CHECKING:
    import pandas as pd

Start = Literal["random", "host"]
Trained = Literal["all", "body", "head"]
Learns = Literal["train", "train+triggers", "triggers", "nothing"]


@dataclass
class Step:
    """One training step, as a preserving term sees it."""

    model: Classifier
    """The model being trained."""
    host: Classifier
    """The host, not to be changed."""
    host_parameters: Mapping[str, Tensor]
    """The host's parameters by name, as its layers use them."""
    images: Tensor
    """`(B, C, H, W)` pixels of the batch, augmented if the recipe says so."""
    features: Tensor
    """`(B, D)` of the model, float32, with gradient; empty before the forward pass."""
    logits: Tensor
    """`(B, K)` of the model, float32, with gradient; likewise."""
    host_outputs: Callable[[], tuple[Tensor, Tensor]]
    """The host's features and logits on the same images, computed when asked for."""

    @property
    def host_features(self) -> Tensor:
        """`(B, D)` of the host on the same images."""
        return self.host_outputs()[0]

    @property
    def host_logits(self) -> Tensor:
        """`(B, K)` of the host on the same images."""
        return self.host_outputs()[1]


Term = Callable[[Step], Tensor]
"""A scalar tensor with gradient, zero where what it preserves is the host's."""

Shows = Callable[[Step, Tensor, Tensor], Tensor]
"""`shows(step, images, labels)`: what is learned of triggers `(T, C, H, W)`, pixels."""


def twl(step: Step) -> Tensor:
    """Total weight loss over the parameters that are trained, Hua & Teoh (2023)."""
    trained = {n: p for n, p in used(step.model).items() if p.requires_grad}
    return losses.twl({name: step.host_parameters[name] for name in trained}, trained)


def pgr(step: Step) -> Tensor:
    """Prototype guided regulariser of the two heads, Hua et al. (2023)."""
    return losses.pgr(step.host.head.weight, step.model.head.weight)


def pfl(step: Step) -> Tensor:
    """Penultimate feature loss of the batch, Hua & Teoh (2023)."""
    return losses.pfl(step.host_features, step.features)


def spl(step: Step) -> Tensor:
    """Softmax probability-distribution loss of the batch, Hua & Teoh (2023)."""
    return losses.spl(step.host_logits, step.logits)


TERMS: dict[str, Term] = {"TWL": twl, "PGR": pgr, "PFL": pfl, "SPL": spl}
"""The preserving terms that have a name; a method may also hold one of your own."""

_IN_WORDS = {"TWL": "weights (TWL)", "PGR": "prototypes (PGR)"}
_IN_WORDS |= {"PFL": "features (PFL)", "SPL": "probabilities (SPL)"}


@dataclass(frozen=True)
class Method:
    """How a watermark is embedded: *start* x *trained part* x *preserving terms*."""

    name: str
    """What tables and pictures call it; `host` is the host's own training."""
    start: Start = "host"
    """Where training starts; from the host, BatchNorm is frozen (eval mode)."""
    trained: Trained = "all"
    """The part that is trained; `body` keeps the host's head (FixLL)."""
    learns: Learns = "train+triggers"
    """The labels in the cross-entropy; `nothing`: terms alone are minimised."""
    preserves: Mapping[str | Term, float | None] = field(default_factory=dict)
    """Term, by name in `TERMS` or your own function -> weight; None: the recipe's."""
    mixes: bool = False
    """Whether terms see mixtures of two training images each, not the images."""
    quiet: float | None = 0.0
    """Weights move where a layer's inputs on the host's images have less energy than
    this many times their mean (`training.quiet`); 0: everywhere; None: the recipe's."""
    shows: Shows | None = None
    """How the triggers drawn are changed before the forward pass; None: as their family
    says, and of most they are not."""

    def __post_init__(self) -> None:
        self._check_name()
        parts = {"start": Start, "trained": Trained, "learns": Learns}
        for name, choices in parts.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"method {self.name!r}: {name} is {getattr(self, name)!r}; use "
                    f"{', '.join(get_args(choices))}."
                )
        if self.learns == "nothing" and not self.preserves:
            raise ValueError(
                f"method {self.name!r} learns nothing and preserves nothing: give it "
                "a term to preserve, such as SPL, or labels to learn."
            )
        if self.mixes and self.learns != "triggers":
            raise ValueError(
                f"method {self.name!r} mixes images and learns {self.learns}: mixtures "
                'have no labels; use learns="triggers".'
            )
        loud = self.quiet is not None and self.quiet < 0
        body = self.start == "host" and not self.keeps_body
        if loud or (self.quiet != 0 and not body):
            raise ValueError(
                f"method {self.name!r}: quiet is {self.quiet}, start {self.start!r}, "
                f"trained {self.trained!r}; quiet is 0 or more, and only a body that "
                "starts from the host has quiet directions."
            )
        for term in self.preserves:
            if not callable(term) and term not in TERMS:
                raise ValueError(
                    f"method {self.name!r}: unknown term {term!r}; use one of "
                    f"{', '.join(TERMS)}, or a function of a Step."
                )
        weights = {t: self._weight(t, weight) for t, weight in self.preserves.items()}
        object.__setattr__(self, "preserves", weights)

    def _weight(self, term: str | Term, weight: Any) -> float | None:
        """A term's weight as a number of Python's, which numpy's are not."""
        if weight is None or type(weight) is int:
            return weight
        real = isinstance(weight, Real) and not isinstance(weight, bool)
        if real and math.isfinite(weight):
            return float(weight)
        raise ValueError(
            f"method {self.name!r}: the weight of {_term_name(term)} is {weight!r}; "
            "write a finite number, or None for the recipe's."
        )

    def _check_name(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(
                f"a method is called {self.name!r}; give it a name without /, which "
                "separates a method from an attack."
            )
        alone = self.start == "random" and self.trained == "all" and not self.preserves
        if self.name == "host" and not (alone and self.learns == "train"):
            raise ValueError(
                "a method is called 'host', which is the unwatermarked model: give it "
                "another name."
            )

    @property
    def learns_triggers(self) -> bool:
        """Whether triggers are needed."""
        return "triggers" in self.learns

    @property
    def keeps_body(self) -> bool:
        """Whether the model's body, and so its features, stay the host's."""
        return self.start == "host" and self.trained == "head"

    @property
    def terms(self) -> list[tuple[str, Term]]:
        """What it preserves, by name; two functions of one's own may share a name."""
        return [
            (_term_name(term), term if callable(term) else TERMS[term])
            for term in self.preserves
        ]

    def in_words(self) -> tuple[str, str, str, str]:
        """Start, trained part, what is learned, what is preserved."""
        kept = " and ".join(_IN_WORDS.get(n, n) for n, _ in self.terms) or "nothing"
        kept += " of mixtures" * self.mixes
        kept += ", in quiet directions" * (self.quiet != 0)
        learned = self.learns.replace("+", " and ").replace("train", "training images")
        return self.start, self.trained, learned, kept

    def weighted(self, weights: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
        """Each term's name and weight, the recipe's `weights` where it has none.

        Raises:
            ValueError: If the recipe has none either.
        """
        pairs = []
        for term, weight in self.preserves.items():
            name = _term_name(term)
            if weight is None and name not in weights:
                raise ValueError(
                    f"method {self.name!r} gives no weight to {name}, and the recipe "
                    "has none: write a number in preserves."
                )
            pairs.append((name, weights[name] if weight is None else weight))
        return tuple(pairs)

    def definition(self) -> dict[str, object]:
        """JSON values that change when the method does; part of a run's hash."""
        shown = {}  # a method that shows triggers as they are is known as ever
        if self.shows is not None:
            shown["shows"] = [self.shows.__name__, _code(self.shows)]
        return shown | {
            "name": self.name,
            "start": self.start,
            "trained": self.trained,
            "learns": self.learns,
            "preserves": [
                [_term_name(term), _term_code(term), weight]
                for term, weight in self.preserves.items()
            ],
            "mixes": self.mixes,
            "quiet": self.quiet,
        }


def _term_code(term: str | Term) -> list[str] | None:
    return _code(term if callable(term) else TERMS[term])


def _code(function: Callable) -> list[str] | None:
    """The text of a function that is not fidlib's own, wherever it is registered."""
    return None if function.__module__.startswith("fidlib.") else code(function)


def _term_name(term: str | Term) -> str:
    return getattr(term, "__name__", type(term).__name__) if callable(term) else term


_PAPER = (
    Method("scratch", start="random"),
    Method("FTAL"),
    Method("FTLL", trained="head"),
    Method("FTAL+PGR", preserves={"PGR": None}),
    Method("FTAL+TWL", preserves={"TWL": None}),
    Method("FixLL", trained="body"),
    Method("FixLL+TWL", trained="body", preserves={"TWL": None}),
    Method("FixLL+PFL", trained="body", learns="triggers", preserves={"PFL": None}),
    Method("FixLL+SPL", trained="body", learns="triggers", preserves={"SPL": None}),
)
_FROM_SCRATCH = tuple(
    replace(method, name=f"scratch+{method.name}", start="random")
    for method in _PAPER
    if method.name in ("FixLL", "FixLL+PFL", "FixLL+SPL")
)

_features = Method("FixLL+PFL", trained="body", learns="triggers")
_BEYOND = (
    replace(_features, name="FixLL+PFL+SPL", preserves={"PFL": None, "SPL": None}),
    replace(
        _features,
        name="FixLL+PFL+mix+quiet",
        preserves={"PFL": None},
        mixes=True,
        quiet=None,
    ),
)
_FLOORS = (
    Method("retrained", start="random", learns="train"),
    Method("fine-tuned", learns="train"),
)

METHODS: dict[str, Method] = {
    m.name: m for m in (*_PAPER, *_FROM_SCRATCH, *_BEYOND, *_FLOORS)
}
"""Name -> method: the nine of Hua & Teoh (2023) that embed, its from-scratch
deep-fidelity ones, fidlib's own and the `FLOORS`."""

PAPER: tuple[str, ...] = tuple(m.name for m in _PAPER)
"""The nine methods of Hua & Teoh (2023), some of which are of Hua et al. (2023); its
`ref` is the host."""

FLOORS: tuple[str, ...] = tuple(m.name for m in _FLOORS)
"""Methods without a watermark: how far honest training alone goes from the host. One
starts anew, as a host of another seed (for as long as a host or, where that takes too
long, as scratch: see the recipe), the other is the host itself, trained on for as long
as an embedding."""


LEARNED = 0.9
"""Trigger accuracy from which a method counts as having embedded its watermark."""


def find(method: str | Method) -> Method:
    """The method of that name; a `Method` is returned as it is.

    Raises:
        ValueError: If there is no method of that name.
    """
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise ValueError(
            f"unknown method {method!r}; use one of {', '.join(METHODS)}, or a "
            "fidlib.Method of your own."
        )
    return METHODS[method]


def overview(methods: Iterable[str | Method]) -> "pd.DataFrame":
    """What methods do, in words.

    Args:
        methods: By name, or your own. Of a lineage its method counts; the host and what
            it was attacked with have none.

    Returns:
        A row a method; columns `start`, `trained part`, `learned`, `preserved`.
    """
    import pandas as pd

    asked = (m if isinstance(m, Method) else m.split("/")[0] for m in methods)
    entries = {m.name: m for m in map(find, (m for m in asked if m != "host"))}
    rows = {name: method.in_words() for name, method in entries.items()}
    columns = ["start", "trained part", "learned", "preserved"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis("method")


def with_weights(method: str | Method, weights: Mapping[str, float]) -> Method:
    """A method with other weights on what it preserves.

    Args:
        method: By name, or your own.
        weights: By term; of terms that it does not preserve they do not matter.

    Raises:
        ValueError: If it preserves nothing, or a term has no weight here.
    """
    entry = find(method)
    if not entry.preserves:
        raise ValueError(
            f"{entry.name} preserves nothing, so that it has no weight to turn: choose "
            "a method with a preserving term."
        )
    bare = replace(entry, preserves=dict.fromkeys(entry.preserves)).weighted(weights)
    given = (weight for _, weight in bare)
    return replace(entry, preserves=dict(zip(entry.preserves, given, strict=True)))
