"""The kernel of a notebook that is run in batch: fidlib's own Python, always."""

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager


class OwnPython(AsyncKernelManager):
    """Starts this very Python, whatever else is called `python3` on Jupyter's path."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """How this process's own Python is started as a kernel."""
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())
