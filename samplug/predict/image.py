"""SAM on pictures: prompts answered, everything segmented, one picture prompted many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplug import arguments, host
from samplug.embeddings import Embedding, picture_fingerprint
from samplug.host import DEFAULT_CFG, Results
from samplug.masks import remove_small_regions
from samplug.nn.sam2 import SAM2Model
from samplug.nn.types import Features
from samplug.predict.answers import (
    Frame,
    Prediction,
    answer_prompts,
    cut_out,
    public_features,
    read_features,
    to_results,
)
from samplug.predict.everything import BY_NETWORK, FITTING, Settings, defaults, search
from samplug.predict.faults import Faults
from samplug.predict.fit import fit, to_rgb
from samplug.predict.grounds import Ground, InInput, InPicture
from samplug.predict.halving import Share
from samplug.predict.items import Items
from samplug.predict.loop import Loop
from samplug.predict.needs import MOST_PROMPTS, check_room, with_room
from samplug.predict.tiles import check_tiles, search_tiles
from samplug.prompts import PictureSchedule, PromptError, Prompts
from samplug.room import RoomError
from samplug.view import View

NOTHING = Prompts(given=False)


class Predictor(Loop):
    """Segment pictures with SAM, MobileSAM, SAM 2 or 2.1: what prompts ask for, or everything.

    Attributes:
        im: (1, 3, h, w) input of the picture given to `set_image`, else None.
        features: that picture's features, else None.
        segment_all: True while nothing is prompted.
        pictures_at_once: how many are encoded together: `batch`, or fewer where a GPU's memory runs out.
        prompts_at_once: how many are answered together: 256, or fewer likewise.
    """

    im: Any
    features: Any

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict | None = None):
        super().__init__(cfg, overrides, _callbacks)
        self.segment_all = False
        self.reset_image()

    def setup_source(self, source: Any, stride: int | None = None) -> None:
        """Open a source; None goes on with the picture given to `set_image`."""
        if source is not None:
            self.reset_image()
        self.pictures_at_once = Share(int(self.args.batch), "picture")
        self.prompts_at_once = Share(MOST_PROMPTS, "prompt")
        super().setup_source(source, stride)

    # The picture

    @property
    def resize(self) -> Any:
        """How pictures are fitted: as was said, else as those whose rules everything goes by."""
        fitting = FITTING.get((self._option("rules"), isinstance(self.plain, SAM2Model)), "letterbox")
        return self.said.get("resize") or fitting

    def preprocess(self, im: list[np.ndarray] | Tensor) -> Tensor:
        """Bring BGR pictures, or a (F, 3, h, w) RGB tensor in 0-1, to the network's normalised input (F, 3, h, w)."""
        if self.im is not None and self._key(im) == self._shown:
            return self.im
        tensor = to_rgb(im if isinstance(im, Tensor) else self.pre_transform(im), self.device)
        return self.form.shape((tensor - self.mean) / self.std)

    def pre_transform(self, im: list[np.ndarray]) -> list[np.ndarray]:
        """Fit each picture into `imgsz`, as `resize` says."""
        return [fit(picture, self.imgsz, self.resize) for picture in im]

    def set_image(self, image: Any) -> None:
        """Encode one picture (a path or a BGR array), to be prompted many times by calls without a source."""
        if self.model is None:
            self.setup_model()
        self.setup_source(image)
        count = host.picture_count(self.dataset)
        if count != 1:
            came = "a video" if count is None else count
            raise ValueError(f"set_image takes one picture, not {came}: give a list as the source instead.")
        self.batch = next(iter(self.dataset))
        with torch.inference_mode(), self._cores():
            self.im = self.preprocess(self.batch[1])
            self.features = self.get_im_features(self.im)
        self._shown = self._key(self.batch[1])

    def embed(self, image: Any) -> Embedding:
        """Encode one picture for another run or process: `Embedding.save`, then `embedding=` of a later call."""
        self.set_image(image)
        (picture,), (view,) = host.pictures(self.batch[1]), self._views(self.im, self.batch[1])
        return Embedding.of(self.plain, picture, read_features(self.features), view)

    def reset_image(self) -> None:
        """Forget the picture and its features."""
        self.im = self.features = self._shown = None

    def _key(self, originals: list[np.ndarray] | Tensor) -> tuple | None:
        """What the features of a picture depend on, besides the network."""
        if len(originals) != 1:
            return None
        return picture_fingerprint(host.pictures(originals)[0]), tuple(self.imgsz), self.resize, self.form

    def get_im_features(self, im: Tensor) -> Tensor | dict[str, Tensor | list[Tensor]]:
        """Encode (F, 3, h, w): (F, C, h/16, w/16) for SAM; {"image_embed", "high_res_feats"} for SAM 2."""
        return public_features(self.model.encode(im))

    # The answer

    def inference(
        self,
        im: Tensor,
        bboxes: Any = None,
        points: Any = None,
        labels: Any = None,
        masks: Any = None,
        multimask_output: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> Prediction:
        """Answer the prompts on a batch, or segment everything when there are none.

        Args:
            im: (F, 3, h, w) normalised input.
            bboxes: (N, 4) xyxy in pixels of the picture, as all prompts; several pictures: `prompts.PictureSchedule`.
            points: (N, 2), (N, P, 2) or ragged.
            labels: 1 on the object, 0 off it; left out means 1.
            masks: a mask an object.
            multimask_output: three masks a prompt.
            *args: arguments of `generate`, in order.
            **kwargs: further arguments of ours.

        Returns:
            (logits (N, h/4, w/4), scores (N,)); with no prompt (masks (N, h, w), scores (N,), boxes (N, 4)).

        Raises:
            PromptError: a prompt cannot be read or does not fit the picture.
        """
        said = {"bboxes": bboxes, "points": points, "labels": labels, "masks": masks, **kwargs}
        with self._cores():
            im, frames = self._frames(im, said)
            self.segment_all = bool(frames) and not any(frame.prompts.given for frame in frames)
            if self.segment_all:
                settings = {name: said[name] for name in arguments.EVERYTHING if name in said}
                return self.generate(im, *args, **(settings if args else self._with_defaults(settings)))
            multimask = "all" if multimask_output else said.get("multimask", False)
            return self._in_slices(im, frames, multimask, said.get("embedding"))

    def prompt_inference(
        self,
        im: Tensor,
        bboxes: Any = None,
        points: Any = None,
        labels: Any = None,
        masks: Any = None,
        multimask_output: bool = False,
    ) -> Prediction:
        """Answer prompts on the batch in hand, as `inference` does; an empty answer when there are none."""
        said = {"bboxes": bboxes, "points": points, "labels": labels, "masks": masks}
        im, frames = self._frames(im, said)
        return self._in_slices(im, frames, "all" if multimask_output else False, None)

    def generate(
        self,
        im: Tensor,
        crop_n_layers: int = 0,
        crop_overlap_ratio: float = 512 / 1500,
        crop_downscale_factor: int = 1,
        point_grids: Sequence[np.ndarray] | None = None,
        points_stride: int = 32,
        points_batch_size: int = 64,
        conf_thres: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 0.95,
        crop_nms_thresh: float = 0.7,
        min_mask_region_area: int = 0,
        *,
        tile: int | None = None,
        overlap: float = 0.25,
        rules: str = "ultralytics",
    ) -> Prediction:
        """Segment everything on each picture of a batch; the arguments are explained in `samplug.arguments.OWN`.

        Returns:
            (masks (N, h, w) bool, scores (N,), boxes (N, 4) xyxy), in pixels of the network's input, or of the picture
            where the rules are Meta's or there are tiles.

        Raises:
            ValueError: tiles that share all their pixels.
        """
        if tile:
            check_tiles(tile, overlap)
        settings = Settings(
            crop_n_layers,
            crop_overlap_ratio,
            crop_downscale_factor,
            point_grids,
            points_stride,
            points_batch_size,
            conf_thres,
            stability_score_thresh,
            stability_score_offset,
            crop_nms_thresh,
            min_mask_region_area,
            rules,
            self.args.iou,
            self.conf,
        )
        pictures, parts = host.pictures(self.batch[1]), []
        for i, view in enumerate(self._views(im, self.batch[1])):
            ground: Ground = InInput(im[i : i + 1], view)
            if tile or rules == "meta":
                ground = InPicture(im[i : i + 1], view, pictures[i], lambda window: self.preprocess([window]))
            at_once = Share(points_batch_size, "click").of
            if tile:
                found = search_tiles(self.model, ground, settings, tile, overlap, at_once)
            else:
                found = search(self.model, ground, settings, self._known_features(), at_once)
            owner = torch.full((len(found.scores),), i, dtype=torch.int64)
            parts.append(Prediction(found.cutouts, found.scores, found.boxes, owner=owner))
        return Prediction.cat(parts)

    def postprocess(
        self, preds: Prediction | tuple, img: Tensor, orig_imgs: list[np.ndarray] | Tensor
    ) -> list[Results]:
        """Bring a batch's masks to the size of their pictures, one `Results` a picture, in prompt order."""
        prediction = preds if isinstance(preds, Prediction) else Prediction(*preds)
        originals, views = host.pictures(orig_imgs), self._views(img, orig_imgs)
        prompts = prediction.prompts or [NOTHING] * len(originals)
        self.segment_all = False
        with self._cores():
            frames = [Frame(*row) for row in zip(originals, self.batch[0], views, prompts, strict=True)]
            results = [self._at_picture_size(prediction.picture(i), frame) for i, frame in enumerate(frames)]
        self._leave_out([row for row, result in enumerate(results) if result is None])
        return [result for result in results if result is not None]

    def _at_picture_size(self, prediction: Prediction, frame: Frame) -> Results | None:
        """The result of one picture; None where its masks would not fit into memory."""
        try:
            return to_results(prediction, frame, self._finish())
        except RoomError as error:
            self.faults.meet(frame.path, error)
            return None

    def inference_features(
        self,
        features: Tensor | dict | Features,
        src_shape: tuple[int, int],
        dst_shape: tuple[int, int] | None = None,
        bboxes: Any = None,
        points: Any = None,
        labels: Any = None,
        masks: Any = None,
        multimask_output: bool = False,
    ) -> tuple[Tensor | None, Tensor]:
        """Prompt features that are at hand.

        Args:
            features: as `get_im_features` returns them, of one picture.
            src_shape: (H, W) of that picture.
            dst_shape: (h, w) of the network's input; None: the features' own.
            bboxes: as in `inference`.
            points: as in `inference`.
            labels: as in `inference`.
            masks: as in `inference`.
            multimask_output: three masks a prompt.

        Returns:
            (masks (N, H, W) bool, or None when there are none; boxes (N, 6): xyxy, score, index of the prompt).
        """
        if self.model is None:
            self.setup_model()
        read = read_features(features)
        shape = dst_shape or (16 * read.grid[0], 16 * read.grid[1])
        view = View(src_shape, shape, self.resize)
        prompts = Prompts.read(bboxes=bboxes, points=points, labels=labels, masks=masks, shape=src_shape)
        if self.device.type == "cpu":
            check_room(prompts, view, 3 if multimask_output else 1)
        with torch.inference_mode(), self._cores():
            multimask = "all" if multimask_output else False
            answer = answer_prompts(self.model, read, [view], [prompts], multimask, Share(MOST_PROMPTS, "prompt"))
            return cut_out(answer, view, self.model.mask_threshold)

    @staticmethod
    def remove_small_regions(masks: Tensor, min_area: float = 0, nms_thresh: float = 0.7) -> tuple[Tensor, Tensor]:
        """Fill holes and drop islands below `min_area` pixels of (N, H, W) masks, then drop duplicates.

        Returns:
            (masks that stay, their indices): NMS on the new boxes, in which a mask that needed no change goes first.
        """
        return remove_small_regions(masks, min_area, nms_thresh)

    # What the answer is made of

    def _with_defaults(self, said: dict[str, Any]) -> dict[str, Any]:
        """What was said of everything, and what suits the rules and the network where nothing was."""
        fitting = defaults(self.plain, said.get("rules", Settings.rules), self.device)
        own = {name: value for name, value in fitting.items() if name in BY_NETWORK.get(self.plain.variant, ())}
        if self.args.verbose and own.keys() - said.keys():
            spelled = ", ".join(f"{name}={value}" for name, value in own.items() if name not in said)
            host.say_once(f"Everything with {self.plain.variant}: {spelled}, unless you say otherwise.")
        return {**fitting, **said}

    def _frames(self, im: Tensor, said: dict[str, Any]) -> tuple[Tensor, list[Frame]]:
        """The batch in hand, picture by picture, each with its own prompts; without those whose prompts are wrong."""
        if self.batch is None:
            raise RuntimeError("There is no picture yet: give a source, or call set_image(picture) first.")
        paths, originals, *_ = self.batch
        pictures, views = host.pictures(originals), self._views(im, originals)
        spellings = {name: said.get(name) for name in arguments.PROMPTS}
        schedule = PictureSchedule(host.picture_count(self.dataset), **spellings)
        numbers = getattr(self.dataset, "numbers", None) or range(self.seen, self.seen + len(paths))
        rows = [self._prompted(schedule, *row) for row in zip(numbers, pictures, paths, views, strict=True)]
        im, frames = self._kept(im, rows)
        if self.prompter is not None:
            found = self.prompter.prompts_of([frame.picture for frame in frames], [frame.prompts for frame in frames])
            frames = [replace(frame, prompts=few) for frame, few in zip(frames, found, strict=True)]
        return im, frames

    def _kept(self, im: Tensor, rows: Sequence[Frame | None]) -> tuple[Tensor, list[Frame]]:
        """The batch in hand without the pictures that are None here."""
        absent = [i for i, row in enumerate(rows) if row is None]
        if absent:
            im = im[[i for i, row in enumerate(rows) if row is not None]]
            self._leave_out(absent)
        return im, [row for row in rows if row is not None]

    def _prompted(
        self, schedule: PictureSchedule, number: int, picture: np.ndarray, path: str, view: View
    ) -> Frame | None:
        """One picture with its prompts; None where those do not fit it.

        Raises:
            PromptError: they are wrong on every picture, or on a stream; or RoomError, they are too many.
        """
        try:
            return Frame(picture, path, view, schedule.prompts_of(number, path, view.picture))
        except (PromptError, RoomError) as error:
            if isinstance(error, PromptError):
                schedule.check_shared()
            if not isinstance(self.dataset, Items):
                raise
            self.faults.meet(path, error)
            return None

    def _views(self, im: Tensor, originals: list[np.ndarray] | Tensor) -> list[View]:
        network = (im.shape[-2], im.shape[-1])
        shapes = [picture.shape[-2:] if isinstance(picture, Tensor) else picture.shape[:2] for picture in originals]
        return [View((height, width), network, self.resize) for height, width in shapes]

    def _in_slices(self, im: Tensor, frames: list[Frame], multimask: Any, embedding: Any) -> Prediction:
        """Encode and answer `batch` pictures at a time, so that a long list never holds more features than that."""
        if self.device.type == "cpu":  # a GPU that is full says so by itself
            faults = self.faults if isinstance(self.dataset, Items) else Faults("raise")
            im, frames = self._kept(im, with_room(frames, faults, 3 if multimask == "all" else 1, self._finish()))
        parts = [Prediction.of_nothing(im)] if not frames else []

        def answer(some: slice) -> None:
            few = frames[some]
            features = self._features(im[some], few, embedding)
            views, prompts = [frame.view for frame in few], [frame.prompts for frame in few]
            answers = answer_prompts(self.model, features, views, prompts, multimask, self.prompts_at_once)
            parts.append(answers.moved_by(some.start))

        self.pictures_at_once.of(len(frames), answer)
        return Prediction.cat(parts, prompts=[frame.prompts for frame in frames])

    def _features(self, im: Tensor, frames: list[Frame], embedding: Any) -> Features:
        """The features of some pictures: given, kept by `set_image`, or encoded now, all in one go."""
        if embedding is not None:
            given = embedding if isinstance(embedding, Embedding) else Embedding.load(embedding)
            picture = frames[0].picture if frames[0].picture.any() else None  # black: the picture is not at hand
            given.check(self.plain, picture, frames[0].view)
            return given.features.to(self.device, self.torch_dtype)
        known = self._known_features()
        return read_features(self.get_im_features(im)) if known is None else known

    def _known_features(self) -> Features | None:
        """The features kept by `set_image`, if the picture in hand is still that one."""
        if self.features is None or self._key(self.batch[1]) != self._shown:
            return None
        return read_features(self.features)
