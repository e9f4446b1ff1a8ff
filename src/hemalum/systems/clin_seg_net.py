"""ClinSegNet (Bioengineering 2025, 12, 1156): SEU-Net on one channel, told the organ, with an edge branch; HistoLoss.

The offline refinement of the paper is `hemalum refine`. Where the paper is silent: docs/systems/clin_seg_net.md.
"""

from typing import Any, Literal

from pydantic import Field

from hemalum.models.card import Channels
from hemalum.systems.phases import Phase
from hemalum.systems.system import SystemSettings

# what the paper says is "four images of each": mirrored and turned ones are our reading, and nothing else
_MIRRORED_AND_TURNED = {
    "flips": True, "rotation": 0, "scale": 1, "elastic": 0, "stain": 0, "brightness": 0, "contrast": 0,
    "saturation": 0, "gamma": 0, "grey": 0, "blur": 0, "noise": 0,
}  # fmt: skip


class ClinSegNet(SystemSettings):
    """Options of ClinSegNet; each named part can be left out."""

    name: Literal["clin_seg_net"] = "clin_seg_net"
    widths: list[int] = Field([64, 128, 256, 512], description="the encoder's stages; the decoder mirrors them")
    se: bool = Field(True, description="squeeze-excitation in every stage")
    film: bool = Field(True, description="organ embedding, and FiLM at every stage")
    edge: bool = Field(True, description="edge branch, and its term of the loss")
    embedding: int = Field(32, ge=1, description="numbers in an organ's embedding")
    unknown: Literal["mean"] = Field("mean", description="what an unknown organ is: the mean of the known ones")
    ratio: int = Field(16, ge=1, description="reduction of squeeze-excitation")
    design: Literal["parameters", "operations"] = Field(
        "parameters", description="which of the paper's figures the network meets: 9.79 M, or about 83.90 GFLOPs"
    )
    input: Channels = Field("grey", description="what the network sees: grey (luminance), hematoxylin, or RGB")
    bce: float = Field(0.3, ge=0, description="weight of binary cross-entropy, w1")
    tversky: float = Field(0.7, ge=0, description="weight of the Tversky term, w2")
    alpha: float = Field(0.3, ge=0, description="weight of false positives in the Tversky term")
    beta: float = Field(0.7, ge=0, description="weight of false negatives in the Tversky term")
    edge_weight: float = Field(0.2, ge=0, description="weight of the edge term, lambda")
    lr: float = Field(1e-3, gt=0, description="learning rate of Adam, which falls along a cosine")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights; 0: none")
    steps: int = Field(18_900, ge=1, description="updates; the default is 100 epochs of 1,510 images in batches of 8")

    def recipe(self) -> dict[str, Any]:
        """See `SystemSettings`."""
        parts = {"se": self.se, "film": self.film, "edge": self.edge}
        shape = {"widths": self.widths, "ratio": self.ratio, "design": self.design}
        organ = {"embedding": self.embedding, "unknown": self.unknown}
        terms = {"bce": self.bce, "tversky": self.tversky, "edge": self.edge_weight}
        main = {
            "name": "main",
            "loss": {"name": "histo", **terms, "alpha": self.alpha, "beta": self.beta},
            "optimiser": {"name": "adam", "lr": self.lr},
            "schedule": {"name": "cosine", "final": 0.01},
            "until": {"steps": self.steps},
        }
        return {
            "network": {"name": "seu_net", "options": parts | shape | organ},
            "representation": "foreground_edge" if self.edge else "foreground",
            "input": self.input,
            "augment": _MIRRORED_AND_TURNED,
            "phases": [Phase.model_validate(main)],
            "ema": self.ema,
            # chosen on validation images of TNBC and NuInsSeg, with and without edges
            "separation": {"marker": 0.9, "min_depth": 0.06},
        }
