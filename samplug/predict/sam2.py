"""SAM 2 and 2.1 on single pictures."""

from __future__ import annotations

from typing import Any

from torch import nn

from samplug.checkpoints import CheckpointError
from samplug.host import DEFAULT_CFG
from samplug.nn.sam2 import SAM2Model
from samplug.predict.halving import Share
from samplug.predict.image import Predictor
from samplug.predict.needs import MOST_PROMPTS


class SAM2Predictor(Predictor):
    """Segment pictures with SAM 2 or 2.1: a `Predictor` that refuses other networks.

    Its features are {"image_embed": (F, C, h/16, w/16), "high_res_feats": [(F, C/8, h/4, w/4), (F, C/4, h/8, w/8)]},
    the no-memory embedding added.

    Attributes:
        objects_at_once: how many objects are looked for by their memories together, by the predictors that derive from
            this one: 256, or fewer where a GPU's memory runs out.
    """

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict | None = None):
        super().__init__(cfg, overrides, _callbacks)
        self.objects_at_once = Share(MOST_PROMPTS, "object")

    def setup_model(self, model: nn.Module | str | None = None, verbose: bool = True) -> None:
        """Put a SAM 2 network to work; CheckpointError for a SAM one."""
        super().setup_model(model, verbose)
        if not isinstance(self.model, SAM2Model):
            raise CheckpointError(
                f"{type(self).__name__} runs SAM 2 and 2.1, not {self.model.variant or type(self.model).__name__}: "
                "use Predictor, or samplug.SAM, which chooses by itself."
            )

    @property
    def network(self) -> SAM2Model:
        """The model, which can only be a SAM 2 one."""
        assert isinstance(self.model, SAM2Model)
        return self.model
