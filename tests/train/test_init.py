"""The initial network: it uses its prompt from the first step."""

from statistics import median

import pytest
import torch

from samplug.checkpoints.config import build
from samplug.errors import JobError
from samplug.nn.structs import PromptBatch
from samplug.train.init import initial_network


def share_of_the_prompt(model) -> float:
    """The share of the variance of its logits that comes from where the click is."""
    clicks = PromptBatch(
        torch.zeros(16, dtype=torch.int64), points=128 * torch.rand(16, 1, 2), labels=torch.ones(16, 1)
    )
    with torch.no_grad():
        logits = model.eval().answer(model.encode(torch.randn(1, 3, 128, 128)), clicks).logits
    return (logits.var(0).mean() / logits.var()).item()


def test_an_initial_network_uses_its_prompt():
    """Most of the variance of its logits comes from where the click is; drawn as usual it is a few hundredths."""
    shares = []
    for seed in (2, 3, 4):
        torch.manual_seed(seed)
        usual = build({"variant": "samplug-nano"})
        shares.append([share_of_the_prompt(model) for model in (initial_network(usual), usual)])
    ours, theirs = (median(column) for column in zip(*shares, strict=True))
    assert ours > 0.4 > 0.1 > theirs


def test_only_the_bundled_network_begins_from_nothing():
    with torch.device("meta"):
        other = build({"variant": "mobile_sam"})
    with pytest.raises(JobError, match="pretrained=False: .* this is mobile_sam"):
        initial_network(other)
