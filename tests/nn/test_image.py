"""The image encoders of SAM and MobileSAM, the shared layers, and what travels between networks."""

import copy
from functools import partial

import pytest
import torch
from support.networks import close, noisy, twins
from support.peers import peer_package
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.models.sam import build as peer_build
from ultralytics.models.sam.modules import blocks, encoders, tiny_encoder, utils

from samplug.nn import (
    Answer,
    Features,
    ImageEncoderViT,
    MaskDecoder,
    PromptBatch,
    PromptEncoder,
    SAMModel,
    TinyViT,
    TwoWayTransformer,
)
from samplug.nn.ops import attention, layers, positions, windows

NORM = partial(nn.LayerNorm, eps=1e-6)
VIT = {
    "img_size": 128,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 2,
    "out_chans": 16,
    "norm_layer": NORM,
    "use_rel_pos": True,
    "window_size": 3,
    "global_attn_indexes": (1,),
}
TINY = {"num_classes": 5, "embed_dims": (8, 16, 32, 320), "depths": (2, 1, 2, 1), "num_heads": (1, 2, 4, 10)}
SIZES = [(128, 128), (96, 176), (208, 128)]


def small_sam(encoder):
    decoder = MaskDecoder(16, TwoWayTransformer(2, 16, 2, 32), iou_head_hidden_dim=16)
    return noisy(SAMModel(encoder, PromptEncoder(16, (8, 8), (128, 128), 8), decoder))


ENCODERS = {"vit": lambda: ImageEncoderViT(**VIT), "tiny": lambda: TinyViT(128, out_chans=16, **TINY)}


@pytest.mark.parametrize("size", SIZES)
def test_the_vit_agrees_with_ultralytics_at_any_size(size):
    ours, theirs = twins(ImageEncoderViT(**VIT), encoders.ImageEncoderViT(**VIT))
    x = torch.randn(2, 3, *size)
    close(ours(x), theirs(x))
    with torch.no_grad():
        close(ours(x), theirs(x))


@pytest.mark.parametrize("options", [{"use_rel_pos": False}, {"use_abs_pos": False}, {"window_size": 0}])
def test_the_vit_agrees_without_a_part(options):
    ours, theirs = (kind(**VIT | options) for kind in (ImageEncoderViT, encoders.ImageEncoderViT))
    ours, theirs = twins(ours, theirs)
    x = torch.randn(1, 3, 128, 128)
    close(ours(x), theirs(x))


@pytest.mark.parametrize("at_once", [1, 100, 3000, 20000])
def test_attention_in_pieces_is_attention_as_a_whole(monkeypatch, at_once):
    encoder, x = noisy(ImageEncoderViT(**VIT)), torch.randn(2, 3, 96, 128)
    whole = encoder(x)
    monkeypatch.setattr(attention, "BIASES_PER_BLOCK", at_once)
    with torch.no_grad():
        close(encoder(x), whole)


def test_relative_positions_start_at_zero_unless_told_otherwise():
    assert not ImageEncoderViT(**VIT).blocks[0].attn.rel_pos_h.any()
    assert ImageEncoderViT(**VIT, rel_pos_zero_init=False).blocks[0].attn.rel_pos_h.all()


@pytest.mark.parametrize("size", [*SIZES, (112, 112)])
def test_tiny_vit_agrees_with_ultralytics_at_any_size(size):
    ours, theirs = twins(TinyViT(128, **TINY), tiny_encoder.TinyViT(128, **TINY))
    theirs.set_imgsz(size)
    x = torch.randn(2, 3, *size)
    close(ours(x), theirs(x))


@pytest.mark.parametrize("at_once", [1, 700, 5000])
@pytest.mark.parametrize("kind", ENCODERS)
def test_maps_in_strips_are_maps_as_a_whole(monkeypatch, kind, at_once):
    encoder, x = noisy(ENCODERS[kind]()), torch.randn(2, 3, 96, 128)
    whole = encoder(x)
    monkeypatch.setattr(windows, "NUMBERS_PER_STRIP", at_once)
    with torch.no_grad():
        close(encoder(x), whole)


def test_norms_learn_from_whole_maps_without_gradients_too(monkeypatch):
    whole, stripped = (noisy(TinyViT(128, **TINY, drop_path_rate=0.0)).train() for _ in range(2))
    stripped.load_state_dict(whole.state_dict())
    x = torch.randn(2, 3, 64, 64)
    whole(x)
    monkeypatch.setattr(windows, "NUMBERS_PER_STRIP", 1)
    with torch.no_grad():
        stripped(x)
    for name, tensor in whole.state_dict().items():
        close(stripped.state_dict()[name], tensor)


def test_a_convolution_takes_its_batch_norm_in_only_outside_of_training():
    encoder, x = noisy(TinyViT(128, **TINY)), torch.randn(2, 3, 64, 64)
    before = encoder.layers[0].blocks[0].conv1.bn.running_mean.clone()
    encoder(x)
    assert torch.equal(encoder.layers[0].blocks[0].conv1.bn.running_mean, before)
    encoder.train()(x).sum().backward()
    assert not torch.equal(encoder.layers[0].blocks[0].conv1.bn.running_mean, before)
    assert encoder.layers[2].blocks[0].attn.attention_biases.grad.any()


ROWS = {
    "sam_b": (
        peer_build.build_sam_vit_b,
        {"embed_dim": 768, "depth": 12, "num_heads": 12, "global_attn_indexes": (2, 5, 8, 11)},
    ),
    "sam_l": (
        peer_build.build_sam_vit_l,
        {"embed_dim": 1024, "depth": 24, "num_heads": 16, "global_attn_indexes": (5, 11, 17, 23)},
    ),
    "sam_h": (
        peer_build.build_sam_vit_h,
        {"embed_dim": 1280, "depth": 32, "num_heads": 16, "global_attn_indexes": (7, 15, 23, 31)},
    ),
    "mobile_sam": (peer_build.build_mobile_sam, None),
}


@pytest.mark.parametrize("name", ROWS)
def test_parameters_are_named_and_shaped_as_in_the_checkpoints(name, monkeypatch):
    build, row = ROWS[name]
    if row is None:  # it asks for the values of a tensor while it is built
        theirs = build().state_dict()
    else:
        with torch.device("meta"):
            theirs = build().state_dict()
    with torch.device("meta"):
        plain = {"norm_layer": NORM, "use_rel_pos": True, "window_size": 14}
        encoder = TinyViT() if row is None else ImageEncoderViT(**plain, **row)
        prompts = PromptEncoder(256, (64, 64), (1024, 1024), 16)
        ours = SAMModel(encoder, prompts, MaskDecoder(256, TwoWayTransformer(2, 256, 8, 2048))).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_some_official_names_written_out():
    keys = SAMModel(
        ImageEncoderViT(**VIT),
        PromptEncoder(16, (8, 8), (128, 128), 8),
        MaskDecoder(16, TwoWayTransformer(2, 16, 2, 32)),
    ).state_dict()
    for key in (
        "image_encoder.pos_embed",
        "image_encoder.patch_embed.proj.bias",
        "image_encoder.blocks.2.attn.rel_pos_h",
        "image_encoder.blocks.0.mlp.lin2.weight",
        "image_encoder.neck.3.bias",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "prompt_encoder.point_embeddings.3.weight",
        "prompt_encoder.not_a_point_embed.weight",
        "prompt_encoder.mask_downscaling.6.bias",
        "mask_decoder.transformer.layers.1.cross_attn_image_to_token.out_proj.weight",
        "mask_decoder.transformer.layers.0.mlp.lin1.weight",
        "mask_decoder.transformer.norm_final_attn.weight",
        "mask_decoder.output_upscaling.3.weight",
        "mask_decoder.output_hypernetworks_mlps.3.layers.2.bias",
        "mask_decoder.iou_prediction_head.layers.0.weight",
    ):
        assert key in keys
    assert not any("pixel" in key for key in keys)


class Dtypes(TorchDispatchMode):
    """Note the dtype of every tensor that is made."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.seen |= {x.dtype for x in torch.utils._pytree.tree_leaves(made) if isinstance(x, torch.Tensor)}
        return made


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_image_and_its_prompts_need_no_double_precision_and_no_complex_numbers(kind):
    model = small_sam(ENCODERS[kind]())
    prompts = PromptBatch(torch.zeros(2).long(), torch.rand(2, 3, 2) * 96, torch.ones(2, 3).long())
    with Dtypes() as dtypes:
        model.answer(model.encode(torch.randn(1, 3, 96, 128)), prompts)
    assert dtypes.seen <= {torch.float32, torch.int64, torch.bool}


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_precision_mode_and_copies_may_change_in_any_order(kind, dtype):
    model, x = small_sam(ENCODERS[kind]()), torch.randn(1, 3, 96, 128)
    prompts = PromptBatch(torch.zeros(2).long(), boxes=torch.tensor([[5.0, 5, 60, 50], [40, 8, 90, 80]]))
    expected = model.answer(model.encode(x), prompts).logits
    narrow = copy.deepcopy(model).train().to(dtype).eval()
    for changed in (narrow, copy.deepcopy(narrow), copy.deepcopy(model.float()).to(dtype)):
        answer = changed.answer(changed.encode(x.to(dtype)), prompts)
        assert answer.logits.dtype == dtype
        close(answer.logits.float(), expected, rel=0.1)
    back = narrow.float()
    close(back.answer(back.encode(x), prompts).logits, expected, rel=0.1)


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_size_comes_from_the_image(kind):
    model, x = small_sam(ENCODERS[kind]()), torch.randn(2, 3, 96, 160)
    prompts = PromptBatch(torch.tensor([1, 0, 1]), torch.rand(3, 1, 2) * 96, torch.ones(3, 1).long())
    features = model.encode(x)
    assert features.grid == (6, 10)
    before = model.answer(features, prompts).logits
    assert before.shape == (3, 1, 24, 40)
    model.set_imgsz((96, 160))
    assert model.image_size == (96, 160)
    assert torch.equal(model.answer(model.encode(x), prompts).logits, before)


def test_a_side_that_is_no_multiple_of_the_stride_is_refused():
    with pytest.raises(ValueError, match="90 x 128 pixels: its sides must be multiples of 16"):
        small_sam(ImageEncoderViT(**VIT)).encode(torch.zeros(1, 3, 90, 128))


def test_the_model_is_not_called_as_a_whole():
    with pytest.raises(NotImplementedError, match=r"model\.encode"):
        small_sam(ImageEncoderViT(**VIT))(torch.zeros(1, 3, 128, 128))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_can_be_exported(kind):
    encoder, x = noisy(ENCODERS[kind]()), torch.randn(1, 3, 96, 128)
    close(torch.export.export(encoder, (x,)).module()(x), encoder(x))


def test_positions_and_windows_agree_with_ultralytics():
    sine = blocks.PositionEmbeddingSine(16)(torch.zeros(1, 1, 5, 9))
    torch.testing.assert_close(positions.sine_positions((5, 9), 16, torch.zeros(1)), sine, rtol=0, atol=2e-6)
    steps = torch.arange(5.0)
    torch.testing.assert_close(positions.sine_encoding(steps, 16), utils.get_1d_sine_pe(steps, 16))
    ours, theirs = twins(positions.PositionEmbeddingRandom(8), blocks.PositionEmbeddingRandom(8))
    close(ours((5, 9)), theirs((5, 9)))
    x = torch.randn(2, 10, 17, 3)
    assert torch.equal(windows.window_partition(x, 7), utils.window_partition(x, 7)[0])
    assert torch.equal(windows.window_unpartition(windows.window_partition(x, 7, torch.ones(3)), (10, 17)), x)


def test_dropped_paths_keep_the_mean():
    drop, x = layers.DropPath(0.25).train(), torch.ones(4000, 2)
    kept = drop(x)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert abs(kept.mean() - 1) < 0.05
    assert torch.equal(drop.eval()(x), x)


@pytest.mark.parametrize("index", [1, -1, slice(1, 3), torch.tensor([2, 0]), [0, 2]])
def test_a_slice_slices_every_field(index):
    wanted = slice(index, index + 1 or None) if isinstance(index, int) else index
    features = Features(torch.randn(3, 4, 2, 2), (torch.randn(3, 1, 8, 8), torch.randn(3, 2, 4, 4)))
    assert torch.equal(features[index].image, features.image[wanted])
    assert torch.equal(features[index].fine[1], features.fine[1][wanted])
    prompts = PromptBatch(torch.arange(3), torch.randn(3, 2, 2), torch.ones(3, 2), masks=torch.randn(3, 1, 8, 8))
    assert torch.equal(prompts[index].masks, prompts.masks[wanted])
    assert prompts[index].boxes is None
    answer = Answer(torch.randn(3, 2, 8, 8), torch.randn(3, 2), torch.randn(3, 2, 4), torch.randn(3, 1))
    assert torch.equal(answer[index].presence, answer.presence[wanted])
    assert len(answer[index]) == len(answer.iou[wanted])


def test_joined_parts_are_the_whole():
    features = Features(torch.randn(3, 4, 2, 2), (torch.randn(3, 1, 8, 8),))
    joined = Features.cat([features[0], features[1:]])
    assert torch.equal(joined.image, features.image)
    assert torch.equal(joined.fine[0], features.fine[0])
    answer = Answer(torch.randn(3, 2, 8, 8), torch.randn(3, 2), torch.randn(3, 2, 4))
    for joined in (Answer.cat([answer[:2], answer[2]]), Answer.collect(iter([answer[:2], answer[2]]), 3)):
        assert all(map(torch.equal, joined.tensors(), answer.tensors()))
        assert joined.presence is None
    assert Answer.collect(iter([answer]), 3) is answer


@pytest.mark.slow
@pytest.mark.parametrize("size", [(512, 512)])
def test_a_full_width_vit_agrees_with_metas(size):
    official = peer_package("segment_anything.modeling.image_encoder").ImageEncoderViT
    row = VIT | {"img_size": size[0], "depth": 2, "embed_dim": 768, "num_heads": 12, "window_size": 14}
    ours, theirs = ImageEncoderViT(**row), official(**row)
    for tensor in ours.state_dict().values():
        tensor.copy_(torch.randn_like(tensor) * 0.05)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, *size)
    with torch.inference_mode():
        close(ours.eval()(x), theirs.eval()(x))
