"""SAM 2 and 2.1 on single pictures."""

from __future__ import annotations

from torch import nn

from samplug.checkpoints import CheckpointError
from samplug.nn.sam2 import SAM2Model
from samplug.predict.image import Predictor


class SAM2Predictor(Predictor):
    """Segment pictures with SAM 2 or 2.1: a `Predictor` that refuses other networks.

    Its features are {"image_embed": (F, C, h/16, w/16), "high_res_feats": [(F, C/8, h/4, w/4), (F, C/4, h/8, w/8)]},
    the no-memory embedding added.
    """

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
