"""What an experiment may use of the machine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """Devices, threads and engine, as in `hemalum.train` and `hemalum.segment`."""

    accelerator: str = "auto"
    threads: int | None = None
    engine: str = "auto"
