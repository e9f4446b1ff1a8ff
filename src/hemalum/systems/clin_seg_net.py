"""ClinSegNet (Bioengineering 2025, 12, 1156): SEU-Net on one channel and the organ, an edge branch; HistoLoss.

The offline refinement of the paper is `hemalum refine`. Where the paper is silent: docs/systems/clin_seg_net.md.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from hemalum.losses.tversky import Histo
from hemalum.systems.phases import Adam, AnyLoss, Cosine, Optimizer, Phase, StopCriteria
from hemalum.systems.system import SystemSettings, complete_network


class ClinSegNet(SystemSettings):
    """Options of ClinSegNet; its parts `se`, `film` and `edge` are options of its network."""

    networks: ClassVar[tuple[str, ...]] = ("seu_net",)

    name: Literal["clin_seg_net"] = "clin_seg_net"
    network: dict[str, Any] = Field({}, description="options of network seu_net")
    loss: AnyLoss = Histo()
    optimizer: Optimizer = Field(Adam(lr=1e-3), description="its rate falls along a cosine")
    steps: int = Field(18_900, ge=1, description="updates; the default is 100 epochs of 1,510 images in batches of 8")

    def to_recipe(self) -> dict[str, Any]:
        """See `SystemSettings`."""
        network = complete_network("seu_net", self.network)
        return {
            "network": network,
            "representation": "foreground_edge" if network["options"]["edge"] else "foreground",
            "input": "gray",
            "augment": "flips",  # the paper says "four images of each": mirrored and turned ones are our reading
            "phases": [
                Phase(
                    name="main",
                    loss=self.loss,
                    optimizer=self.optimizer,
                    schedule=Cosine(),
                    until=StopCriteria(steps=self.steps),
                )
            ],
            "ema": 0.999,
            # chosen on validation images of TNBC and NuInsSeg, with and without edges
            "separation": {"marker": 0.9, "min_depth": 0.06},
        }
