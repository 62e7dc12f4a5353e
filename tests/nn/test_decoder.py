"""Prompt encoder, two-way transformer and mask decoders."""

import copy

import pytest
import torch
from support.networks import close, noisy, twins
from support.peers import peer_package
from ultralytics.models.sam.modules import blocks, decoders, encoders, transformer

from samplug.nn import Answer, MaskDecoder, PromptEncoder, SAM2MaskDecoder, SAM2TwoWayTransformer, TwoWayTransformer
from samplug.nn.decoder import mask_decoder
from samplug.nn.decoder.two_way import PixelTokens, ProjectedPixels
from samplug.nn.ops import chunks

WIDTH, GRID = 32, (5, 7)  # with two heads, few tokens are folded and many are projected, as at full size
EVERYTHING = {
    "use_high_res_features": True,
    "iou_prediction_use_sigmoid": True,
    "dynamic_multimask_via_stability": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "use_multimask_token_for_obj_ptr": True,
}


def sam():
    return MaskDecoder(WIDTH, TwoWayTransformer(2, WIDTH, 2, 64), iou_head_hidden_dim=16)


def sam2(**options):
    return SAM2MaskDecoder(WIDTH, SAM2TwoWayTransformer(2, WIDTH, 2, 64), **options)


def both_sam():
    return twins(
        sam(), decoders.MaskDecoder(WIDTH, transformer.TwoWayTransformer(2, WIDTH, 2, 64), 3, iou_head_hidden_dim=16)
    )


def both_sam2(**options):
    return twins(
        sam2(**options), decoders.SAM2MaskDecoder(WIDTH, blocks.SAM2TwoWayTransformer(2, WIDTH, 2, 64), **options)
    )


def inputs(images, prompts, points=2, masks=False):
    """Image embeddings, positions, tokens and dense prompts."""
    dense = torch.randn(prompts, WIDTH, *GRID) if masks else torch.randn(1, WIDTH, 1, 1).expand(prompts, -1, *GRID)
    return torch.randn(images, WIDTH, *GRID), torch.randn(1, WIDTH, *GRID), torch.randn(prompts, points, WIDTH), dense


def finer(images):
    height, width = GRID
    return [
        torch.randn(images, WIDTH // 8, 4 * height, 4 * width),
        torch.randn(images, WIDTH // 4, 2 * height, 2 * width),
    ]


torch.manual_seed(0)
POINTS = (torch.rand(3, 4, 2) * 100, torch.tensor([[1, 0, -1, 1], [2, 3, 1, 0], [-1, -1, 1, 1]]))
BOXES = torch.rand(3, 4) * 100
MASKS = torch.randn(3, 1, 4 * 5, 4 * 7)


@pytest.mark.parametrize(
    "prompts",
    [
        (POINTS, None, None),
        (None, BOXES, None),
        (None, BOXES.view(3, 2, 2), None),
        (POINTS, BOXES, None),
        (POINTS, BOXES, MASKS),
        (None, None, MASKS),
        (None, None, torch.randn(3, 1, 33, 50)),
        (None, None, None),
    ],
)
def test_prompts_are_embedded_as_ultralytics_embeds_them(prompts):
    sizes = (WIDTH, GRID, (16 * 5, 16 * 7), 8)
    ours, theirs = twins(PromptEncoder(*sizes), encoders.PromptEncoder(*sizes))
    for mine, peer in zip(ours(*prompts), theirs(*copy.deepcopy(prompts)), strict=True):
        torch.testing.assert_close(mine, peer, rtol=0, atol=1e-5)
    close(ours.get_dense_pe(), theirs.get_dense_pe())


def test_a_grid_that_is_given_equals_a_size_that_is_set():
    ours = noisy(PromptEncoder(WIDTH, (8, 8), (128, 128), 8))
    given = *ours(POINTS, BOXES, MASKS, grid=GRID), ours.get_dense_pe(GRID)
    ours.set_imgsz((80, 112))
    assert ours.mask_input_size == (20, 28)
    for now, before in zip((*ours(POINTS, BOXES, MASKS), ours.get_dense_pe()), given, strict=True):
        assert torch.equal(now, before)


def test_the_prompts_are_left_as_they_were():
    before = copy.deepcopy((POINTS, BOXES, MASKS))
    noisy(PromptEncoder(WIDTH, GRID, (80, 112), 8))(POINTS, BOXES, MASKS)
    for now, then in zip((*POINTS, BOXES, MASKS), (*before[0], *before[1:]), strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(("prompts", "points"), [(1, 0), (1, 1), (2, 2), (5, 1), (1, 12), (3, 25)])
def test_sams_decoder_agrees_with_ultralytics(prompts, points, masks, multimask):
    ours, theirs = both_sam()
    image, positions, tokens, dense = inputs(1, prompts, points, masks)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            answer = ours(image, positions, tokens, dense, multimask_output=multimask)
            logits, iou = theirs(image, positions, tokens, dense, multimask)
        close(answer.logits, logits)
        close(answer.iou, iou)
    assert answer.presence is None
    assert answer.tokens.shape == (prompts, 3 if multimask else 1, WIDTH)


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("left_out", [None, *EVERYTHING])
def test_sam2s_decoder_agrees_with_ultralytics_with_any_option_off(left_out, multimask):
    options = EVERYTHING | ({left_out: False} if left_out else {})
    ours, theirs = both_sam2(**options)
    fine = finer(1) if options["use_high_res_features"] else None
    arguments = *inputs(1, 4), multimask, True, fine
    answer = ours(*arguments)
    logits, iou, tokens, presence = theirs(*arguments)
    close(answer.logits, logits)
    close(answer.iou, iou)
    close(answer.tokens, tokens)
    close(answer.presence, presence)


def test_every_option_is_off_by_default():
    ours, theirs = both_sam2()
    answer, (logits, _, tokens, presence) = ours(*inputs(1, 2)), theirs(*inputs(1, 2), False, True)
    assert torch.equal(answer.presence, presence)
    assert (presence == 10).all()
    assert answer.logits.shape == logits.shape
    assert answer.tokens.shape == tokens.shape


def test_a_shaky_mask_gives_way_to_the_best_of_the_several_but_not_in_training():
    ours, arguments = noisy(sam2()), inputs(1, 40)
    with torch.no_grad():
        plain, several = ours(*arguments), ours(*arguments, True)
        inner, outer = ((plain.logits > level).sum((1, 2, 3)) for level in (0.05, -0.05))
        stability = inner / outer
        ours.dynamic_multimask_via_stability = True
        ours.dynamic_multimask_stability_thresh = stability.median().item()  # so that half of them are shaky
        single = ours(*arguments)
        training = ours.train()(*arguments)
    shaky = stability < stability.median()
    assert 10 < shaky.sum() < 30
    rows, best = torch.arange(40), several.iou.argmax(1)
    chosen = torch.where(shaky[:, None, None], several.logits[rows, best], plain.logits[:, 0])
    close(single.logits[:, 0], chosen)
    close(single.iou[:, 0], torch.where(shaky, several.iou[rows, best], plain.iou[:, 0]))
    assert torch.equal(single.tokens, plain.tokens)
    close(training.logits, plain.logits)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("at_once", [1, 3 * WIDTH * 35, 2**20])
def test_prompts_with_owners_are_answered_as_if_each_image_were_alone(monkeypatch, masks, grad, at_once):
    monkeypatch.setitem(chunks.NUMBERS_PER_CHUNK, "cpu", at_once)
    ours, fine = noisy(sam2(**EVERYTHING)), finer(3)
    image, positions, tokens, dense = inputs(3, 7, masks=masks)
    image_index = torch.tensor([0, 2, 1, 1, 2, 2, 0])
    with torch.set_grad_enabled(grad):
        answer = ours(image, positions, tokens, dense, True, high_res_features=fine, image_index=image_index)
        apart = []
        for row, index in enumerate(image_index.tolist()):
            one, alone = slice(row, row + 1), slice(index, index + 1)
            levels = [level[alone] for level in fine]
            apart.append(ours(image[alone], positions, tokens[one], dense[one], True, high_res_features=levels))
    expected = Answer.cat(apart)
    for field in ("logits", "iou", "tokens", "presence"):
        close(getattr(answer, field), getattr(expected, field))


@pytest.mark.parametrize("at_once", [1, 2**20])
@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("make", [sam, lambda: sam2(**EVERYTHING)], ids=["sam", "sam2"])
def test_only_prompts_that_are_worth_it_are_answered_and_drawn(monkeypatch, make, multimask, owned, at_once):
    monkeypatch.setitem(chunks.NUMBERS_PER_CHUNK, "cpu", at_once)
    ours = noisy(make())
    image, positions, tokens, dense = inputs(3 if owned else 1, 7)
    options = {"high_res_features": finer(len(image))} if isinstance(ours, SAM2MaskDecoder) else {}
    if owned:
        options["image_index"] = torch.tensor([0, 2, 1, 1, 2, 2, 0])
    drawn, seen, upscale = [], [], mask_decoder.upscale
    monkeypatch.setattr(mask_decoder, "upscale", lambda _, x, fine: drawn.append(len(x)) or upscale(_, x, fine))

    def keep_prompt(overlaps):
        seen.append(overlaps)
        return overlaps.mean(1) > middle

    with torch.no_grad():
        everything = ours(image, positions, tokens, dense, multimask, **options)
        middle = -float("inf")
        ours(image, positions, tokens, dense, multimask, **options, keep_prompt=keep_prompt)
        best = torch.cat(seen).mean(1)
        middle = float(best.median())
        drawn.clear()
        few = ours(image, positions, tokens, dense, multimask, **options, keep_prompt=keep_prompt)
    chosen = (best > middle).nonzero()[:, 0]
    assert len(chosen) == 3 and sum(drawn) == 3
    for field in ("logits", "iou", "tokens", *(("presence",) if everything.presence is not None else ())):
        close(getattr(few, field), getattr(everything, field)[chosen])


def test_a_graph_and_gradients_answer_every_prompt():
    ours, (image, positions, tokens, dense) = noisy(sam()), inputs(1, 4)
    none = ours(image, positions, tokens, dense, True, keep_prompt=lambda overlaps: overlaps[:, 0] > torch.inf)
    assert len(none) == 4
    with torch.no_grad():
        none = ours(image, positions, tokens, dense, True, keep_prompt=lambda overlaps: overlaps[:, 0] > torch.inf)
    assert none.logits.shape == (0, 3, 20, 28) and none.iou.shape == (0, 3)


def test_shared_work_is_repeated_work():
    ours = noisy(sam2(**EVERYTHING))
    image, positions, tokens, dense = inputs(1, 6)
    fine = finer(1)
    shared = ours(image, positions, tokens, dense, True, True, fine)
    copies = [level.expand(6, -1, -1, -1).contiguous() for level in (image, *fine)]
    repeated = ours(copies[0], positions, tokens, dense.contiguous(), True, False, copies[1:])
    close(shared.logits, repeated.logits)
    close(shared.iou, repeated.iou)


def test_pixels_are_projected_once_or_not_at_all_whichever_is_less_work():
    network = noisy(TwoWayTransformer(2, WIDTH, 2, 64))
    image, positions, tokens, _ = inputs(1, 9)
    assert isinstance(network.pixel_tokens(image, positions, tokens), ProjectedPixels)
    assert type(network.pixel_tokens(image, positions, tokens[:1])) is PixelTokens
    theirs = transformer.TwoWayTransformer(2, WIDTH, 2, 64)
    theirs.load_state_dict(network.state_dict())
    expected = theirs(image.expand(9, -1, -1, -1), positions.expand(9, -1, -1, -1), tokens)
    for mine, peer in zip(network(image, positions, tokens), expected, strict=True):
        close(mine, peer)


def test_gradients_reach_every_parameter_and_agree():
    ours, theirs = both_sam()
    arguments = inputs(1, 3, masks=True)
    ours(*arguments, True).logits.square().mean().backward()
    theirs(*arguments, True)[0].square().mean().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        peer, mine = expected[name].grad, parameter.grad
        if name.endswith("k_proj.bias") or peer is None or not peer.any():
            continue  # softmax does not see a bias of the keys: its gradient is rounding, or none
        assert (mine - peer).abs().max() <= 1e-4 * peer.abs().max(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close(dtype):
    ours = noisy(sam2(**EVERYTHING))
    arguments = inputs(1, 3)
    fine = finer(1)
    expected = ours(*arguments, True, True, fine).logits
    narrow = ours.to(dtype)(*(x.to(dtype) for x in arguments), True, True, [level.to(dtype) for level in fine]).logits
    assert narrow.dtype == dtype
    close(narrow.float(), expected, rel=0.1)


@pytest.mark.slow
def test_the_decoder_can_be_exported():
    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = noisy(sam())

        def forward(self, *arguments):
            return self.decoder(*arguments).logits

    network, arguments = Logits(), inputs(1, 3)
    close(torch.export.export(network, arguments).module()(*arguments), network(*arguments))


def test_prompts_for_several_images_need_owners():
    ours = noisy(sam())
    assert len(ours(*inputs(3, 3))) == 3
    with pytest.raises(ValueError, match="4 prompts for 3 images: give image_index"):
        ours(*inputs(3, 4))
    with pytest.raises(ValueError, match="repeat_image is for one image"):
        noisy(sam2())(*inputs(3, 3), repeat_image=True)


def test_finer_maps_are_neither_forgotten_nor_ignored():
    with pytest.raises(ValueError, match="expects the two finer maps"):
        noisy(sam2(use_high_res_features=True))(*inputs(1, 1))
    with pytest.raises(ValueError, match="does not take high_res_features"):
        noisy(sam2())(*inputs(1, 1), high_res_features=finer(1))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="5 heads do not divide the attention's width 32"):
        TwoWayTransformer(1, WIDTH, 5, 64)


def full_size(prompts):
    torch.manual_seed(1)
    dense = torch.randn(1, 256, 1, 1).expand(prompts, -1, 64, 64)
    return torch.randn(1, 256, 64, 64), torch.randn(1, 256, 64, 64), torch.randn(prompts, 3, 256), dense


def trained_like(module):
    for tensor in module.state_dict().values():
        tensor.copy_(torch.randn_like(tensor) * 0.06)
    return module.eval()


@pytest.mark.slow
@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("prompts", [1, 3])
def test_the_full_size_decoder_agrees_with_metas_sam(prompts, multimask):
    modeling = peer_package("segment_anything.modeling")
    ours = trained_like(MaskDecoder(256, TwoWayTransformer(2, 256, 8, 2048)))
    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
    theirs = modeling.MaskDecoder(transformer_dim=256, transformer=transformer).eval()
    theirs.load_state_dict(ours.state_dict())
    arguments = full_size(prompts)
    with torch.inference_mode():
        answer, (logits, iou) = ours(*arguments, multimask), theirs(*arguments, multimask)
    close(answer.logits, logits, rel=1e-4)
    close(answer.iou, iou, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("prompts", [1, 3])
def test_the_full_size_decoder_agrees_with_metas_sam_2(prompts, multimask):
    official = peer_package("sam2.modeling.sam.mask_decoder").MaskDecoder
    peer_transformer = peer_package("sam2.modeling.sam.transformer").TwoWayTransformer(2, 256, 8, 2048)
    ours = trained_like(SAM2MaskDecoder(256, SAM2TwoWayTransformer(2, 256, 8, 2048), **EVERYTHING))
    theirs = official(transformer_dim=256, transformer=peer_transformer, **EVERYTHING).eval()
    theirs.load_state_dict(ours.state_dict())
    fine = [torch.randn(1, 32, 256, 256), torch.randn(1, 64, 128, 128)]
    arguments = *full_size(prompts), multimask, True, fine
    with torch.inference_mode():
        answer, (logits, iou, tokens, presence) = ours(*arguments), theirs(*arguments)
    close(answer.logits, logits, rel=1e-4)
    close(answer.iou, iou, rel=1e-4)
    close(answer.tokens, tokens, rel=1e-4)
    close(answer.presence, presence, rel=1e-4)
