"""Mistakes to plant in the losses of training, in what learns and in low-rank adaptation."""

from planted.defect import Defect

STEP = "test_step.py::{}"
WHOLE = STEP.format("test_answers_one_after_the_other_have_the_gradients_of_one_backward_pass[SAM 2-3]")
LEARN = "test_learn.py::{}"
LORA = "test_lora.py::{}"
LOSSES = "losses/test_losses.py"
REHEARSAL = "test_rehearsal.py::test_{}"
PARALLEL = "test_parallel.py::test_{}"
ESTIMATE = "test_estimate.py::test_{}"

LEARNING = (
    Defect("the encoder gets no gradients", "backward.py", "requires_grad_(each.requires_grad)", "detach()", WHOLE),
    Defect(
        "an encoder that learns in part is run without gradients",
        "backward.py",
        "nullcontext() if encoder_learns(model) else torch.no_grad()",
        "torch.no_grad()",
        LORA.format("test_every_site_learns_from_the_first_step_and_its_base_does_not[SAM-all-False]"),
    ),
    Defect(
        "a loss divided by the objects of its chunk",
        "train/losses/losses.py",
        "(part * here).sum() / count",
        "(part * here).sum() / len(here)",
        WHOLE,
    ),
    Defect(
        "the worst of several masks is trained",
        "train/losses/losses.py",
        "(pixels + overlap).argmin",
        "(pixels + overlap).argmax",
        LOSSES,
    ),
    Defect(
        "what is unknown is trained", "train/losses/losses.py", "masks | ~ignore[image_index]", "masks | True", LOSSES
    ),
    Defect(
        "a mask given back keeps its graph",
        "train/losses/prompts.py",
        "logits if attached else logits.detach().float()",
        "logits if attached else logits.float()",
        STEP.format("test_masks_given_back_carry_gradients_only_if_asked"),
    ),
    Defect(
        "a frozen decoder is evaluated",
        "train/learn.py",
        ' and f"{name}." not in DECODER',
        "",
        LEARN.format("test_frozen_parts_drop_nothing_out_and_the_decoder_stays_in_training"),
    ),
    Defect(
        "batch norms learn statistics",
        "train/learn.py",
        "isinstance(part, TinyViT) or not learns",
        "not learns",
        LEARN.format("test_batch_norms_use_their_statistics_even_where_the_encoder_learns"),
    ),
    Defect(
        "what a cache holds learns with the decoder",
        "train/learn.py",
        'if inside.startswith("conv_s"):',
        "if False:",
        LEARN.format("test_each_choice_trains_its_parts"),
    ),
    Defect(
        "low rank is not added",
        "lora.py",
        "return weight + self.scale",
        "return weight + 0 * self.scale",
        LORA.format("test_every_site_learns_from_the_first_step_and_its_base_does_not[SAM-all-False]"),
    ),
    Defect(
        "low rank of another base",
        "lora.py",
        'header.get("base") != own',
        "False",
        LORA.format("test_a_file_for_another_network_is_refused"),
    ),
    Defect(
        "the network in training is its own teacher",
        "losses/rehearsal.py",
        "with torch.no_grad(), untouched():",
        "with torch.no_grad():",
        REHEARSAL.format("as_long_as_a_network_answers_as_before_there_is_nothing_to_learn"),
    ),
    Defect(
        "what is measured is rehearsed",
        "data/rehearsal.py",
        "if any(file.path.resolve() in known",
        "if any(False and file.path.resolve() in known",
        REHEARSAL.format("of_a_data_set_what_is_learned_from_is_rehearsed_and_never_what_is_measured"),
    ),
    Defect(
        "a process divides by its own objects",
        "learner.py",
        "(count,) = self.ranks.sums([sum(len(batch.image_index) for batch in batches)])",
        "count = sum(len(batch.image_index) for batch in batches)",
        PARALLEL.format("gradients_of_the_parts_are_those_of_the_whole"),
    ),
    Defect(
        "prompts depend on the process that draws them",
        "losses/draws.py",
        "first + stride * image",
        "image",
        PARALLEL.format("parts_of_a_batch_are_its_images_with_their_objects_and_prompts"),
    ),
    Defect(
        "every process learns from the same images",
        "user_batches.py",
        "range(self.ranks.rank, len(chosen), self.ranks.count)",
        "range(0, len(chosen), self.ranks.count)",
        PARALLEL.format("parts_of_a_batch_are_its_images_with_their_objects_and_prompts"),
    ),
    Defect(
        "memory is counted without the encoder",
        "fit/estimate.py",
        "self.images * self.of_image +",
        "self.of_image +",
        ESTIMATE.format("predicted_memory_is_that_of_a_step"),
    ),
    Defect(
        "layer decay is not what was given",
        "train/learn.py",
        '"layer_decay": settings.layer_decay',
        '"layer_decay": None',
        LEARN.format("test_rates_of_the_encoder_are_those_that_are_given"),
    ),
)
