"""Mistakes of the data that training is fed with."""

from planted.defect import Defect

BATCHES, FEATURES, SETS = (f"data/test_{name}.py::test_{{}}" for name in ("user_batches", "feature_cache", "sets"))

TRAINING_DATA = (
    Defect(
        "pixels not as predictors feed them",
        "augment.py",
        "return self.zoom == 1 and self.shift == (0, 0)",
        "return False",
        BATCHES.format("the_pixels_of_a_batch_are_those_that_a_predictor_feeds"),
    ),
    Defect(
        "crowds as background",
        "data/coco.py",
        "stated=stated), categories, crowds)",
        "stated=stated), categories)",
        BATCHES.format("crowds_of_coco_are_ignored"),
    ),
    Defect(
        "features of SAM 2 with the vector of no memory",
        "feature_cache.py",
        "return model.encode_image(inputs) if isinstance(model, SAM2Model) else model.encode(inputs)",
        "return model.encode(inputs)",
        FEATURES.format("kept_features_give_the_answers_of_fresh_ones"),
    ),
    Defect(
        "features told apart by names of weights alone",
        "feature_cache.py",
        "            digest.update(tensor.detach().cpu()",
        "            (tensor.detach().cpu()",
        FEATURES.format("other_weights_sizes_and_images_are_never_taken_for_these"),
    ),
    Defect(
        "broken files left out without a word",
        "train/data/sets.py",
        "classes=classes, strict=True)",
        "classes=classes, strict=False)",
        SETS.format("what_ultralytics_would_leave_out_is_an_error_too"),
    ),
)
