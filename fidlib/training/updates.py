"""Steps of a training: a loss, its gradient, an update; on a GPU as CUDA graphs.

A GPU takes longer to be asked for a step of a small network, kernel by kernel, than to
compute it. So a step is recorded once for each shape of its batch, and then replayed.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fidlib.networks import NETWORKS
from fidlib.training.batches import Draw
from fidlib.training.objective import Objective

GRAPHS = True
"""Whether steps are recorded, on a GPU."""

WARM = 3
"""Steps before one is recorded, in which libraries choose their kernels."""

Shape = tuple[int, int, bool]
"""Images and triggers of a step, and whether they are coarse."""


class Updates:
    """Takes the steps of a training.

    Args:
        objective: The loss.
        optimizer: Of what is trained; where steps are recorded, capturable.
    """

    def __init__(self, objective: Objective, optimizer: torch.optim.Optimizer) -> None:
        self.objective, self.optimizer = objective, optimizer
        self.device = objective.images.images.device
        self.records: dict[Shape, tuple[Draw, Callable[[], Tensor]]] = {}
        self.recorded = GRAPHS and self.device.type == "cuda" and _known(objective)
        # What a graph reads lies where it lay; the CPU's kernels want a number.
        self.rate = torch.zeros((), device=self.device)
        if self.device.type == "cuda":
            for group in optimizer.param_groups:
                group["lr"] = self.rate

    def __call__(self, draw: Draw, *, rate: float, coarse: bool) -> Tensor:
        """Take a step; nobody waits for the device.

        Args:
            draw: What chance decided of it, on the device.
            rate: The learning rate.
            coarse: Whether images are seen at half the side.

        Returns:
            The loss before it, a scalar without gradient.
        """
        self.rate.fill_(rate)
        for group in self.optimizer.param_groups:
            if not isinstance(group["lr"], Tensor):
                group["lr"] = rate
        if not self.recorded:
            return self._step(draw, coarse)
        shape = len(draw.index), len(draw.secret), coarse
        if shape not in self.records:
            try:
                self.records[shape] = self._record(draw, coarse)
            except RuntimeError as error:  # weights are as they were
                text = f"steps are not recorded ({str(error).splitlines()[0]})."
                warnings.warn(text, stacklevel=2)
                self.recorded = False
                return self._step(draw, coarse)
        place, replay = self.records[shape]
        for old, new in zip(place, draw, strict=True):
            old.copy_(new)
        return replay().clone()  # the next one is written where it lies

    def _step(self, draw: Draw, coarse: bool) -> Tensor:
        loss = self.objective(draw, coarse=coarse)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _record(self, draw: Draw, coarse: bool) -> tuple[Draw, Callable[[], Tensor]]:
        """Where a step's draws are to be put, and what then takes it."""
        place = Draw(*(part.clone() for part in draw))

        def step() -> Tensor:
            return self._step(place, coarse)

        with self._restored(), _beside(self.device):
            for _ in range(WARM):
                step()
        return place, record(step)

    @contextlib.contextmanager
    def _restored(self) -> Iterator[None]:
        """What is trained, and what trains it, is after it as it was before."""
        before = [(tensor, tensor.detach().clone()) for tensor in self._tensors()]
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            try:
                yield
            finally:
                known = {id(tensor) for tensor, _ in before}
                with torch.no_grad():
                    for tensor, value in before:
                        tensor.copy_(value)
                    for tensor in self._tensors():  # a state begins at zeros
                        if id(tensor) not in known:
                            tensor.zero_()

    def _tensors(self) -> list[Tensor]:
        model, optimizer = self.objective.model, self.optimizer
        trained = (p for group in optimizer.param_groups for p in group["params"])
        states = (v for state in optimizer.state.values() for v in state.values())
        tensors = [*model.parameters(), *model.buffers(), *trained]
        return [*tensors, *(value for value in states if isinstance(value, Tensor))]


def record(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A step as a CUDA graph; what it gives lies where the recorded one's did."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


@contextlib.contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """On a stream beside the current one, as what is to be recorded must be warmed."""
    if device.type != "cuda":
        yield
        return
    beside = torch.cuda.Stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        yield
    torch.cuda.current_stream(device).wait_stream(beside)


def _known(objective: Objective) -> bool:
    """Whether a step does nothing that a graph would leave out.

    A network or a term of the user's own may count its calls, draw numbers, or look at
    a value: Python that is not replayed.
    """
    spec, plan = objective.model.spec or {}, objective.plan
    parts = [NETWORKS.get(spec.get("model", "")), *(term for term, _ in plan.terms)]
    ours = all(part and part.__module__.startswith("fidlib.") for part in parts)
    return ours and plan.method.shows is None
