"""The switches that say how a network computes: each leaves the answer what it was, within what it rounds."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from samplug import SAM, SAM2Predictor, SAM2VideoPredictor, host
from samplug.benchmark.scene import draw_clicks, draw_image
from samplug.benchmark.weights import randomise
from samplug.checkpoints.config import build
from samplug.masks.iou import paired_mask_iou
from samplug.nn.memory.frames import MemoryContext
from samplug.nn.ops import attention
from samplug.nn.structs import PromptBatch
from samplug.runtime.compiled import (
    Decoder,
    batch_slices,
    compiled,
    distance,
    find_mismatch,
    pad_rows,
    with_compiled_parts,
)
from samplug.runtime.precision import ComputeOptions, convert

BOX = [[30, 20, 170, 160]]
BOTH = [[30, 20, 170, 160], [150, 90, 280, 220]]
SAID = {"imgsz": 128, "verbose": False}
SMALL = {"variant": "samplug-nano", "image_size": 64}


@pytest.fixture(scope="module")
def network():
    return randomise(build(SMALL)).eval()


@pytest.fixture
def model(nano_file):
    return SAM(nano_file)


def prompted(count, points=1, size=64):
    """So many prompts of so many clicks each."""
    generator = torch.Generator().manual_seed(count + 100 * points)
    xy = torch.rand(count, points, 2, generator=generator) * size
    return PromptBatch(torch.zeros(count, dtype=torch.int64), xy, torch.ones(count, points, dtype=torch.int64))


# Precision


@pytest.mark.parametrize("variant", ["samplug-nano", "mobile_sam"])
@torch.inference_mode()
def test_bfloat16_changes_masks_by_a_few_pixels(variant):
    size = 128
    plain = randomise(build({"variant": variant}))
    coarse = convert(plain, ComputeOptions(torch.bfloat16))
    pixels = (draw_image(size, size) - plain.pixel_mean) / plain.pixel_std
    prompts = draw_clicks(6, size)
    right = plain.answer(plain.encode(pixels), prompts, multimask=True)
    answer = coarse.answer(coarse.encode(pixels.bfloat16()), prompts, multimask=True)
    assert coarse.encode(pixels.bfloat16()).image.dtype == torch.bfloat16
    assert answer.logits.dtype == torch.float32  # the decoder's sums
    assert 1e-4 < distance(answer.logits, right.logits) < 0.03
    assert paired_mask_iou(answer.logits > 0, right.logits > 0, empty=1.0).median() > 0.97


def test_beside_bfloat16_the_decoder_keeps_every_bit():
    plain = randomise(build({"variant": "sam2.1_t"}))
    coarse = convert(plain, ComputeOptions(torch.bfloat16))
    kept, right = coarse.sam_mask_decoder.state_dict(), plain.sam_mask_decoder.state_dict()
    encoded = {name for name in kept if name.startswith(("conv_s0.", "conv_s1."))}  # layers of the encoder's maps
    assert {kept[name].dtype for name in encoded} == {torch.bfloat16} and encoded
    assert all(torch.equal(kept[name], right[name]) for name in kept.keys() - encoded)
    assert coarse.image_encoder.trunk.pos_embed.dtype == torch.bfloat16
    assert next(plain.sam_mask_decoder.conv_s0.parameters()).dtype == torch.float32


@pytest.mark.parametrize("amx", [False, True], ids=["blocks", "kernel"])
@torch.inference_mode()
def test_memory_attention_in_bfloat16_loses_little(monkeypatch, amx):
    """Its layers' sum is float32: rounded after each of them it would be 1.3 times as far off."""
    monkeypatch.setattr(attention, "has_amx", lambda: amx)
    plain = randomise(build({"variant": "sam2.1_t"})).memory_attention
    coarse = deepcopy(plain).bfloat16()
    sizes = {"x": (1, 1024, 256), "pos": (1, 1024, 256), "memory": (1, 2048, 64), "memory_pos": (1, 2048, 64)}
    given = {name: torch.randn(size).mul_(0.5).bfloat16() for name, size in sizes.items()}
    right = plain.condition(**{name: tensor.float() for name, tensor in given.items()}, grid=(32, 32))
    answer = coarse.condition(**given, grid=(32, 32))
    assert answer.dtype == torch.bfloat16
    assert (answer.float() - right).norm() < 0.0072 * right.norm()


def test_norms_and_softmax_of_bfloat16_are_computed_in_float32():
    """Torch's kernels widen what they are given: rounded once, the result is that of float32."""
    torch.manual_seed(0)
    x, norm = 100 + torch.randn(64, 256), torch.nn.LayerNorm(256)
    coarse = x.bfloat16()
    for answer, right in (
        (deepcopy(norm).bfloat16()(coarse), norm(coarse.float())),
        (coarse.softmax(1), coarse.float().softmax(1)),
    ):
        assert distance(answer, right) < 2**-8  # half a step of bfloat16 at the largest value
    by_hand = (coarse - coarse.mean(1, keepdim=True)) / coarse.std(1, keepdim=True)
    assert distance(by_hand, norm(coarse.float())) > 0.02  # what steps in bfloat16 would give


def test_the_network_keeps_its_bits(model, images):
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    expected = model.predict(images[0], bboxes=BOTH, **SAID)[0].masks.data
    model.predict(images[0], bboxes=BOTH, bf16=True, channels_last=True, **SAID)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.model.state_dict().items())
    assert torch.equal(model.predict(images[0], bboxes=BOTH, **SAID)[0].masks.data, expected)


def test_predictors_compute_in_the_form_that_was_asked_for(model, images):
    dtypes = {}
    for bf16 in (False, True):
        result = model.predict(images[0], bboxes=BOTH, bf16=bf16, logits=True, **SAID)[0]
        dtypes[bf16] = next(model.predictor.model.parameters()).dtype
        assert result.logits.dtype == torch.float32  # masks are decided in float32 either way
        assert result.masks.data.any() and len(result) == 2
    assert dtypes == {False: torch.float32, True: torch.bfloat16}


def test_videos_are_followed_in_bfloat16(nano_file, images):
    frames = [np.roll(images[0], (2 * i, 3 * i), (0, 1)) for i in range(4)]
    predictor = SAM2VideoPredictor(overrides={"model": str(nano_file), "save": False, "bf16": True, **SAID})
    results = list(predictor(source=frames, bboxes=BOTH, stream=True))
    assert [result.frame for result in results] == [0, 1, 2, 3] and results[0].masks.data.any()
    assert next(predictor.model.parameters()).dtype == torch.bfloat16


def test_half_on_a_cpu_says_so_and_computes_in_float32(model, images, capture_log, monkeypatch):

    host.warn_once.cache_clear()
    expected = model.predict(images[0], bboxes=BOX, **SAID)[0].masks.data
    for _ in range(2):
        assert torch.equal(model.predict(images[0], bboxes=BOX, half=True, **SAID)[0].masks.data, expected)
    assert len([line for line in capture_log if "bf16=True" in line]) == 1


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ({"half": True, "bf16": True}, "one of the two"),
        ({"bf16": "yes"}, "bf16='yes'"),
        ({"compile": "fast"}, "max-autotune"),
        ({"threads": 0}, "1 or more"),
        ({"channels_last": 2}, "channels_last=2"),
    ],
)
def test_wrong_switches_are_refused(model, images, said, hint):
    with pytest.raises(ValueError, match=hint):
        model.predict(images[0], bboxes=BOX, **said, **SAID)


def test_an_image_in_hand_is_encoded_anew_in_another_form(nano_file, images):
    predictor = SAM2Predictor(overrides={"model": str(nano_file), "save": False, **SAID})
    predictor.set_image(images[0])
    encoded = []
    predictor.fp32_model.image_encoder.register_forward_pre_hook(lambda *_: encoded.append(1))
    predictor(bboxes=BOX)
    assert not encoded
    predictor.set_prompts({"bboxes": BOX, "bf16": True})
    (result,) = predictor()
    assert predictor.torch_dtype == torch.bfloat16 and result.masks.data.any()
    assert encoded == [1]  # by the copy, which has the hook too


def test_an_embedding_serves_every_form(model, images):
    expected = model.predict(images[0], bboxes=BOTH, **SAID)[0].masks.data
    assert expected.any() and not expected.all() and not torch.equal(expected[0], expected[1])
    for one, other in ((True, False), (False, True), (False, False)):
        embedding = model.embed(images[0], bf16=one, imgsz=128)
        masks = model.predict(bboxes=BOTH, embedding=embedding, bf16=other, **SAID)[0].masks.data
        assert paired_mask_iou(masks, expected).min() > (0.8 if one or other else 0.999)


@pytest.mark.parametrize("form", [{"bf16": True}, {"channels_last": True}, {}], ids=str)
def test_weights_that_are_loaded_later_are_those_that_compute(nano_file, images, form):
    model, other = SAM(nano_file), randomise(build({"variant": "samplug-nano"}), seed=5)
    before = model.predict(images[0], bboxes=BOTH, **form, **SAID)[0].masks.data
    fresh = SAM(nano_file)
    fresh.model.load_state_dict(other.state_dict())
    expected = fresh.predict(images[0], bboxes=BOTH, **form, **SAID)[0].masks.data
    own = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    for weights, masks in ((other.state_dict(), expected), (own, before)):
        model.model.load_state_dict(weights)
        assert torch.equal(model.predict(images[0], bboxes=BOTH, **form, **SAID)[0].masks.data, masks)
    assert not torch.equal(expected, before)


@torch.no_grad()
def test_a_copy_is_made_once_and_follows_each_change_of_the_weights(network):
    plain, options = deepcopy(network), ComputeOptions(torch.bfloat16)
    copy = convert(plain, options)
    assert convert(plain, options) is copy
    weight = next(plain.image_encoder.parameters())
    for change in (lambda: weight.mul_(2), lambda: weight.add_(1), lambda: setattr(weight, "data", weight.data * 3)):
        change()
        assert convert(plain, options) is copy
        assert torch.equal(next(copy.image_encoder.parameters()), weight.bfloat16())


# Layout and threads


@torch.inference_mode()
def test_channels_last_computes_the_same(network):
    other, images = convert(network, ComputeOptions(channels_last=True)), torch.randn(1, 3, 64, 64)
    right, answer = network.encode(images), other.encode(ComputeOptions(channels_last=True).prepare_images(images))
    assert distance(answer.image, right.image) < 1e-5
    convolution = next(m for m in other.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size[0] > 1)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_threads_are_set_while_it_computes_and_given_back(model, images):
    seen, before = [], torch.get_num_threads()
    hook = model.model.image_encoder.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    for result in model.predict(images[0], bboxes=BOX, threads=before + 1, stream=True, **SAID):
        assert result and torch.get_num_threads() == before
    hook.remove()
    assert seen == [before + 1]


# torch.compile


def test_prompts_come_in_bundles_of_set_sizes():
    assert batch_slices(3, (1, 8, 64)) == [slice(0, 3)]
    assert batch_slices(130, (1, 8, 64)) == [slice(0, 64), slice(64, 128), slice(128, 130)]
    rows = torch.arange(3.0)[:, None]
    assert pad_rows(rows, 5)[:, 0].tolist() == [0, 1, 2, 2, 2]
    assert len(pad_rows(rows[:1], 5)) == 1 and len(pad_rows(rows[:1], 5, always=True)) == 5


@pytest.mark.parametrize("count", [1, 2, 8, 9, 65, 70])
@torch.inference_mode()
def test_bundles_give_the_answers_of_all_at_once(network, count):
    sizes = []

    def decode(*given, **named):
        sizes.append(len(given[2]))
        return plain(*given, **named)

    other = deepcopy(network)
    plain = other.sam_mask_decoder.forward
    other.sam_mask_decoder.forward = Decoder(decode)
    features, prompts = network.encode(torch.randn(1, 3, 64, 64)), prompted(count)
    for multimask in (True, False):
        answer, right = (one.answer(features, prompts, multimask) for one in (other, network))
        for name in ("logits", "iou", "tokens", "presence"):
            assert distance(getattr(answer, name), getattr(right, name)) < 1e-4, name
    assert set(sizes) == {1: {1}, 65: {64, 1}, 70: {64, 8}}.get(count, {8} if count <= 8 else {64})


@torch.inference_mode()
def test_bundles_know_whose_image_a_prompt_is_about(network):
    other = deepcopy(network)
    other.sam_mask_decoder.forward = Decoder(other.sam_mask_decoder.forward)
    features, prompts = network.encode(torch.randn(3, 3, 64, 64)), prompted(10)
    masks = torch.randn(10, 1, 16, 16)
    image_index = torch.tensor([2, 0, 1, 1, 2, 0, 0, 1, 2, 2])
    for given in (prompts, PromptBatch(prompts.image_index, prompts.points, prompts.labels, masks=masks)):
        given = PromptBatch(image_index, given.points, given.labels, masks=given.masks)
        answer, right = (one.answer(features, given) for one in (other, network))
        assert distance(answer.logits, right.logits) < 1e-4


def test_a_network_that_answers_otherwise_is_not_used(network):
    other = deepcopy(network)
    assert find_mismatch(network, other, (64, 64), tracks=True) == ""
    torch.nn.init.normal_(other.memory_encoder.out_proj.weight)
    assert find_mismatch(network, other, (64, 64), tracks=False) == ""
    assert "answers differently" in find_mismatch(network, other, (64, 64), tracks=True)


def test_without_a_toolchain_it_goes_on_without(nano_file, images, capture_log, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda work, **_: broken)
    plain = SAM(nano_file).predict(images[0], bboxes=BOX, **SAID)[0]
    result = SAM(nano_file).predict(images[0], bboxes=BOX, compile=True, **SAID)[0]
    assert torch.equal(result.masks.data, plain.masks.data)
    assert [line for line in capture_log if "no C++ compiler. Going on without" in line]


class Counting:
    """A backend of torch.compile that compiles nothing and counts how often it is asked to."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, _):
        self.count += 1
        return graph.forward


@pytest.fixture
def counted(monkeypatch):
    """How often something was compiled, and no kernel was built."""
    backend, plain = Counting(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda work, mode=None: plain(work, backend=backend))
    torch._dynamo.reset()
    return backend


@pytest.mark.slow
@torch.inference_mode()
def test_nothing_is_compiled_anew_from_one_to_ten_points(network, counted):
    other, reason = compiled(deepcopy(network), "default", (64, 64))
    assert not reason and other is not network
    assert counted.count == 3  # the encoder; the decoder for one prompt and for eight
    features, answers = other.encode(torch.randn(1, 3, 64, 64)), {}
    for points in range(1, 11):
        for count in (1, 3, 8):
            answers[count, points] = other.answer(features, prompted(count, points), True)
    assert counted.count <= 5  # each decoder once more: with many tokens, other products are less work
    for (count, points), answer in answers.items():
        assert distance(answer.logits, network.answer(features, prompted(count, points), True).logits) < 1e-4
    compiled_so_far = counted.count
    for side in (96, 128, 160):
        other.encode(torch.randn(1, 3, side, side))
    assert counted.count == compiled_so_far + 3  # each size by itself: one graph for all takes an hour to make


@pytest.mark.slow
@torch.inference_mode()
def test_nothing_is_compiled_anew_from_two_to_eight_objects_and_with_growing_memory(network, counted):
    other = with_compiled_parts(network, "default")
    seen = other.encode_image(torch.randn(1, 3, 64, 64))

    def look(objects, memories, pointers):
        past = MemoryContext(
            memories=torch.randn(objects, memories, 16, 32),
            slots=torch.arange(memories).expand(objects, -1),
            pointers=torch.randn(objects, pointers, 128),
            times=torch.linspace(0, 1, pointers).expand(objects, -1),
        )
        image_index, logits = torch.zeros(objects, dtype=torch.int64), torch.randn(objects, 16, 16)
        answer, right = (one.condition_on_memory(seen, past, image_index) for one in (other, network))
        memory, true = (
            one.encode_memory(seen, logits, torch.ones(objects), image_index, False) for one in (other, network)
        )
        assert distance(answer.image, right.image) < 1e-4 and distance(memory, true) < 1e-4

    for objects in (1, 2):
        for memories in (1, 2):
            look(objects, memories, memories)
    compiled_so_far = counted.count
    assert compiled_so_far <= 8
    for objects in range(1, 9):
        look(objects, 4, 7)
    for memories in range(2, 8):
        look(2, memories, 2 * memories)
    assert counted.count == compiled_so_far


@pytest.mark.slow
def test_compiled_for_real_it_answers_the_same(nano_file, images):
    model = SAM(nano_file)
    plain = model.predict(images[0], bboxes=BOTH, logits=True, **SAID)[0]
    result = model.predict(images[0], bboxes=BOTH, compile=True, logits=True, **SAID)[0]
    assert model.predictor.model is not model.model
    assert distance(result.logits, plain.logits) < 1e-3
