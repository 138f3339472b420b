"""What DKD gains over zero-shot under every protocol, on a committed set: accuracy is tested where no data are."""

import pytest
import torch

from modeling_dkd.embedding.embedding_cache import read_embeddings
from modeling_dkd.evaluation.measurement import Plan, measure_set
from modeling_dkd.evaluation.methods.dkd import dkd
from modeling_dkd.evaluation.methods.peers import zero_shot
from modeling_dkd.evaluation.names import DEFAULT_PROTOCOLS
from modeling_dkd.evaluation.report import Line, summarise

from .known_gains import PATH, known_gains


# Points of top-1, mean of three seeds: plain zero-shot, and what DKD gained when this was written.
KNOWN = {
    "full": (77.5, 4.3),
    "induct": (78.2, 4.2),
    "quarter": (78.1, 6.8),
    "few": (77.7, 3.1),
    "imbal": (75.3, 4.7),
}
TOLERANCE = 1.5


@pytest.fixture(scope="module")
def lines() -> dict[tuple[str, str], Line]:
    methods = {"zero-shot": zero_shot, "dkd": dkd}
    measured = measure_set("known", read_embeddings(PATH), methods, Plan(DEFAULT_PROTOCOLS, 3))
    return {(line.protocol, line.method): line for line in summarise(list(measured))}


def test_the_committed_set_is_what_its_script_makes():
    committed, made = read_embeddings(PATH), known_gains()
    assert PATH.stat().st_size < 100_000
    assert torch.equal(committed.labels, made.labels)
    torch.testing.assert_close(committed.video_embeds, made.video_embeds, atol=1e-3, rtol=0)
    torch.testing.assert_close(committed.text_embeds, made.text_embeds, atol=1e-3, rtol=0)


@pytest.mark.parametrize("protocol", DEFAULT_PROTOCOLS)
def test_dkd_gains_what_it_is_known_to_gain(lines, protocol):
    zero_shot_top1, known_gain = KNOWN[protocol]
    assert 100 * lines[protocol, "zero-shot"].top1 == pytest.approx(zero_shot_top1, abs=0.1)
    assert 100 * lines[protocol, "dkd"].gain > known_gain - TOLERANCE


@pytest.mark.parametrize("protocol", DEFAULT_PROTOCOLS)
def test_dkd_is_better_calibrated_than_zero_shot(lines, protocol):
    assert lines[protocol, "dkd"].ece < lines[protocol, "zero-shot"].ece
