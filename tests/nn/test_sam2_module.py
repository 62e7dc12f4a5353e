"""SAM 2 as a module: its names, options and sizes, what it learns, copies of it and its dtypes."""

import copy
import inspect
from functools import partial

import pytest
import torch
from support.networks import SIZE, drawn, followed, prompt, same, small, tokens_of
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.models.sam import build as their_build
from ultralytics.models.sam.modules import sam as theirs

from samplug.checkpoints.families import VARIANTS
from samplug.nn import SAM2Model

# Names


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("sam2")])
def test_every_parameter_has_the_checkpoints_name_and_shape(variant, monkeypatch):
    release, letter = variant.split("_")
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))  # it reads numbers while building
    with torch.device("meta"):
        ours = VARIANTS[variant].build().state_dict()
        other = getattr(their_build, f"build_sam2_{letter}")().state_dict()
    if release == "sam2.1":
        other |= {"no_obj_embed_spatial": torch.empty(1, 64), "obj_ptr_tpos_proj.weight": torch.empty(64, 256)}
        other |= {"obj_ptr_tpos_proj.bias": torch.empty(64)}
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: t.shape for key, t in other.items()}


def test_official_names_written_out_by_hand():
    with torch.device("meta"):
        state = VARIANTS["sam2.1_t"].build().state_dict()
    assert {
        "maskmem_tpos_enc": (7, 1, 1, 64),
        "no_mem_embed": (1, 1, 256),
        "no_mem_pos_enc": (1, 1, 256),
        "no_obj_ptr": (1, 256),
        "no_obj_embed_spatial": (1, 64),
        "image_encoder.trunk.pos_embed": (1, 96, 7, 7),
        "image_encoder.trunk.pos_embed_window": (1, 96, 8, 8),
        "image_encoder.trunk.patch_embed.proj.weight": (96, 3, 7, 7),
        "image_encoder.trunk.blocks.0.norm1.weight": (96,),
        "image_encoder.trunk.blocks.1.proj.weight": (192, 96),
        "image_encoder.trunk.blocks.11.attn.qkv.weight": (2304, 768),
        "image_encoder.trunk.blocks.11.mlp.layers.1.bias": (768,),
        "image_encoder.neck.convs.0.conv.weight": (256, 768, 1, 1),
        "image_encoder.neck.convs.3.conv.bias": (256,),
        "mask_downsample.weight": (1, 1, 4, 4),
        "memory_attention.layers.0.self_attn.q_proj.weight": (256, 256),
        "memory_attention.layers.3.cross_attn_image.k_proj.weight": (256, 64),
        "memory_attention.layers.3.cross_attn_image.v_proj.bias": (256,),
        "memory_attention.layers.2.linear1.weight": (2048, 256),
        "memory_attention.layers.2.norm3.bias": (256,),
        "memory_attention.norm.weight": (256,),
        "memory_encoder.mask_downsampler.encoder.0.weight": (4, 1, 3, 3),
        "memory_encoder.mask_downsampler.encoder.10.weight": (256,),
        "memory_encoder.mask_downsampler.encoder.12.weight": (256, 256, 1, 1),
        "memory_encoder.pix_feat_proj.weight": (256, 256, 1, 1),
        "memory_encoder.fuser.layers.1.dwconv.weight": (256, 1, 7, 7),
        "memory_encoder.fuser.layers.1.gamma": (256,),
        "memory_encoder.out_proj.weight": (64, 256, 1, 1),
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, 128),
        "sam_mask_decoder.conv_s0.weight": (32, 256, 1, 1),
        "sam_mask_decoder.pred_obj_score_head.layers.2.weight": (1, 256),
        "obj_ptr_proj.layers.2.weight": (256, 256),
        "obj_ptr_tpos_proj.weight": (64, 256),
    }.items() <= {key: tuple(tensor.shape) for key, tensor in state.items()}.items()


def test_the_public_signatures_have_the_others_names_and_defaults():
    for method in ("__init__", "track_step"):
        ours = inspect.signature(getattr(SAM2Model, method)).parameters
        other = inspect.signature(getattr(theirs.SAM2Model, method)).parameters
        more = {"add_all_frames_to_correct_as_cond"} if method == "__init__" else set()
        assert ours.keys() - other.keys() == more
        assert {name: ours[name].default for name in other} == {name: other[name].default for name in other}


# The model as a module


def test_the_size_is_a_default_that_tensors_overrule():
    model = drawn()
    assert model.image_size == (SIZE, SIZE) and model.sam_image_embedding_size == (8, 8) and model.stride == 32
    model.set_imgsz((64, 96))
    assert model.image_size == (64, 96) and model.sam_image_embedding_size == (4, 6)
    assert model.sam_prompt_encoder.image_embedding_size == (4, 6)
    prompts, images = prompt([30, 20]), torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        one = model.answer(model.encode(images), prompts).logits
        model.set_imgsz((96, 128))
        same(model.answer(model.encode(images), prompts).logits, one)


def test_the_model_tells_how_images_are_normalised_and_stores_nothing_of_it():
    model = drawn()
    assert model.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert model.pixel_std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert not {"pixel_mean", "pixel_std"} & model.state_dict().keys()
    assert model.mask_threshold == 0 and model.variant == "" and model.device.type == "cpu"
    assert (model.hidden_dim, model.sam_prompt_embed_dim, model.mem_dim) == (64, 64, 16)
    assert small(width=64, slim=64, layers=1).mem_dim == 64


def test_forward_refuses_and_says_what_to_call():
    with pytest.raises(NotImplementedError, match="encode and answer"):
        drawn()(torch.randn(1, 3, 64, 64))


def test_options_that_need_each_other_are_refused_alone():
    with pytest.raises(ValueError, match="add_tpos_enc_to_obj_ptrs"):
        drawn(add_tpos_enc_to_obj_ptrs=False)
    with pytest.raises(ValueError, match="pred_obj_scores"):
        drawn(pred_obj_scores=False)


def test_previous_logits_without_points_are_refused():
    model = drawn()
    with torch.no_grad():
        tokens = tokens_of(model, torch.randn(3, 64, 64))
        with pytest.raises(ValueError, match="point_inputs"):
            model.track_step(
                0, True, *tokens.values(), None, None, {}, 1, prev_sam_mask_logits=torch.zeros(2, 1, 16, 16)
            )


@torch.no_grad()
def test_the_memory_encoder_may_be_left_out():
    model = drawn()
    tokens = tokens_of(model, torch.randn(3, 64, 64))
    step = model.track_step(0, True, *tokens.values(), None, None, {}, 1, run_mem_encoder=False)
    assert step["maskmem_features"] is None and step["maskmem_pos_enc"] is None
    assert step["pred_masks"].shape == (2, 1, 16, 16) and step["pred_masks_high_res"].shape == (2, 1, 64, 64)


def test_corrections_that_become_prompted_frames_are_an_option_for_predictors():
    assert not drawn().add_all_frames_to_correct_as_cond
    assert drawn(add_all_frames_to_correct_as_cond=True).add_all_frames_to_correct_as_cond


def test_a_compiled_encoder_keeps_its_names():
    compiled = drawn(compile_image_encoder=True)
    assert compiled.state_dict().keys() == drawn().state_dict().keys()
    assert compiled.image_encoder.trunk._compiled_call_impl is not None


def test_every_parameter_that_a_clip_uses_learns_from_it():
    model = drawn().train()
    images = torch.randn(2, 1, 3, 64, 64)
    start, after = followed(model, images, prompt([20, 30]), torch.tensor([0]))
    mask = model.use_mask_as_output(model.encode_image(images[0]), torch.ones(1, 1, 64, 64), torch.tensor([0]))
    learnt = (start.logits, after.logits, after.presence, after.iou, mask.pointer, after.pointer)
    sum(x.square().mean() for x in learnt).backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    absent = {"no_mem_pos_enc", "no_obj_embed_spatial", "no_obj_ptr"}
    absent |= {f"sam_prompt_encoder.point_embeddings.{kind}.weight" for kind in (0, 2, 3)}
    masks_not_taken = "sam_mask_decoder.output_hypernetworks_mlps."
    assert {name for name in idle if not name.startswith(masks_not_taken)} == absent


@torch.no_grad()
def test_a_copy_answers_alike_and_goes_its_own_way():
    model, images = drawn(), torch.randn(2, 1, 3, 64, 64)
    twin = copy.deepcopy(model)
    given = (images, prompt([20, 30]), torch.tensor([0]))
    assert torch.equal(followed(model, *given)[1].logits, followed(twin, *given)[1].logits)
    twin.no_mem_embed += 1
    assert not torch.equal(followed(model, *given)[1].logits, followed(twin, *given)[1].logits)


class Dtypes(TorchDispatchMode):
    """The dtypes of all tensors that are computed."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        parts = result if isinstance(result, tuple | list) else [result]
        self.seen |= {part.dtype for part in parts if isinstance(part, torch.Tensor)}
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_nothing_is_computed_in_double_precision_or_complex_numbers(dtype):
    model, images, image_index = drawn(), torch.randn(2, 1, 3, 64, 96), torch.tensor([0, 0])
    expected = followed(model, images, prompt([20, 30], [70, 40]), image_index)
    with Dtypes() as dtypes:
        outputs = followed(model.to(dtype), images.to(dtype), prompt([20, 30], [70, 40]), image_index)
    assert not dtypes.seen & {torch.float64, torch.complex64, torch.complex128}
    assert outputs[0].memory.dtype == outputs[0].pointer.dtype == dtype
    assert outputs[0].logits.dtype == torch.float32
    tolerance = {torch.float32: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]
    same(outputs[0].logits, expected[0].logits, tolerance)
    same(outputs[0].memory.float(), expected[0].memory, tolerance)
