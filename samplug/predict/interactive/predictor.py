"""Prompt objects on some images, find them in others: SAM 2's memory over images that are no video."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from samplug import arguments
from samplug.errors import PromptError, reject
from samplug.files.embedding import model_fingerprint
from samplug.files.memory_bank import load_bank, save_bank
from samplug.host import DEFAULT_CFG, LOGGER, Results
from samplug.nn.memory.frames import FrameOutput
from samplug.nn.structs import Features
from samplug.predict.embedded import refuse_embedding
from samplug.predict.image import SAM2Predictor
from samplug.predict.interactive.tensor_api import EncodedImages, chosen_ids, memory_tokens
from samplug.predict.prediction import Prediction, PromptedImage, public_features
from samplug.predict.results.objects import add_object_fields, classes_of, interactive_confidence
from samplug.prompts.objects import Prompts, prompt_batches
from samplug.prompts.per_frame import split_objects
from samplug.runtime.run_guard import exclusive
from samplug.sources.base_loader import image_count
from samplug.tracking.bank import MemoryBank, MemoryEntry
from samplug.transforms import ImageTransform

ONE_RUN = (*arguments.PROMPT_ARGUMENTS, "update_memory")  # options of one run, however they were given


@exclusive("remove_object", "clear_prompts", "reset", "save_memory", "load_memory", "update_memory", "track_step")
class SAM2DynamicInteractivePredictor(SAM2Predictor):
    """Find objects in images after they were prompted on others, with SAM 2 or 2.1.

    A run with `update_memory=True` remembers objects: its prompts, with an id each in `obj_ids`, are answered with a
    single mask, without memory. Every run, that one included, then finds all objects in its images, or with `obj_ids`
    alone only those. Sources are all that Ultralytics takes; on a video or a stream the prompts are for the first
    frame. An object is remembered from the images it was prompted on and from no others; an empty mask says that it is
    absent.

    A result's `boxes.id` are the ids, `boxes.cls` the classes given with `cls`, else the ids, and `boxes.conf` is the
    presence, the sigmoid of its logit, in (0, 1). In addition `result.obj_ids`, `result.presence` (logit) and
    `result.iou` (predicted) belong to the rows.

    Attributes:
        memory_bank: the images on which objects were prompted, oldest first.
        found: the objects on each image of the current batch, rows in the order of the slots.
        non_overlap_masks: leave each pixel of a result to one object.

    Examples:
        >>> predictor = SAM2DynamicInteractivePredictor(overrides={"model": "sam2.1_t.pt"})  # doctest: +SKIP
        >>> predictor("first.jpg", bboxes=[[20, 30, 90, 80]], obj_ids=[7], update_memory=True)  # doctest: +SKIP
        >>> result = predictor("other.jpg")[0]  # doctest: +SKIP
    """

    outlives_calls = may_lose_objects = True

    def __init__(
        self, cfg: Any = DEFAULT_CFG, overrides: dict | None = None, max_obj_num: int = 3,
        _callbacks: dict | None = None,
    ):  # fmt: skip
        """Start without objects.

        Args:
            cfg: Ultralytics' settings.
            overrides: arguments; prompts among them are for the first run.
            max_obj_num: slots for objects to begin with; more are added when more objects come.
            _callbacks: Ultralytics' callbacks.
        """
        super().__init__(cfg, overrides, _callbacks)
        self.prompts = {name: self.options.pop(name) for name in ONE_RUN if name in self.options}
        self.memory_bank = MemoryBank(max_obj_num)
        self.found: list[FrameOutput] = []
        self._encoded: Features | None = None
        self.non_overlap_masks = arguments.NON_OVERLAP_DEFAULT["videos"]

    # Objects

    @property
    def obj_id_to_idx(self) -> dict[int, int]:
        """The slot of each object."""
        return {obj_id: slot for slot, obj_id in self.obj_idx_to_id.items()}

    @property
    def obj_idx_to_id(self) -> dict[int, int]:
        """The object in each slot that has one."""
        return {slot: obj_id for slot, obj_id in enumerate(self.memory_bank.slots) if obj_id is not None}

    @property
    def obj_idx_set(self) -> set[int]:
        """The slots that have an object."""
        return set(self.obj_idx_to_id)

    def remove_object(self, obj_id: int) -> None:
        """Remove an object; ValueError if there is none."""
        self.memory_bank.remove(obj_id)

    def clear_prompts(self, obj_id: int | None = None, picture: int | None = None) -> None:
        """Forget the memories of an object, or of all, from one image, or from all; ids and classes stay.

        Args:
            obj_id: the object; None for all.
            picture: its place in `memory_bank`, from 0; None for all.

        Raises:
            ValueError: there is no such object.
            IndexError: there is no such image.
        """
        self.memory_bank.forget(obj_id, picture)

    def reset(self) -> None:
        """Forget all objects and all images."""
        self.memory_bank.clear()

    def save_memory(self, path: str | os.PathLike[str]) -> None:
        """Write the memory bank to a .npz file of plain arrays; the write is atomic."""
        if self.model is None:
            self.setup_model()
        save_bank(path, self.memory_bank, self.network)

    def load_memory(self, path: str | os.PathLike[str]) -> None:
        """Replace the memory bank by a saved one.

        Raises:
            MemoryBankError: the file is missing, damaged, not a memory bank, or of another network.
        """
        if self.model is None:
            self.setup_model()
        self.memory_bank = load_bank(path, self.network)

    # Setup

    def setup_model(self, model: nn.Module | str | None = None, verbose: bool = True) -> None:
        """Use a SAM 2 network, forgetting the memories of another; ValueError for one without memory."""
        before = self.model
        super().setup_model(model, verbose)
        if not self.network.num_maskmem:
            raise ValueError("This model has no memory (num_maskmem=0). Expected a SAM 2 network that has one.")
        if before is not None and model_fingerprint(before) != model_fingerprint(self.model):
            self.reset()

    def set_prompts(self, prompts: dict[str, Any]) -> None:
        """Store options for the next run, beside those stored before."""
        self.prompts |= {name: value for name, value in prompts.items() if value is not None}

    # A run

    def stream_inference(self, *args: Any, **kwargs: Any) -> Iterator[Results]:
        """Run over a source, one `Results` an image; a run that ends with a `PromptError` remembers nothing."""
        with self.memory_bank.restored_on(PromptError):
            yield from super().stream_inference(*args, **kwargs)

    def inference(  # type: ignore[override]  # the order of the arguments is public, and not Predictor's
        self,
        im: Tensor,
        bboxes: Any = None,
        masks: Any = None,
        points: Any = None,
        labels: Any = None,
        obj_ids: Any = None,
        update_memory: bool = False,
        **kwargs: Any,
    ) -> Prediction:
        """Remember prompted objects if `update_memory`, then find objects; after an error nothing is remembered.

        Prompts, of the objects to remember, are those of `Predictor.inference`, also as `prompts`, `cls` and `names`.
        `obj_ids` are an id for each prompted object; without prompts, the objects to find, all if left out.

        Returns:
            (logits (F·N, h/4, w/4), scores (F·N,)), N objects an image in the order of the slots.

        Raises:
            PromptError: prompts cannot be read or do not have an id each, or do not fit and nothing may be left out.
            RuntimeError: nothing is remembered yet.
            ValueError: memories were made at another input size, or `obj_ids` names an object that is not remembered.
            FloatingPointError: an answer or a memory holds NaN or infinity.
        """
        options = {"bboxes": bboxes, "points": points, "labels": labels, "masks": masks, "obj_ids": obj_ids, **kwargs}
        check_options(options, update_memory)
        self.found, frames = [], list[PromptedImage]()
        with self._threads(), self.memory_bank.restored_on(BaseException):
            if update_memory and not self._is_later_frame():
                im, frames = self._prompted_images(im, options)  # before encoding, which is for those kept
                frames = frames[:1] if self.dataset.mode == "video" else frames
            if not len(im):
                return Prediction.empty(im)
            if im is not self.im:
                self.get_im_features(im)
            self._update_memory(frames)
            return self._find(im, None if update_memory else obj_ids)

    def _is_later_frame(self) -> bool:
        """Whether this is a frame of a video or a stream after the first, which the prompts are for."""
        return self.seen > 0 and image_count(self.dataset) is None

    def _update_memory(self, frames: Sequence[PromptedImage]) -> None:
        """Remember the prompted objects of each image of the batch."""
        for frame in frames:
            if len(frame.prompts) and frame.prompts.ids is None:
                reject("obj_ids", f"{len(frame.prompts)} objects came without", "an id of its own for each object")
        images = self._images()
        for i, frame in enumerate(frames):
            if len(frame.prompts):
                ids = frame.prompts.ids or ()
                outputs = [self._prompt(images, i, one, frame.transform) for one in split_objects(frame.prompts)]
                self._log_absent(images.add_to_memory(i, ids, outputs, frame.path))
                self.memory_bank.classes |= dict(zip(ids, frame.prompts.cls or (), strict=False))
                self.memory_bank.names |= frame.prompts.names or {}

    def _prompt(self, images: EncodedImages, i: int, prompts: Prompts, transform: ImageTransform) -> FrameOutput:
        """Answer the prompts of one object on an image."""
        (prompt,) = prompts.objects
        if prompt.mask is not None:
            return images.prompt(i, mask=transform.mask_to_input(prompt.mask, stride=1) > 0)
        ((_, batch),) = prompt_batches([prompts], [transform], device=self.device)
        return images.prompt(i, batch)

    def _find(self, im: Tensor, obj_ids: Any) -> Prediction:
        """Find objects in every image of the batch."""
        ids = chosen_ids(self.memory_bank, obj_ids)
        self.found = self._images().find(ids)
        classes, names = classes_of(ids, self.memory_bank.classes, self.memory_bank.names)
        prompts = Prompts(cls=classes, names=names, ids=ids)
        images = [replace(image, prompts=prompts) for image in self._batch_images(im)]
        parts = [
            Prediction(each.logits, interactive_confidence(each), image_index=torch.full((len(ids),), i))
            for i, each in enumerate(self.found)
        ]
        return Prediction.cat(parts, images)

    def _log_absent(self, entry: MemoryEntry) -> None:
        absent = [obj_id for obj_id, presence in zip(entry.ids, entry.presence, strict=True) if presence <= 0]
        if absent and self.args.verbose:
            LOGGER.info(f"Objects {absent} are remembered as absent: the network does not see them in {entry.name}.")

    # Tensors in pixels of the network's input

    def get_im_features(self, img: Tensor) -> Tensor | dict[str, Tensor | list[Tensor]]:
        """Encode images (F, 3, h, w), which the methods below then work on.

        Returns:
            {"image_embed": (F, C, h/16, w/16), "high_res_feats": […]}, the no-memory embedding added.
        """
        with self._threads():
            self._encoded = self.network.encode_image(img)
            return public_features(self.network.without_memory(self._encoded))

    def _images(self) -> EncodedImages:
        if self._encoded is None:
            raise RuntimeError("No image has been encoded yet: call get_im_features(im) first.")
        return EncodedImages(self.network, self.memory_bank, self._encoded, self.objects_at_once.run)

    def update_memory(
        self, obj_ids: Any = None, points: Tensor | None = None, labels: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Remember objects on the encoded image.

        Args:
            obj_ids: an id for each of N objects.
            points: (N, P, 2).
            labels: (N, P) 1 on the object, 0 off it, 2 and 3 the corners of a box, -1 padding.
            masks: instead of points, (N, h, w), 1 on the object and 0 off it.

        Raises:
            PromptError: there are no prompts, or ids are missing or not as many as objects.
            ValueError: several images are encoded.
        """
        with self._threads():
            self._log_absent(self._images().update_memory(obj_ids, points, labels, masks))

    def track_step(
        self, obj_idx: int | None = None, point: Tensor | None = None, label: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> dict[str, Any]:  # fmt: skip
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
            RuntimeError: nothing is remembered yet.
        """
        with self._threads():
            return self._images().track_step(obj_idx, point, label, mask)

    def get_maskmem_enc(self, obj_ids: Any = None) -> tuple[Tensor, Tensor]:
        """Read out the memories that objects are found by.

        Args:
            obj_ids: the objects; None for all.

        Returns:
            Memories (K·L, N, D) of N objects on K images each, and their positions with the time embedding of
            prompted frames.

        Raises:
            ValueError: the objects were prompted on different numbers of images.
        """
        return memory_tokens(self.network, self.memory_bank, obj_ids)

    # Results

    def _image_result(self, prediction: Prediction, frame: PromptedImage) -> Results | None:
        """The result of one image, with the fields of its objects; None where its masks would not fit into memory."""
        result = super()._image_result(prediction, frame)
        if result is not None:
            output = self.found[int(prediction.image_index[0])]
            add_object_fields(result, frame.prompts.ids or (), output, torch.from_numpy(result.prompt_index))
        return result

    def _drop_images(self, rows: Sequence[int]) -> None:
        """Take images out of the current batch, and what was found on them; what was remembered stays."""
        super()._drop_images(rows)
        self.found = [each for row, each in enumerate(self.found) if row not in rows]


def check_options(options: dict[str, Any], update_memory: bool) -> None:
    """Refuse options that do not go together."""
    prompted = any(options.get(name) is not None for name in arguments.SPATIAL_PROMPTS)
    if prompted and not update_memory:
        reject("update_memory", "is False, but prompts came", "True with prompts; objects are found without any")
    if update_memory and not prompted:
        reject("update_memory", "is True, but no prompts came", "True with points, bboxes or masks, and obj_ids")
    refuse_embedding(options)
