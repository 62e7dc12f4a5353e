"""SAM, and SAM 2 and 2.1, on images: prompts, everything mode, and one image that is prompted many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from samplug import arguments
from samplug.errors import CheckpointError, OutOfMemoryError
from samplug.files.embedding import Embedding, image_fingerprint
from samplug.host import DEFAULT_CFG, Results
from samplug.masks.regions import remove_small_regions
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Features
from samplug.predict.auto.generator import FITTING, GenerateOptions, with_defaults
from samplug.predict.auto.prompted_tiles import PromptTiles, segment_in_tiles
from samplug.predict.auto.tiles import check_tiles, segment_everything
from samplug.predict.base import NO_IMAGE, PredictorBase
from samplug.predict.detector import Detector
from samplug.predict.embedded import blank_image, embedded_features, refuse_tiles
from samplug.predict.memory_estimate import PROMPTS_AT_ONCE, fitting_images, require_prompt_memory
from samplug.predict.prediction import (
    Prediction,
    PromptedImage,
    image_results,
    masks_and_boxes,
    public_features,
    read_features,
    segment_prompts,
    with_prompts,
)
from samplug.predict.results.build import PostprocessOptions
from samplug.prompts.objects import Prompts
from samplug.prompts.per_image import ImagePrompts
from samplug.prompts.raw import RawPrompts
from samplug.runtime.adaptive_batch import AdaptiveBatch
from samplug.runtime.run_guard import one_at_a_time
from samplug.sources.base_loader import image_count, require_one_image
from samplug.sources.errors import ErrorPolicy
from samplug.sources.image_loader import ImageLoader
from samplug.sources.pixels import as_bgr, batch_as_bgr
from samplug.transforms import ImageTransform, fit_image, normalise, to_rgb


class Predictor(PredictorBase):
    """Segment images with SAM, MobileSAM, SAM 2 or 2.1: by prompts, or everything.

    Attributes:
        im: (1, 3, h, w) input of the image given to `set_image`, else None.
        features: that image's features, else None.
        segment_all: True while nothing is prompted.
        prompter: detects the objects to segment, None without `prompter=`.
        image_is_blank: the image is not at hand, only its `embedding=`.
        images_at_once: how many are encoded together: `batch`; arrays in a list, on a GPU, as many as its memory takes.
        prompts_at_once: how many are decoded together: 256, or fewer likewise.
    """

    im: Any
    features: Any
    _set_image: Any  # the loader of the image given to `set_image`

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict | None = None):
        super().__init__(cfg, overrides, _callbacks)
        self.segment_all = self.image_is_blank = False
        self.prompter: Detector | None = None
        self.reset_image()

    def setup_source(self, source: Any, stride: int | None = None) -> None:
        """Open a source; None goes on with the image given to `set_image`, or with that of `embedding=`, in black."""
        self.image_is_blank = source is None and self._set_image is None and self._option("embedding") is not None
        if self.image_is_blank:
            source = blank_image(self._option("embedding"), self.run_options)
        if source is not None:
            self._forget_features()
        elif self._set_image is not None:
            self.dataset, self.source_type = self._set_image, self._set_image.source_type
        self.prompts_at_once = AdaptiveBatch(PROMPTS_AT_ONCE, "prompt")
        prompter = self._option("prompter")
        self.prompter = None if prompter is None else Detector(prompter, Predictor, self.args.device)
        super().setup_source(source, stride)
        self.images_at_once = AdaptiveBatch.of_images(self.device, int(self.args.batch), self.dataset.bs)
        self._options = self._postprocess_options()
        if source is None and self._set_image is not None and self.im is None:  # another source came between
            self._encode_source()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the detector."""
        return {**super().__getstate__(), "prompter": None}

    # Images

    @property
    def resize(self) -> Any:
        """How images are fitted: `resize=` where it was given, else as the rules of everything mode need it."""
        rules = self.run_options.get("rules", GenerateOptions.rules), isinstance(self.fp32_model, SAM2Model)
        return self.run_options.get("resize") or FITTING.get(rules, "letterbox")

    def preprocess(self, im: list[np.ndarray] | Tensor) -> Tensor:
        """Bring BGR images, or a (F, 3, h, w) RGB tensor in 0-1, to the network's normalised input (F, 3, h, w)."""
        if self.im is not None and self._fingerprint(im) == self._image_fingerprint:
            return self.im
        tensor = to_rgb(im if isinstance(im, Tensor) else self.pre_transform(im), self.device)
        return self.compute_options.prepare_images(normalise(tensor, self.mean, self.std))

    def pre_transform(self, im: list[np.ndarray]) -> list[np.ndarray]:
        """Fit each image into `imgsz`, as `resize` says."""
        return [fit_image(as_bgr(image), self.imgsz, self.resize) for image in im]

    @one_at_a_time
    def set_image(self, image: Any) -> None:
        """Encode one image (a path or a BGR array), to be prompted by calls without a source until `reset_image`."""
        self._encode_image(image)
        self._set_image = self.dataset

    @one_at_a_time
    def embed(self, image: Any) -> Embedding:
        """Encode one image for another run or process: `Embedding.save`, then `embedding=` of a later call."""
        before = self.dataset
        self._encode_image(image)
        (info,), features = self._batch_images(self.im), read_features(self.features)
        self.dataset = before
        self._forget_features()
        return Embedding.of(self.fp32_model, info.image, features, info.transform)

    def reset_image(self) -> None:
        """Forget the image and its features."""
        self._set_image = self.dataset = self.batch = None
        self._forget_features()

    def _encode_image(self, image: Any) -> None:
        """Open and encode one image; where that fails, the source before stays."""
        if self.model is None:
            self.setup_model()
        before = self.dataset
        try:
            self.setup_source(image)
            require_one_image(self.dataset)
            self._encode_source()
        except BaseException:
            self.dataset = before
            self._forget_features()
            raise

    def _encode_source(self) -> None:
        """Encode the one image of the source."""
        self.batch = next(iter(self.dataset))
        if isinstance(self.dataset, ImageLoader):
            self.dataset.hold(self.batch[1])
        with torch.inference_mode(), self._threads():
            self.im = self.preprocess(self.batch[1])
            self.features = self.get_im_features(self.im)
        self._image_fingerprint = self._fingerprint(self.batch[1])

    def _forget_features(self) -> None:
        self.im = self.features = self._image_fingerprint = None

    def _fingerprint(self, originals: list[np.ndarray] | Tensor) -> tuple | None:
        """What the features of one image depend on; None for several."""
        if len(originals) != 1:
            return None
        pixels = image_fingerprint(originals[0])
        return pixels, self.fp32_model, tuple(self.imgsz), self.resize, self.compute_options

    def get_im_features(self, im: Tensor) -> Tensor | dict[str, Tensor | list[Tensor]]:
        """Encode (F, 3, h, w): (F, C, h/16, w/16) for SAM; {"image_embed", "high_res_feats"} for SAM 2."""
        return public_features(self.model.encode(im))

    def _transforms(self, im: Tensor, images: Sequence[np.ndarray]) -> list[ImageTransform]:
        """How BGR images lie in an input (F, 3, h, w)."""
        input_size, resize = (im.shape[-2], im.shape[-1]), self.resize
        return [ImageTransform((image.shape[0], image.shape[1]), input_size, resize) for image in images]

    def _batch_images(self, im: Tensor, originals: list[np.ndarray] | Tensor | None = None) -> list[PromptedImage]:
        """The images of the current batch, without prompts."""
        if self.batch is None:
            raise RuntimeError(NO_IMAGE)
        images = batch_as_bgr(self.batch[1] if originals is None else originals)
        return list(map(PromptedImage, images, self.batch[0], self._transforms(im, images)))

    # Inference

    def inference(
        self, im: Tensor, bboxes: Any = None, points: Any = None, labels: Any = None, masks: Any = None,
        multimask_output: bool = False, *args: Any, **kwargs: Any,
    ) -> Prediction:  # fmt: skip
        """Segment what prompts ask for on a batch, or everything when there are none.

        Args:
            im: (F, 3, h, w) normalised input.
            bboxes: (N, 4) xyxy in pixels of the image, as all prompts; several images: `prompts.ImagePrompts`.
            points: (N, 2), (N, P, 2) or ragged.
            labels: 1 on the object, 0 off it; left out means 1.
            masks: a mask an object.
            multimask_output: three masks a prompt.
            *args: arguments of `generate`, in order.
            **kwargs: further arguments of ours.

        Returns:
            (logits (N, h/4, w/4), scores (N,)); with no prompt (masks (N, h, w), scores (N,), boxes (N, 4)).

        Raises:
            PromptError: a prompt cannot be read or does not fit the image.
        """
        given = {"bboxes": bboxes, "points": points, "labels": labels, "masks": masks, **kwargs}
        with self._threads():
            im, images = self._prompted_images(im, given)
            self.segment_all = bool(images) and not any(image.prompts.given for image in images)
            if self.segment_all:
                settings = {name: given[name] for name in (*arguments.EVERYTHING, "embedding") if name in given}
                if not args:
                    settings = {"outlines": self._option("outlines"), **settings}
                    settings = with_defaults(settings, self.fp32_model, self.device, self.args.verbose)
                return self.generate(im, *args, **settings)
            multimask = "all" if multimask_output else given.get("multimask", False)
            return self._segment(im, images, multimask, given)

    def prompt_inference(
        self, im: Tensor, bboxes: Any = None, points: Any = None, labels: Any = None, masks: Any = None,
        multimask_output: bool = False,
    ) -> Prediction:  # fmt: skip
        """Segment what prompts ask for on the current batch, as `inference` does; no rows when there are none."""
        im, images = self._prompted_images(im, {"bboxes": bboxes, "points": points, "labels": labels, "masks": masks})
        return self._segment(im, images, "all" if multimask_output else False, {})

    def generate(
        self, im: Tensor, crop_n_layers: int = 0, crop_overlap_ratio: float = 512 / 1500,
        crop_downscale_factor: int = 1, point_grids: Sequence[np.ndarray] | None = None, points_stride: int = 32,
        points_batch_size: int = 64, conf_thres: float = 0.88, stability_score_thresh: float = 0.95,
        stability_score_offset: float = 0.95, crop_nms_thresh: float = 0.7, min_mask_region_area: int = 0, *,
        tile: int | None = None, overlap: float = 0.25, rules: str = "ultralytics", outlines: str = "grid",
        embedding: Any = None,
    ) -> Prediction:  # fmt: skip
        """Segment everything on each image of a batch; the arguments are explained in `samplug.arguments.OWN`.

        Returns:
            (masks (N, h, w) bool, scores (N,), boxes (N, 4) xyxy), in pixels of the network's input, as in Ultralytics;
            of the image where outlines are smooth, the rules Meta's, or there are tiles.

        Raises:
            ValueError: a value that is not accepted, or tiles that share all their pixels.
            EmbeddingError: an embedding of another image, or one together with tiles.
        """
        if tile:
            check_tiles(tile, overlap)
        refuse_tiles(embedding, tile)
        options = GenerateOptions(
            crop_n_layers, crop_overlap_ratio, crop_downscale_factor, point_grids, points_stride, points_batch_size,
            conf_thres, stability_score_thresh, stability_score_offset, crop_nms_thresh, min_mask_region_area, rules,
            self.args.iou, self.conf, self.args.verbose, tile, overlap, outlines,
        )  # fmt: skip
        arguments.check({name: value for name, value in vars(options).items() if name in arguments.OWN})
        images = self._batch_images(im)
        features = self._known_features(im) if embedding is None else self._encode(im, images, embedding)
        return segment_everything(self.model, im, images, features, options, self.preprocess)

    def postprocess(
        self, preds: Prediction | tuple, img: Tensor, orig_imgs: list[np.ndarray] | Tensor
    ) -> list[Results]:
        """Bring a batch's masks to the size of their images, one `Results` an image, in prompt order."""
        prediction = preds if isinstance(preds, Prediction) else Prediction(*preds)
        images = self._batch_images(img, orig_imgs) if prediction.images is None else prediction.images
        self.segment_all = False
        with self._threads():
            results = [self._image_result(prediction.image(i), image) for i, image in enumerate(images)]
        if None in results:
            self._drop_images([i for i, result in enumerate(results) if result is None])
        return [result for result in results if result is not None]

    def _image_result(self, prediction: Prediction, image: PromptedImage) -> Results | None:
        """The result of one image; None where its masks would not fit into memory."""
        try:
            return image_results(prediction, image, self._options)
        except OutOfMemoryError as error:
            self.errors.handle(image.path, error)
            return None

    def inference_features(  # noqa: D417  # its prompts are those of `inference`
        self, features: Tensor | dict | Features, src_shape: tuple[int, int],
        dst_shape: tuple[int, int] | None = None, bboxes: Any = None, points: Any = None, labels: Any = None,
        masks: Any = None, multimask_output: bool = False,
    ) -> tuple[Tensor | None, Tensor]:  # fmt: skip
        """Segment what prompts ask for on features of one image.

        Args:
            features: as `get_im_features` returns them, of one image.
            src_shape: (H, W) of that image.
            dst_shape: (h, w) of the network's input; None: the features' own.
            bboxes, points, labels, masks, multimask_output: as in `inference`.

        Returns:
            (masks (N, H, W) bool, or None when there are none; boxes (N, 6): xyxy, score, index of the prompt).
        """
        if self.model is None:
            self.setup_model()
        read = read_features(features)
        transform = ImageTransform(src_shape, dst_shape or (16 * read.grid[0], 16 * read.grid[1]), self.resize)
        prompts = Prompts.read(bboxes=bboxes, points=points, labels=labels, masks=masks, shape=src_shape)
        if self.device.type == "cpu":
            require_prompt_memory(prompts, transform, 3 if multimask_output else 1, PostprocessOptions())
        with torch.inference_mode(), self._threads():
            multimask, batch_size = "all" if multimask_output else False, AdaptiveBatch(PROMPTS_AT_ONCE, "prompt")
            prediction = segment_prompts(self.model, read, [transform], [prompts], multimask, batch_size)
            return masks_and_boxes(prediction, transform, self.model.mask_threshold)

    remove_small_regions = staticmethod(remove_small_regions)

    def _prompted_images(self, im: Tensor, given: dict[str, Any]) -> tuple[Tensor, list[PromptedImage]]:
        """The input and the images of the current batch with their prompts, without those whose prompts are wrong."""
        images = self._batch_images(im)
        prompts = ImagePrompts(RawPrompts.from_options(given), image_count(self.dataset))
        indices = getattr(self.dataset, "indices", None) or range(self.seen, self.seen + len(images))
        im, images = self._without_skipped(im, with_prompts(images, indices, prompts, self._image_errors))
        if self.prompter is not None:
            found = self.prompter.prompts_of([image.image for image in images], [image.prompts for image in images])
            images = [replace(image, prompts=few) for image, few in zip(images, found, strict=True)]
        return im, images

    def _without_skipped(
        self, im: Tensor, images: Sequence[PromptedImage | None]
    ) -> tuple[Tensor, list[PromptedImage]]:
        """The input and the images of the current batch without those that are None."""
        kept = [image for image in images if image is not None]
        if len(kept) < len(images):
            im = im[[i for i, image in enumerate(images) if image is not None]]
            self._drop_images([i for i, image in enumerate(images) if image is None])
        return im, kept

    @property
    def _image_errors(self) -> ErrorPolicy:
        """Where images are noted whose prompts do not fit: on streams and tensors they end the run."""
        return self.errors if isinstance(self.dataset, ImageLoader) else ErrorPolicy("raise")

    def _segment(self, im: Tensor, images: list[PromptedImage], multimask: Any, given: dict[str, Any]) -> Prediction:
        """Encode and decode `batch` images at a time, so that a long list never holds more features than that."""
        on_cpu, embedding, tile = self.device.type == "cpu", given.get("embedding"), given.get("tile")
        if on_cpu:  # a GPU that is full says so by itself
            fitting = fitting_images(images, self._image_errors, 3 if multimask == "all" else 1, self._options)
            im, images = self._without_skipped(im, fitting)
        if tile:
            refuse_tiles(embedding, tile, self._options.keep_logits)
            how = self._option("overlap"), multimask, self.prompts_at_once, self.args.verbose
            return segment_in_tiles(PromptTiles(self.model, self.preprocess, self.resize, tile, *how), images, im)
        known = self._known_features(im) if embedding is None else None
        parts = [] if images else [Prediction.empty(im)]

        def segment(part: slice) -> None:
            few = images[part]
            features = self._encode(im[part], few, embedding) if known is None else known
            transforms, prompts = [image.transform for image in few], [image.prompts for image in few]
            prediction = segment_prompts(self.model, features, transforms, prompts, multimask, self.prompts_at_once)
            prediction.image_index += part.start
            prediction.memory_checked = on_cpu
            parts.append(prediction)

        self.images_at_once.run(len(images), segment)
        return Prediction.cat(parts, images)

    def _encode(self, im: Tensor, images: Sequence[PromptedImage], embedding: Any) -> Features:
        """The features of some images: those of an embedding, or encoded now, all in one go."""
        if embedding is None:
            return self.model.encode(im)
        features = embedded_features(embedding, self.fp32_model, images, self.image_is_blank)
        return features.to(self.device, self.torch_dtype)

    def _known_features(self, im: Tensor) -> Features | None:
        """The features of an input if it is that of the image given to `set_image`."""
        return read_features(self.features) if self.features is not None and im is self.im else None


class SAM2Predictor(Predictor):
    """Segment images with SAM 2 or 2.1: a `Predictor` that refuses other networks.

    Its features are {"image_embed": (F, C, h/16, w/16), "high_res_feats": [(F, C/8, h/4, w/4), (F, C/4, h/8, w/8)]},
    the no-memory embedding added.
    """

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict | None = None):
        super().__init__(cfg, overrides, _callbacks)
        self.objects_at_once = AdaptiveBatch(PROMPTS_AT_ONCE, "object")  # found by their memories; fewer on a full GPU

    def setup_model(self, model: nn.Module | str | None = None, verbose: bool = True) -> None:
        """Load a SAM 2 network; CheckpointError for a SAM one."""
        super().setup_model(model, verbose)
        if not isinstance(self.model, SAM2Model):
            raise CheckpointError(
                f"{type(self).__name__} runs SAM 2 and 2.1, not {self.model.variant or type(self.model).__name__}: "
                "use Predictor, or samplug.SAM, which chooses by itself."
            )

    @property
    def network(self) -> SAM2Model:
        """The model, typed as the SAM 2 network that it is; RuntimeError before it is loaded."""
        if not isinstance(self.model, SAM2Model):
            raise RuntimeError("The network is not loaded: call setup_model() first, or predict.")
        return self.model
