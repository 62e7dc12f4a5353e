"""Objects shown and found by hand: on the picture given to `get_im_features`, in pixels of the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug.host import LOGGER
from samplug.nn.frames import FrameOutput, Past
from samplug.nn.inputs import enlarged
from samplug.nn.track_step import outputs_of
from samplug.nn.types import Features, PromptBatch
from samplug.predict.answers import public_features
from samplug.predict.finite import check_finite
from samplug.predict.sam2 import SAM2Predictor
from samplug.prompt_forms import plain, read_ids, refuse
from samplug.tracking import bank
from samplug.tracking.bank import MemoryBank


class ByHand(SAM2Predictor):
    """The side of a predictor with a memory bank that works on pictures in hand, without a source.

    Attributes:
        memory_bank: the pictures on which objects were shown, oldest first.
    """

    memory_bank: MemoryBank
    _in_hand: Features | None = None

    def get_im_features(self, img: Tensor) -> Tensor | dict[str, Tensor | list[Tensor]]:
        """Encode pictures (F, 3, h, w) and take them in hand: what is shown or found next is on these.

        Returns:
            {"image_embed": (F, C, h/16, w/16), "high_res_feats": […]}, the no-memory embedding added.
        """
        self._in_hand = self.network.see(img)
        return public_features(self.network.without_past(self._in_hand))

    def update_memory(
        self,
        obj_ids: Any = None,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> None:
        """Show objects on the picture in hand.

        Args:
            obj_ids: an id for each of N objects.
            points: (N, P, 2).
            labels: (N, P) 1 on the object, 0 off it, 2 and 3 the corners of a box, -1 padding.
            masks: instead of points, (N, h, w), 1 on the object and 0 off it.

        Raises:
            PromptError: there is nothing to show, or ids are missing or not as many as objects.
            ValueError: several pictures are in hand.
        """
        given = points if masks is None else masks
        if given is None:
            refuse("points", "neither points nor masks came", "one of them")
        ids = read_ids(obj_ids, len(given))
        if ids is None:
            refuse("obj_ids", "is missing", "an id of its own for each object")
        if len(self._pictures()) != 1:
            raise ValueError(f"{len(self._pictures())} pictures are in hand: give get_im_features one to show objects.")
        rows = [[None if all_ is None else all_[i] for all_ in (points, labels, masks)] for i in range(len(given))]
        self._remember(self._pictures(), ids, [self._by_hand(*row) for row in rows], "")

    def track_step(
        self,
        obj_idx: int | None = None,
        point: Tensor | None = None,
        label: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """Answer the prompt of one object without memory, or without `obj_idx` find all objects.

        Args:
            obj_idx: any number, where there is a prompt.
            point: (1, P, 2).
            label: (1, P), as in `update_memory`.
            mask: instead of points, (1, 1, h, w).

        Returns:
            `pred_masks` (N, 1, h/4, w/4), `pred_masks_high_res` (N, 1, h, w), `obj_ptr` (N, C) and
            `object_score_logits` (N, 1), an object a row.

        Raises:
            RuntimeError: there is nothing to find yet.
        """
        if obj_idx is None:
            output = FrameOutput.cat(self._look(self._ids(None)))
        else:
            output = self._by_hand(*(given if given is None else given[0] for given in (point, label, mask)))
            self._check_finite(self._pictures(), output)
        grid = self._pictures().grid
        return outputs_of(output, enlarged(output.logits[:, None], grid), grid)

    def _by_hand(self, points: Tensor | None, labels: Tensor | None, mask: Tensor | None) -> FrameOutput:
        """The answer to points (P, 2) with labels (P,), or to a mask (h, w) or (1, h, w)."""
        if mask is not None:
            return bank.show(self.network, self._pictures(), mask=mask.squeeze(0).float().to(self.device))
        if points is None or labels is None or not len(points):
            refuse("points", "neither a mask nor points with labels came", "one of them")
        owner = torch.zeros(1, dtype=torch.int64, device=self.device)
        clicks = PromptBatch(owner, points[None].float().to(self.device), labels[None].to(self.device))
        return bank.show(self.network, self._pictures(), clicks)

    def get_maskmem_enc(self, obj_ids: Any = None) -> tuple[Tensor, Tensor]:
        """Read out what objects are found by.

        Args:
            obj_ids: the objects; None for all.

        Returns:
            Memories (K·L, N, D) of N objects on K pictures each, and their positions with the time embedding of
            prompted frames.

        Raises:
            ValueError: the objects were not shown on equally many pictures.
        """
        pasts = [self._past(obj_id) for obj_id in self._ids(obj_ids)]
        if len({past.memories.shape[1] for past in pasts}) > 1:
            raise ValueError("The objects were shown on different numbers of pictures: ask for them one by one.")
        memory, positions = bank.tokens(self.network, Past.cat(pasts), self.memory_bank[0].grid)
        return memory.transpose(0, 1), positions.transpose(0, 1)

    def _remember(self, features: Features, ids: Sequence[int], answers: Sequence[FrameOutput], name: str) -> None:
        self.memory_bank.check_grid(features.grid)
        self._check_finite(features, *answers)
        lesson = bank.remember(self.network, features, ids, answers, name, self.objects_at_once.of)
        check_finite(self.network, features.image, lesson.memories)
        self.memory_bank.add(lesson)
        unseen = [obj_id for obj_id, presence in zip(ids, lesson.presence, strict=True) if presence <= 0]
        if unseen and self.args.verbose:
            LOGGER.info(f"Objects {unseen} are remembered as absent: the network does not see them in {name}.")

    def _check_finite(self, features: Features, *answers: FrameOutput) -> None:
        for answer in answers:
            check_finite(self.network, features.image, answer.logits, answer.presence, answer.iou)

    def _ids(self, wanted: Any) -> tuple[int, ...]:
        return self.memory_bank.chosen(None if wanted is None else {int(each) for each in np.atleast_1d(plain(wanted))})

    def _look(self, ids: Sequence[int]) -> list[FrameOutput]:
        pictures = self._pictures()
        self.memory_bank.check_grid(pictures.grid)
        pasts = [self._past(obj_id) for obj_id in ids]
        found = [bank.find(self.network, pictures[i], pasts, self.objects_at_once.of) for i in range(len(pictures))]
        self._check_finite(pictures, *found)
        return found

    def _past(self, obj_id: int) -> Past:
        return self.memory_bank.past(obj_id, self.network.num_maskmem - 1)

    def _pictures(self) -> Features:
        """The features in hand."""
        if self._in_hand is None:
            raise RuntimeError("No picture is in hand: call get_im_features(im) first.")
        return self._in_hand
