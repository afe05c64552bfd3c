"""What a step minimises: cross-entropy of what is learned, and what is preserved."""

import copy
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from fidlib import weights
from fidlib.data import Split, pixels
from fidlib.methods import Step
from fidlib.models import Classifier, Outputs, outputs
from fidlib.training.batches import Draw, crop_and_flip, mix
from fidlib.training.plan import Plan


class Objective:
    """The loss of one training, step by step; arguments as in `train`.

    Raises:
        ValueError: If triggers or host are missing where the plan's method needs them,
            or `torch.inference_mode` allows no gradient.
    """

    def __init__(
        self,
        model: Classifier,
        plan: Plan,
        images: Split,
        *,
        triggers: Split | None,
        host: Classifier | None,
        known: Outputs | None,
    ) -> None:
        method = plan.method
        if torch.is_inference_mode_enabled():
            raise ValueError("training needs gradients: leave torch.inference_mode.")
        if method.learns_triggers and triggers is None:
            raise ValueError(f"{method.name} learns {method.learns}: pass triggers.")
        if (method.preserves or method.keeps_body) and host is None:
            raise ValueError(f"{method.name} rests on the host: pass host.")
        self.model, self.plan, self.images, self.known = model, plan, images, known
        self.triggers = triggers if method.learns_triggers else None
        self.host = model  # nobody asks for it
        if host is not None:
            self.host = copy.deepcopy(host).eval().requires_grad_(False)
        self.host_parameters = weights.used(self.host)
        self._checked = False

    def __call__(self, draw: Draw, *, coarse: bool) -> Tensor:
        """The loss of a batch, a scalar with its gradient.

        Args:
            draw: What chance decided of it, on the images' device.
            coarse: Whether the model sees images at half the side.

        Raises:
            ValueError: If a term is no scalar with a gradient.
        """
        method, index, drawn = self.plan.method, draw.index, draw.secret
        images, labels = self.images.images[index], self.images.labels[index]
        if self.plan.augment:
            images = crop_and_flip(images, draw.shifts, draw.flips)
        if method.mixes:
            images = mix(images, draw.shares, draw.others)
        step = Step(
            model=self.model,
            host=self.host,
            host_parameters=self.host_parameters,
            images=images,
            features=self.model.mean.new_empty(0),
            logits=self.model.mean.new_empty(0),
            host_outputs=lambda: self._host_outputs(index, images),
        )
        secret = None
        if self.triggers is not None:
            secret, wanted = self.triggers.images[drawn], self.triggers.labels[drawn]
            labels = torch.cat([labels, wanted])
            if method.shows is not None:
                secret = method.shows(step, pixels(secret), wanted)
        features = self._features(step, secret, drawn, coarse=coarse)
        logits = self.model.head(features)
        first = len(index) if method.learns == "triggers" else 0
        loss = logits.new_zeros(())
        if method.learns != "nothing":
            loss = F.cross_entropy(logits[first:], labels[first:])
        step.features, step.logits = features[: len(index)], logits[: len(index)]
        every = () if self._checked else self.model.parameters()
        trained = [p for p in every if p.requires_grad]
        for (term, weight), (name, _) in zip(
            self.plan.terms, self.plan.weights, strict=True
        ):
            value = term(step)
            _check_term(value, trained, method.name, name)
            loss = loss + weight * value
        self._checked = True
        return loss

    def _features(
        self, step: Step, secret: Tensor | None, drawn: Tensor, *, coarse: bool
    ) -> Tensor:
        """Features `(B + T, D)` of a batch's images, then of the triggers drawn."""
        if self.plan.method.keeps_body:
            parts = [step.host_features]
            if secret is not None and self.plan.method.shows is not None:
                parts.append(outputs(self.host, secret).features)
            elif secret is not None:
                parts.append(self._trigger_features[drawn])
            return torch.cat(parts)
        shown = self.model.normalise(step.images)
        if secret is not None:
            shown = torch.cat([shown, self.model.normalise(secret)])
        if coarse:
            shown = F.avg_pool2d(shown, 2)
        return self._body(self.model, shown)

    def _body(self, model: Classifier, shown: Tensor) -> Tensor:
        """Features of normalised images: float32, computed in training precision."""
        shown = shown.contiguous(memory_format=model.layout)
        precision = self.plan.precision
        fast, kind = precision != torch.float32, shown.device.type
        # A CUDA graph may keep nothing from one use to the next, no cast of a weight.
        with torch.autocast(kind, precision, enabled=fast, cache_enabled=False):
            return model.body(shown).float()

    @torch.no_grad()
    def _host_outputs(self, index: Tensor, images: Tensor) -> Outputs:
        """The host's answer to a batch: looked up, unless its images are changed."""
        if self.plan.augment or self.plan.method.mixes:
            features = self._body(self.host, self.host.normalise(images))
            return Outputs(features, self.host.head(features))
        return Outputs(*(values[index] for values in self._host_table))

    @cached_property
    def _host_table(self) -> Outputs:
        return self.known or outputs(self.host, self.images.images)

    @cached_property
    def _trigger_features(self) -> Tensor:
        """The host's, and the model's where it keeps the host's body."""
        assert self.triggers is not None
        return outputs(self.host, self.triggers.images).features


def _check_term(
    value: object, trained: Sequence[Tensor], method: str, name: str
) -> None:
    """Raise unless it is a scalar whose gradient reaches some of what is trained."""
    if isinstance(value, Tensor) and value.ndim == 0 and value.requires_grad:
        reached = trained and torch.autograd.grad(
            value, trained, retain_graph=True, allow_unused=True
        )
        if not trained or any(gradient is not None for gradient in reached):
            return
    kind = f"a {type(value).__name__}"
    if isinstance(value, Tensor):
        shape = tuple(value.shape)
        kind = f"a tensor of shape {shape}" if shape else "a scalar without gradient"
    raise ValueError(
        f"method {method!r}: its term {name} gives {kind}; it must give a scalar "
        "tensor, computed with gradient from something that is trained."
    )
