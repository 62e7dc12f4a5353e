"""The image predictors, called as predictors."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from samplug import Predictor, PromptError, SAM2Predictor, host, resources
from samplug.errors import CheckpointError
from samplug.files.embedding import Embedding
from samplug.masks.resize import resize_to_image
from samplug.nn.structs import PromptBatch
from samplug.transforms import ImageTransform

BOXES = [[20, 30, 120, 140], [100, 60, 300, 200], [5, 5, 60, 60]]
CLICKS = [[60, 80], [200, 120]]


@pytest.fixture
def predictor(network):
    return ready(network)


def ready(network, **overrides):
    made = SAM2Predictor(overrides={"verbose": False, "save": False, **overrides})
    made.setup_model(network, verbose=False)
    return made


def masks(result):
    return result.masks.data.cpu().numpy()


def same(one, two):
    """Whether two results hold the same rows, up to rounding at the edges of masks."""
    assert one.boxes.cls.tolist() == two.boxes.cls.tolist()
    torch.testing.assert_close(one.boxes.conf, two.boxes.conf, rtol=1e-4, atol=1e-5)
    return bool((masks(one) == masks(two)).mean() > 0.9995)


@pytest.mark.host
def test_n_prompts_give_n_rows_in_the_order_of_the_prompts(predictor, images):
    together = predictor(images[0], bboxes=BOXES)[0]
    assert together.masks.data.shape == (3, 240, 320) and together.masks.data.dtype == torch.bool
    assert together.boxes.cls.tolist() == [0, 1, 2] and together.names == {0: "0", 1: "1", 2: "2"}
    assert together.prompt_index.tolist() == [0, 1, 2]
    for i, box in enumerate(BOXES):
        alone = predictor(images[0], bboxes=[box])[0]
        assert (masks(alone)[0] == masks(together)[i]).mean() > 0.9995


def test_masks_follow_their_prompts(predictor, images):
    a, b = masks(predictor(images[0], points=[[[40, 40]], [[280, 200]]])[0])
    assert 0 < a.mean() < 1 and (a != b).any()


@pytest.mark.host
def test_only_a_conf_that_was_chosen_drops_masks(network, images):
    scores = ready(network)(images[0], bboxes=BOXES)[0].boxes.conf
    between = float(scores.sort().values[:2].mean())
    kept = ready(network, conf=between)(images[0], bboxes=BOXES)[0]
    assert kept.boxes.conf.tolist() == [float(s) for s in scores if s > between]
    assert kept.boxes.cls.tolist() == [i for i, s in enumerate(scores) if s > between]


@pytest.mark.host
def test_nothing_left_is_zero_rows_of_both_masks_and_boxes(network, images):
    result = ready(network, conf=1.0)(images[0], bboxes=BOXES)[0]
    assert result.masks.data.shape == (0, 240, 320) and result.boxes.data.shape == (0, 6)
    assert len(result) == 0 and result.plot().shape == (240, 320, 3) and result.summary() == []
    assert len(ready(network)(images[0], bboxes=[])[0]) == 0


@pytest.mark.host
def test_a_batch_equals_single_calls_with_its_own_number_of_prompts_each(network, images, encodings):
    wishes = [{"bboxes": BOXES[:2]}, {"points": [[70, 90]]}, None]
    batched = ready(network, batch=3)(list(images), prompts=wishes)
    assert encodings == [3]
    assert [len(result) for result in batched] == [2, 1, 0]
    for result, image, wish in zip(batched[:2], images, wishes, strict=False):
        assert result.orig_shape == image.shape[:2]
        assert same(result, ready(network)(image, **wish)[0])


def test_a_long_list_is_encoded_batch_by_batch(network, images, encodings):
    ready(network, batch=2)(list(images), points=[10, 10])
    assert encodings == [2, 1]


@pytest.mark.host
def test_boxes_nested_once_more_are_a_list_for_each_image(network, images):
    results = ready(network)(list(images[:2]), bboxes=[BOXES[:2], BOXES[2:]])
    assert [len(result) for result in results] == [2, 1]


def test_embeddings_come_back_from_a_file_and_refuse_what_they_do_not_fit(network, images, tmp_path, encodings):
    ready(network).embed(images[0]).save(tmp_path / "image.npz")
    encodings.clear()
    read = ready(network)(images[0], bboxes=BOXES, embedding=tmp_path / "image.npz")[0]
    assert encodings == []
    assert same(read, ready(network)(images[0], bboxes=BOXES)[0])
    with pytest.raises(ValueError, match="image"):
        ready(network)(images[1], points=[9, 9], embedding=Embedding.load(tmp_path / "image.npz"))
    with pytest.raises(ValueError, match="192"):
        ready(network, imgsz=192)(images[0], points=[9, 9], embedding=tmp_path / "image.npz")


def test_multimask_all_gives_three_rows_a_prompt_and_best_the_likeliest(predictor, images):
    all_three = predictor(images[0], points=CLICKS, multimask="all")[0]
    assert all_three.boxes.cls.tolist() == [0, 0, 0, 1, 1, 1] == all_three.prompt_index.tolist()
    assert same(all_three, predictor(images[0], points=CLICKS, multimask_output=True)[0])
    best = predictor(images[0], points=CLICKS, multimask="best")[0]
    assert best.boxes.conf.tolist() == all_three.boxes.conf.view(2, 3).max(1).values.tolist()
    for i, row in enumerate(all_three.boxes.conf.view(2, 3).argmax(1)):
        assert (masks(best)[i] == masks(all_three)[3 * i + int(row)]).all()
    with pytest.raises(ValueError, match="'best'"):
        predictor(images[0], points=CLICKS, multimask="most")


def test_logits_are_kept_on_request_and_may_be_fed_back(predictor, images):
    first = predictor(images[0], points=CLICKS, logits=True)[0]
    assert first.logits.shape == (2, 64, 64) and first.logits.dtype == torch.float32
    assert torch.equal(resize_to_image(first.logits, ImageTransform((240, 320), (256, 256))), first.masks.data)
    second = predictor(images[0], points=CLICKS, masks=first.logits, logits=True)[0]
    assert len(second) == 2 and not torch.equal(first.boxes.conf, second.boxes.conf)
    gain = 256 / 320  # what the network itself makes of clicks and logits
    points, labels = torch.tensor(CLICKS)[:, None] * gain, torch.ones(2, 1, dtype=torch.int64)
    prompts = PromptBatch(torch.zeros(2, dtype=torch.int64), points, labels, masks=first.logits[:, None])
    with torch.inference_mode():
        answer = predictor.model.answer(predictor.model.encode(predictor.preprocess([images[0]])), prompts)
    torch.testing.assert_close(answer.logits[:, 0], second.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(answer.iou[:, 0], second.boxes.conf, rtol=1e-4, atol=1e-5)
    assert not hasattr(predictor(images[0], points=CLICKS)[0], "logits")


@pytest.mark.host
def test_grey_alpha_16_bit_float_and_pil_images_are_read_alike(predictor):
    grey = (np.indices((120, 160)).sum(0) % 256).astype(np.uint8)
    bgr = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    spellings = [
        grey,
        grey[..., None],
        np.dstack([bgr, np.full_like(grey, 255)]),
        bgr.astype(np.uint16) << 8,
        bgr.astype(np.float32),
        bgr.astype(np.float32) / 255,
        Image.fromarray(grey),
        Image.fromarray(bgr).convert("RGBA"),
    ]
    expected = predictor(bgr, points=[50, 50])[0]
    for spelling in spellings:
        assert same(predictor(spelling, points=[50, 50])[0], expected)


@pytest.mark.host
def test_a_tensor_in_0_to_1_is_normalised_like_an_image(network):
    bgr = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    rgb = torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    result = ready(network)(rgb, points=[50, 50])[0]
    assert same(result, ready(network)(bgr, points=[50, 50])[0])
    assert np.array_equal(result.orig_img, bgr)


def test_rectangles_and_other_sizes_run_and_odd_ones_are_rounded_up(network, images, encodings):
    predictor = ready(network, imgsz=(192, 256))
    assert len(predictor(images[0], points=CLICKS)[0]) == 2 and predictor.imgsz == [192, 256]
    predictor = ready(network, imgsz=250)
    predictor(images[0], points=CLICKS)
    assert predictor.imgsz == [256, 256]


def test_stretch_fills_the_input_and_letterbox_keeps_the_shape(network, images):
    assert ready(network)(images[2], points=[100, 50])[0].masks.data.shape == (1, 97, 256)
    stretched = ready(network, resize="stretch")
    assert stretched(images[2], points=[100, 50])[0].masks.data.shape == (1, 97, 256)
    assert stretched.pre_transform([images[2]])[0].shape == (256, 256, 3)


def test_features_at_hand_answer_as_a_run_does(predictor, images):
    expected = predictor(images[0], bboxes=BOXES)[0]
    predictor.set_image(images[0])
    found, boxes = predictor.inference_features(predictor.features, images[0].shape[:2], bboxes=BOXES)
    assert np.array_equal(found.numpy(), masks(expected))
    assert torch.equal(boxes, expected.boxes.data)
    nothing, none = predictor.inference_features(predictor.features, images[0].shape[:2], bboxes=[])
    assert nothing is None and none.shape == (0, 6)


@pytest.mark.host
def test_everything_is_segmented_when_nothing_is_prompted(network, images):
    predictor = ready(network, iou=1.0)
    num_obj_ptr_tokens = {"points_stride": 4, "conf_thres": -1.0, "stability_score_thresh": -1.0}
    results = predictor(list(images[:2]), **num_obj_ptr_tokens)
    for result, image in zip(results, images, strict=False):
        assert len(result) > 1 and result.masks.data.shape[1:] == image.shape[:2]
        assert result.boxes.cls.tolist() == list(range(len(result)))
    assert not predictor.segment_all
    assert len(predictor(images[0], **{**num_obj_ptr_tokens, "conf_thres": 2.0})[0]) == 0
    assert len(predictor(images[0], **num_obj_ptr_tokens, crop_n_layers=1, crop_nms_thresh=1.0)[0]) > 1
    assert len(predictor(images[0], **num_obj_ptr_tokens, min_mask_region_area=30)[0]) >= 1


@pytest.mark.host
def test_classes_and_names_of_prompts_are_kept_and_filtered(network, images):
    named = {"bboxes": BOXES, "cls": [7, 2, 7], "names": {2: "cat", 7: "cup"}}
    result = ready(network)(images[0], **named)[0]
    assert result.boxes.cls.tolist() == [7, 2, 7] and result.names[7] == "cup"
    assert "cat" in result.verbose()
    assert ready(network, classes=[2])(images[0], **named)[0].prompt_index.tolist() == [1]


def test_ids_that_were_given_are_track_ids(predictor, images):
    result = predictor(images[0], bboxes=BOXES, obj_ids=[30, 10, 20])[0]
    assert result.boxes.is_track and result.boxes.id.tolist() == [30, 10, 20]


def test_prompts_that_cannot_be_are_refused_with_the_argument_named(predictor, images):
    with pytest.raises(PromptError, match="points"):
        predictor(images[0], points=[[10_000, 3]])
    with pytest.raises(AssertionError, match="bboxes"):
        predictor(images[0], bboxes=[[1, 2, 3]])
    with pytest.raises(TypeError, match="points_stride"):
        predictor(images[0], point_stride=8)


@pytest.mark.host
def test_stored_prompts_serve_one_run(predictor, images):
    predictor.set_prompts({"points": CLICKS, "bboxes": None})
    assert len(predictor(images[0])[0]) == 2
    assert len(predictor(images[0], conf_thres=9.0, points_stride=2)[0]) == 0  # nothing prompted: everything


def test_what_the_user_gave_is_not_written_into(network, images):
    overrides = {"verbose": False, "save": False, "points_stride": 2}
    before = dict(overrides)
    predictor = SAM2Predictor(overrides=overrides)
    predictor.setup_model(network, verbose=False)
    predictor(images[0])
    assert overrides == before


def test_methods_called_too_early_say_what_to_call_first(nano_file, images):
    fresh = Predictor(overrides={"model": str(nano_file), "verbose": False})
    with pytest.raises(RuntimeError, match="set_image"):
        fresh(points=[1, 1])
    fresh = Predictor(overrides={"model": str(nano_file), "verbose": False})
    fresh.set_image(images[0])
    assert fresh.prompt_inference(fresh.im, points=[20, 20])[0].shape == (1, 64, 64)


def test_half_precision_on_a_cpu_computes_in_fp32_and_says_so(network, images, capture_log):
    host.warn_once.cache_clear()
    half = ready(network, half=True)
    assert sum("half precision" in line for line in capture_log) == 1
    assert same(half(images[0], bboxes=BOXES)[0], ready(network)(images[0], bboxes=BOXES)[0])
    assert next(network.parameters()).dtype == torch.float32


def test_every_core_works_and_the_setting_is_given_back(network, images, monkeypatch):

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    seen = []
    hook = network.image_encoder.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    try:
        torch.set_num_threads(host.NUM_THREADS)  # what the host leaves behind after any prediction on a CPU
        ready(network)(images[0], points=[9, 9])
        assert torch.get_num_threads() == host.NUM_THREADS and seen == [resources.usable_cores()]
    finally:
        torch.set_num_threads(before)
        hook.remove()


def test_a_sam_2_predictor_refuses_a_sam_network(tmp_path):
    from samplug.checkpoints.config import build

    with pytest.raises(CheckpointError, match="SAM 2"):
        ready(build({"variant": "mobile_sam"}))


BATCHES = {
    "arrays": (lambda images, folder: list(images), {}, [2]),
    "PIL images": (lambda images, folder: [Image.fromarray(image[..., ::-1]) for image in images], {}, [2]),
    "one array": (lambda images, folder: images[0], {}, [1]),
    "batch=1": (lambda images, folder: list(images), {"batch": 1}, [1, 1]),
    "batch=2 of four": (lambda images, folder: [*images, *images], {"batch": 2}, [2, 2]),
    "the host's own batch=1": (lambda images, folder: list(images), {"batch": 1, "rect": True, "conf": 0.25}, [2]),
    "files": (lambda images, folder: [saved(folder, i, image) for i, image in enumerate(images)], {}, [1, 1]),
}


def saved(folder, i, image):
    cv2.imwrite(str(folder / f"{i}.png"), image)
    return str(folder / f"{i}.png")


@pytest.mark.parametrize("name", BATCHES)
def test_a_list_of_arrays_is_one_batch_unless_batch_says_otherwise(network, images, tmp_path, name):
    source, options, expected = BATCHES[name]
    worker, sizes = ready(network, imgsz=128, **options), []
    worker.add_callback("on_predict_batch_end", lambda made: sizes.append(len(made.batch[0])))
    results = worker(source(images[:2], tmp_path), points=CLICKS[:1])
    assert sizes == expected and len(results) == sum(expected)
    alone = [ready(network, imgsz=128)(image, points=CLICKS[:1])[0] for image in images[:2]]
    assert all(same(one, alone[i % 2]) for i, one in enumerate(results))
