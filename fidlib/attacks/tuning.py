"""Attacks by training: `training.train`, from another start or on other labels."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from fidlib import models, training, triggers
from fidlib.data import Split, pixels
from fidlib.methods import METHODS, Method, Step, Trained
from fidlib.models import Classifier
from fidlib.runs import machine
from fidlib.runs.keys import stream
from fidlib.training import Plan
from fidlib.training.recipes import Decay, Optimizer
from fidlib.weights import Mask


def tune(
    model: Classifier,
    split: Split,
    seed: int,
    learning_rate: float = 0.01,
    *,
    trained: Trained = "all",
    epochs: int = 20,
    batch_size: int = 64,
    optimizer: Optimizer = "sgd",
    decay: Decay = "cosine",
    weight_decay: float = 5e-4,
    trains_norm: bool = True,
    fresh_head: bool = False,
    asks_victim: bool = False,
) -> Classifier:
    """Trained on by the attacker's images.

    Adi et al. 2018 (their FTLL, FTAL, RTLL and RTAL) in the settings of WRT, Lukas et
    al. 2022.

    Args:
        model: Not changed.
        split: The attacker's images.
        seed: Decides their order, and a fresh head.
        learning_rate: At its highest.
        trained: `all` layers, or the `head`.
        epochs: Passes over the images.
        batch_size: Images in a step.
        optimizer: `adam` or `sgd`, as in `training.Plan`.
        decay: How the rate changes, as in `training.Plan`.
        weight_decay: Of sgd, as in `training.Plan`.
        trains_norm: Whether BatchNorm is trained and follows the batches, unless the
            head is trained alone.
        fresh_head: Whether the head starts at random.
        asks_victim: Whether labels are the model's answers, not the images' own.

    Raises:
        Diverged: If the loss is no longer a number.
    """
    labels = _answers(model, split) if asks_victim else split.labels
    plan = Plan(
        method=Method("attack", trained=trained, learns="train"),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        decay=decay,
        optimizer=optimizer,
        weight_decay=weight_decay,
        trains_norm=trains_norm,
    )
    start = _with_fresh_head(model, seed) if fresh_head else copy.deepcopy(model)
    return training.train(start, plan, Split(split.images, labels), host=model).model


def fine_prune(
    model: Classifier,
    split: Split,
    seed: int,
    share: float = 0.96,
    *,
    learning_rate: float = 1e-3,
    epochs: int = 10,
) -> Classifier:
    """The channels that the attacker's images use least cut off, then trained on.

    Of the last stage: the inputs of the first linear layer behind all convolutions, by
    mean activation (Liu et al. 2018); WRT cuts off .96. What is cut off stays so.

    Args:
        model: Not changed.
        split: The attacker's images.
        seed: Decides their order.
        share: Of the channels, in [0, 1); one is left at least.
        learning_rate: Of `tune`, which follows; at its highest.
        epochs: Of `tune`: passes over the images.
    """
    masked = copy.deepcopy(model)
    layer, activity = _last_stage(masked, split)
    count = min(round(share * len(activity)), len(activity) - 1)
    kept = torch.ones_like(activity)
    kept[activity.argsort(stable=True)[:count]] = 0
    parametrize.register_parametrization(layer, "weight", Mask(kept))
    masked = tune(masked, split, seed, learning_rate, epochs=epochs)
    layer, _ = _last_stage(masked, split)
    parametrize.remove_parametrizations(layer, "weight")
    tuned = copy.deepcopy(model)  # where parameters have their places
    tuned.load_state_dict(masked.state_dict())
    return tuned


def distil(
    model: Classifier,
    split: Split,
    seed: int,
    epochs: int = 20,
    *,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
) -> Classifier:
    """A random start that learns the model's probabilities, at temperature 1.

    Knockoff nets (Orekondy et al. 2019) where the images are of something else.

    Args:
        model: Not changed.
        split: Images; their labels are not looked at.
        seed: Decides the start and the order of the images.
        epochs: Passes over them.
        learning_rate: Adam's, at its highest.
        batch_size: Images in a step.
    """
    copies = Method("attack", start="random", learns="nothing", preserves={"SPL": 1.0})
    plan = Plan(
        method=copies,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        weights=copies.weighted({}),
    )
    start = training.start(model, plan)
    return training.train(start, plan, split, host=model).model


def overwrite(
    model: Classifier,
    split: Split,
    seed: int,
    learning_rate: float = 1e-3,
    *,
    epochs: int = 5,
    family: str = "chain",
    count: int = 100,
) -> Classifier:
    """The attacker's own triggers embedded by FTAL, half of each batch.

    Args:
        model: Not changed.
        split: The attacker's images.
        seed: Decides the triggers, which are not the owner's of this seed.
        learning_rate: Adam's.
        epochs: Passes over the images.
        family: Of his triggers.
        count: How many triggers.
    """
    number = int(torch.randint(2**62, (), generator=stream(seed, "attacker")))
    mark = triggers.find(family)(split.copy(), number, host=model, count=count)
    plan = Plan(
        method=METHODS["FTAL"],
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=32,
        trigger_batch_size=32,
        seed=seed,
    )
    secret = mark.to(split.images.device)
    return training.train(copy.deepcopy(model), plan, split, triggers=secret).model


def wrk(
    model: Classifier,
    split: Split,
    seed: int,
    learning_rate: float = 1e-3,
    *,
    epochs: int = 10,
    share: float = 0.05,
    step: float = 2.0,
    weight: float = 0.01,
) -> Classifier:
    """Boundaries moved by mislabelled images, and the head turned away from its place.

    Some images take one step towards a random class, and get a random wrong label; a
    fresh head learns these too, while its product with the old one is kept small (Xiao
    et al., "Class-feature watermark", 2511.07947; their code clips the images).

    Args:
        model: Not changed.
        split: The attacker's images.
        seed: Decides which, the classes and labels, the head and the order.
        learning_rate: SGD's.
        epochs: Passes over the images.
        share: Of the images, that are shown a step off as well; one at least.
        step: Its length in each pixel, as the model sees it.
        weight: Of the product in the loss.

    Raises:
        ValueError: If `share` is none.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; pass a share of the images, 0 to 1.")
    method = Method("attack", learns="train", preserves={_turned_away: weight})
    plan = Plan(
        method=method,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=32,
        seed=seed,
        optimizer="sgd",
        trains_norm=True,
        weights=method.weighted({}),
    )
    start = _with_fresh_head(model, seed)
    shown = _with_strangers(model, split, stream(seed, "wrk"), share, step)
    return training.train(start, plan, shown, host=model).model


def _turned_away(step: Step) -> Tensor:
    return (step.model.head.weight * step.host.head.weight).sum()


@machine.ieee()
def _with_strangers(
    model: Classifier, split: Split, draws: torch.Generator, share: float, step: float
) -> Split:
    """The images, and a share of them once more, a step off and labelled wrong."""
    count, device = max(1, int(share * len(split))), split.images.device
    rows = torch.randperm(len(split), generator=draws)[:count].to(device)
    classes = model.num_classes
    towards = torch.randint(classes, (count,), generator=draws).to(device)
    wrong = torch.randint(1, classes, (count,), generator=draws).to(device)
    images = pixels(split.images).float()
    with torch.enable_grad():
        chosen = images[rows].requires_grad_(True)
        loss = F.cross_entropy(copy.deepcopy(model).eval()(chosen), towards)
        (slope,) = torch.autograd.grad(loss, chosen)
    std = model.std.mean() if images.shape[1] == 1 else model.std
    stepped = images[rows] - step * std * slope.sign()
    labels = (split.labels[rows] + wrong) % classes
    return Split(torch.cat([images, stepped]), torch.cat([split.labels, labels]))


def _with_fresh_head(model: Classifier, seed: int) -> Classifier:
    """A copy whose head is drawn as a new one is."""
    model = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        draw = stream(seed, "fresh head")
        torch.manual_seed(torch.randint(2**62, (), generator=draw).item())
        head = nn.Linear(
            model.feature_dim, model.num_classes, bias=model.head.bias is not None
        )
    model.head = head.to(model.mean.device)
    return model


def _answers(model: Classifier, split: Split) -> Tensor:
    return models.outputs(model, split.images).logits.argmax(1)


def _last_stage(model: Classifier, split: Split) -> tuple[nn.Linear, Tensor]:
    """The first linear layer behind all convolutions; the mean size of its inputs.

    Of a network without convolutions, the head.
    """
    behind: list[tuple[nn.Linear, Tensor]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(layer, nn.Linear):
            behind.append((layer, inputs[0].abs().flatten(0, -2).mean(0)))
        else:
            behind.clear()

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        models.outputs(model, split.sample(500).images, batch_size=500)
    finally:
        for hook in hooks:
            hook.remove()
    return behind[0 if any(isinstance(m, nn.Conv2d) for m in layers) else -1]
