"""What tries to remove a watermark: attacks by name, with one signature.

`attack(model, split, seed, **options)`: a model and the attacker's own images in, a
model out. Host, triggers and test images cannot be passed, so nothing of them can leak.
"""

from fidlib.attacks.edits import flip, prune, quantise, quiet_noise, weight_noise
from fidlib.attacks.preset import Attack, Function, Preset, Strength
from fidlib.attacks.smoothing import depth, input_noise, median
from fidlib.attacks.tuning import distil, fine_prune, overwrite, tune, wrk

_SHARE = Strength("the share of weights", 0, 0.999)
_CHANNELS = Strength("the share of channels", 0, 0.999)
_NOISE = Strength("the noise", 0, 100)
_RATE = Strength("the learning rate", 1e-7, 1)
_EPOCHS = Strength("the number of epochs", 1, 10_000, whole=True)
_BITS = Strength("the number of bits", 2, 16, whole=True)

_ADAM = {"learning_rate": 1e-3, "epochs": 5, "optimizer": "adam"}
_ADAM |= {"weight_decay": 0.0, "trains_norm": False}
_STRONG = {"learning_rate": 0.05, "decay": "steps", "epochs": 30}
_ANEW = {"fresh_head": True, "asks_victim": True, "epochs": 10}

ATTACKS: dict[str, Preset | Function] = {
    "ft-last": Preset(tune, "tuned", _RATE, {"trained": "head"}),
    "ft-all": Preset(tune, "tuned", _RATE),
    "ft-all:strong": Preset(tune, "tuned", _RATE, _STRONG),
    "fine-tune": Preset(tune, "tuned", _RATE, _ADAM),
    "rt-last": Preset(tune, "fresh head", _RATE, _ANEW | {"trained": "head"}),
    "rt-all": Preset(tune, "fresh head", _RATE, _ANEW | {"epochs": 5}),
    "prune": Preset(prune, "edited", _SHARE),
    "fine-prune": Preset(fine_prune, "tuned", _CHANNELS),
    "quantise": Preset(quantise, "edited", _BITS),
    "weight-noise": Preset(weight_noise, "edited", _NOISE),
    "distil": Preset(distil, "copied", _EPOCHS, images="unlabelled"),
    "knockoff": Preset(distil, "copied", _EPOCHS, images="photographs"),
    "overwrite": Preset(overwrite, "overwritten", _RATE),
    "wrk": Preset(wrk, "fresh head", _RATE),
    "quiet-noise": Preset(quiet_noise, "edited", _NOISE),
    "smooth": Preset(median, "filtered", wraps=True),
    "smooth:depth": Preset(depth, "filtered", _BITS, wraps=True),
    "smooth:noise": Preset(input_noise, "filtered", _NOISE, wraps=True),
    "flip": Preset(flip, "edited", Strength("the share of answers", 1e-9, 1)),
}
"""Name -> attack; a function of your own works as well, once it has a name here.

The strength of what trains is its learning rate, but of `fine-prune` the share of
channels and of `distil` and `knockoff` the number of epochs. `fine-tune` is Adam's,
with BatchNorm as it is; `ft-all` is SGD's."""


def find(text: str) -> Attack:
    """The attack that `name` or `name:strength` names.

    Raises:
        ValueError: If there is none of that name, or the strength makes no sense.
    """
    name, _, strength = (text, "", "") if text in ATTACKS else text.rpartition(":")
    if name not in ATTACKS:
        raise ValueError(
            f"unknown attack {text!r}; use one of {', '.join(ATTACKS)}, or add your "
            "own to fidlib.ATTACKS."
        )
    entry = ATTACKS[name]
    preset = entry if isinstance(entry, Preset) else Preset(entry)
    if name == text:
        return Attack(name, preset)
    if not preset.settings():
        raise ValueError(f"{text}: {name} has no strength; write {name} alone.")
    try:
        value = float(strength)
    except ValueError as error:
        raise ValueError(
            f"{text}: the strength {strength!r} is no number; write such as prune:0.4."
        ) from error
    known = preset.strength
    return Attack(name, preset, value if known is None else known.read(value, text))
