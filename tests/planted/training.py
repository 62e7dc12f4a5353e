"""Mistakes to plant in the loop of training: in what is resumed, in what is kept."""

from planted.defect import Defect

RUN, RESUME, ON_SCENES = "fit/test_run.py", "fit/test_resume.py", "fit/test_scenes.py"

TRAINING = (
    Defect(
        "a resumed run rehearses what it has learned",
        "fit/learner.py",
        "in state.start.items()}",
        "in state.mean.items()}",
        f"{RESUME}::test_an_interrupted_run_ends_with_the_same_bytes",
    ),
    Defect(
        "a resumed run forgets the optimizer",
        "learner.py",
        "self.optimizer.load_state_dict(state.optimizer)",
        "pass",
        RESUME,
    ),
    Defect(
        "a resumed run begins its mean anew", "learner.py", "in state.mean.items()}", "in self.mean.items()}", RESUME
    ),
    Defect("prompts follow from nothing", "learner.py", "[*seed, PLAN]", "", RESUME),
    Defect(
        "a run goes on with other data", "fit/trainer.py", "not self.state.is_bound_to(self.identity)", "False", RESUME
    ),
    Defect("a step that is no number is taken", "learner.py", "not torch.isfinite(norm) or", "False and", RUN),
    Defect(
        "the last epoch is the best",
        "fit/trainer.py",
        "evaluation.fitness > progress.best_fitness",
        "True",
        RUN,
    ),
    Defect(
        "the probe is shipped",
        "fit/trainer.py",
        "for name in self.untouched.state_dict()}",
        "for name in state}",
        ON_SCENES,
    ),
    Defect(
        "nothing more is trained where nothing is known",
        "losses/options.py",
        "{} if settings.pretrained else FROM_NOTHING",
        "{}",
        ON_SCENES,
    ),
    Defect(
        "drawn batches follow from nothing",
        "drawn_batches.py",
        "default_rng([settings.seed, step])",
        "default_rng()",
        "data/test_drawn_batches.py",
    ),
    Defect(
        "what begins at random follows from nothing",
        "fit/setup.py",
        "torch.manual_seed(settings.seed)",
        "torch.seed()",
        RESUME,
    ),
)
