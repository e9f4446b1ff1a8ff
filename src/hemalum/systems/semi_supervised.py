"""What a phase learns from images whose truth it does not see."""

from typing import Literal

from pydantic import Field

from hemalum.data.augmentation.strong_views import StrongViews
from hemalum.settings import Strict


class SemiSupervised(Strict):
    """Weights and views of strong-weak consistency; docs/systems/csra_net.md has the equations.

    The loss is `supervised` x the phase's own loss on labeled images + `consistency` x the mean over strong views of
    H(ŷ, p) + `dropped` x H(ŷ, p) of the weak view without half of the encoder's channels + `contrast` x the
    contrastive term. ŷ is the weak view's class, where its probability is at least `threshold`.
    """

    threshold: float = Field(0.95, ge=0, lt=1, description="τ")
    views: Literal[1, 2] = Field(2, description="strong views of each image")
    supervised: float = Field(1.0, gt=0)
    consistency: float = Field(0.5, ge=0, description="λ2")
    dropped: float = Field(0.0, ge=0, description="UniMatch's feature perturbation")
    contrast: float = Field(0.0, ge=0, description="λ1")
    temperature: float = Field(0.1, gt=0, description="of the contrastive term")
    labeled: Literal["weak", "strong", "both"] = Field(
        "weak", description="which views of labeled images the phase's loss sees; of both it is the sum"
    )
    beyond: Literal["ignore", "count"] = Field(
        "ignore", description="pixels of an unlabeled crop that lie beyond its image, where it is mirrored"
    )
    strong: StrongViews = StrongViews()
