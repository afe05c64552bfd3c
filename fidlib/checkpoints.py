"""Weights that come from elsewhere, and the networks that they are of.

Files are read as tensors alone (`weights_only`): reading one runs nothing that is in
it. `module:function` runs what its owner names.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

INSIDE = ("state_dict", "model_state_dict", "model", "net", "network", "module")
"""Under these names training scripts keep a network's state dict."""

AROUND = {"module", "_orig_mod"}
"""What DataParallel, EMA wrappers and torch.compile put into the names of weights."""


def existing(path: str | Path) -> Path:
    """The file of a model; of a run's folder, that of its model.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(path)
    path = path.expanduser() if path.parts[:1] == ("~",) else path
    if path.is_dir():
        path /= "model.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"there is no model at {path}: check the path.")
    return path


def read(path: Path) -> tuple[dict[str, Tensor], Any]:
    """A state dict, and how fidlib built its network; None if it did not.

    Args:
        path: A `.safetensors` file, or, of any other ending, one of `torch.save`.

    Raises:
        ValueError: If it is damaged, or holds other than tensors by name.
    """
    if path.suffix != ".safetensors":
        return _state(path, _unpickled(path)), None
    try:
        with safe_open(path, framework="pt") as file:
            spec = json.loads((file.metadata() or {}).get("fidlib", "null"))
            return {name: file.get_tensor(name) for name in file.keys()}, spec  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or no .safetensors file ({error}): check the path, or "
            "make the model again."
        ) from error


def _unpickled(path: Path) -> object:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no error type of its own
        whole = "Unsupported global" in str(error)
        reason = (
            "holds Python objects beside tensors, which are not read, for reading them "
            "would run them: save network.state_dict() alone"
            if whole
            else "is damaged, or no file of torch.save: check the path, or fetch it "
            "again"
        )
        raise ValueError(f"{path} {reason}.") from error


def _state(path: Path, values: object) -> dict[str, Tensor]:
    """The state dict in what a training script saved."""
    while isinstance(values, Mapping):
        tensors = [isinstance(value, Tensor) for value in values.values()]
        if tensors and all(tensors):
            return {str(name): value for name, value in values.items()}
        inside = {n: v for n, v in values.items() if isinstance(v, Mapping) and v}
        known = [n for n in inside if n in INSIDE or "ema" in str(n).lower()]
        if len(known) != 1:
            held = ", ".join([*map(str, values)][:9]) + ", ..." * (len(values) > 9)
            raise ValueError(
                f"{path} holds {held or 'nothing'}, of which "
                f"{'none' if not known else ' and '.join(known)} may be the network: "
                "save the state dict that is meant, alone."
            )
        values = inside[known[0]]
    raise ValueError(
        f"{path} holds a {type(values).__name__}: save network.state_dict()."
    )


def fitted(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """A state dict under the names of a network, as far as it has them.

    What wrappers put before or into names is left out, and masks of
    `torch.nn.utils.prune` are applied.

    Args:
        state: As it was saved.
        names: Of the network's own state dict.
    """
    wanted = set(names)
    if state.keys() == wanted:
        return dict(state)
    around = AROUND - {part for name in wanted for part in name.split(".")}
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        short = ".".join(part for part in name.split(".") if part not in around)
        if short in tensors:
            raise ValueError(
                f"the file holds {short} of two networks: save the state dict of the "
                "one that is meant, alone."
            )
        if name != "n_averaged":  # of AveragedModel
            tensors[short] = value
    for name in [n for n in tensors if n.endswith("_mask") and n not in wanted]:
        whole = name.removesuffix("_mask")
        if f"{whole}_orig" in tensors:
            tensors[whole] = tensors.pop(f"{whole}_orig") * tensors.pop(name)
    first = {name.partition(".")[0] for name in tensors}
    if len(first) == 1 and not tensors.keys() & wanted:
        tensors = {name.partition(".")[2]: value for name, value in tensors.items()}
    return tensors


def network(text: str) -> nn.Module:
    """What a function returns that is named as `module:function`.

    Args:
        text: Such as `nets:lenet`; modules are also looked for in the current folder.

    Raises:
        ValueError: If there is no such function, it cannot be called without arguments,
            or it returns no network.
    """
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise ValueError(
            f"network is {text!r}; write module:function, such as nets:lenet for the "
            "function lenet of nets.py."
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        result = getattr(importlib.import_module(module), name)()
    except (Exception, SystemExit) as error:  # whatever a stranger's module does
        raise ValueError(
            f"{text} gives no network ({type(error).__name__}: {error}): name a "
            "function without arguments in a module that can be imported from here."
        ) from error
    if not isinstance(result, nn.Module):
        raise ValueError(
            f"{text} returns a {type(result).__name__}; it must return a network."
        )
    return result


def trained_on(run: Path) -> str:
    """The data set of a run, from its configuration; empty if there is no such run."""
    config = (run if run.is_dir() else run.parent) / "config.json"
    if not run.exists():
        return ""
    try:
        return json.loads(config.read_text())["data"]["dataset"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"nothing says what {run} was trained on: pass --data, such as digits."
        ) from error


def marked_from_another(host: Path, marked: Path) -> bool:
    """Whether two models are runs and the second says that it was made of another."""
    folders = (run if run.is_dir() else run.parent for run in (host, marked))
    done, training = (
        folder / name
        for folder, name in zip(folders, ("done.json", "training.json"), strict=True)
    )
    try:
        if marked.parent.name == "attacked" or marked.parent.parent.name == "attacked":
            return False  # of a marked model, which was made of some host
        weights = json.loads(done.read_text())["files"]["model.safetensors"]
        return weights != json.loads(training.read_text())["parent"]
    except (OSError, ValueError, LookupError, TypeError):
        return False
