"""Host against marked, on every level, as one report."""

from dataclasses import dataclass

from fidlib import metrics
from fidlib.data import Split
from fidlib.features import outputs
from fidlib.models import Classifier


@dataclass(frozen=True)
class Fidelity:
    """How far a marked model is from its host on one split."""

    twl: float | None
    """Total weight loss; None between architectures with other parameters."""
    lp: float | None
    """Prototype loss; None between heads of other shapes."""
    pfl: float | None
    """Penultimate feature loss; None between features of other dimensions."""
    spl: float
    """Softmax probability-distribution loss, nats."""
    agreement: float
    """Fraction of images on which both name the same class."""
    host_accuracy: float
    """Fraction of images the host gets right."""
    marked_accuracy: float
    """Fraction of images the marked model gets right."""
    host_trigger_accuracy: float | None
    """Fraction of triggers the host answers: near 1/K; None without triggers."""
    trigger_accuracy: float | None
    """Fraction of triggers the marked model answers; None without triggers."""
    images: int
    """N, the images behind the numbers."""


class Comparison:
    """A host's side of a comparison, computed once for many marked models.

    Args:
        host: The reference.
        split: Images and labels to compare on.
        triggers: The watermark, if there is one.
    """

    def __init__(
        self, host: Classifier, split: Split, triggers: Split | None = None
    ) -> None:
        self.host, self.split, self.triggers = host, split, triggers
        self.outputs = outputs(host, split.images)
        self.host_trigger_accuracy = self._trigger_accuracy(host)

    def __call__(self, marked: Classifier) -> Fidelity:
        """The report for one marked model.

        Raises:
            ValueError: If the two do not have the same number of classes.
        """
        host = self.host
        if marked.num_classes != host.num_classes:
            raise ValueError(
                f"the host has {host.num_classes} classes, the marked model "
                f"{marked.num_classes}; compare classifiers of the same classes."
            )
        # Sums of many small squares: in double, so that the order does not show.
        same = marked is self.host
        found = self.outputs if same else outputs(marked, self.split.images)
        features, logits = (t.double() for t in found)
        host_features, host_logits = (t.double() for t in self.outputs)
        pair = [
            {n: p.detach().double() for n, p in m.named_parameters()}
            for m in (host, marked)
        ]
        shapes = [{n: p.shape for n, p in parameters.items()} for parameters in pair]
        heads = [m.head.weight.detach().double() for m in (host, marked)]
        same_dim = features.shape == host_features.shape
        labels = self.split.labels
        return Fidelity(
            twl=metrics.twl(*pair).item() if shapes[0] == shapes[1] else None,
            lp=metrics.lp(*heads).item() if same_dim else None,
            pfl=metrics.pfl(host_features, features).item() if same_dim else None,
            spl=metrics.spl(host_logits, logits).item(),
            agreement=metrics.agreement(host_logits, logits),
            host_accuracy=metrics.accuracy(host_logits, labels),
            marked_accuracy=metrics.accuracy(logits, labels),
            host_trigger_accuracy=self.host_trigger_accuracy,
            trigger_accuracy=self._trigger_accuracy(marked),
            images=len(self.split),
        )

    def _trigger_accuracy(self, model: Classifier) -> float | None:
        if self.triggers is None:
            return None
        logits = outputs(model, self.triggers.images).logits
        return metrics.accuracy(logits, self.triggers.labels)


def compare(
    host: Classifier, marked: Classifier, split: Split, triggers: Split | None = None
) -> Fidelity:
    """How far a marked model is from its host.

    Works for any two classifiers of the same classes, watermarked or not.

    Args:
        host: The reference.
        marked: The model that is compared with it.
        split: Images and labels to compare on, on the models' device.
        triggers: The watermark, if there is one.

    Raises:
        ValueError: If the two do not have the same number of classes, or cannot take
            the images.
    """
    return Comparison(host, split, triggers)(marked)
