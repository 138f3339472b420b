import json

import pytest
import torch

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.evaluation.explanation import KEPT, explain_domain, printable
from modeling_dkd.evaluation.explanation_figure import MOST_CHANGES, MOST_CLASSES, MOST_CLIPS, explanation_figure
from modeling_dkd.evaluation.explanation_report import report_text, write_explanation
from modeling_dkd.evaluation.protocols import pool
from modeling_dkd.gaussian_mixture import GaussianMixture

from ..toy_domain import toy_domain


NAMES = [f"class {k}" for k in range(6)]


def fitted(domain, **options):
    config = DKDCLIPConfig(projection_dim=domain.videos.shape[-1], logit_scale=20.0)
    return DKDHead(config).eval().fit(domain.videos, domain.texts, **options)


@pytest.fixture(scope="module")
def domain():
    return toy_domain()


@pytest.fixture(scope="module")
def head(domain):
    return fitted(domain)


@pytest.fixture(scope="module")
def explanation(domain, head):
    return explain_domain(head, domain.videos, domain.texts, NAMES, labels=domain.labels)


def by_name(explanation):
    return {of_class.name: of_class for of_class in explanation.classes}


def test_figures_are_those_of_the_head_and_of_plain_zero_shot(domain, head, explanation):
    with torch.no_grad():
        output = head(domain.videos, domain.texts)
        before = (20 * domain.videos @ domain.texts.T).softmax(1)
        after = output.logits_per_video.softmax(1)
    mixture = GaussianMixture(head.weights, head.means, head.variances)
    read = before.argmax(1), after.argmax(1)
    assert explanation.num_clips == 150
    assert explanation.num_changed == int((read[0] != read[1]).sum()) > 0
    accuracies = [float((r == domain.labels).float().mean()) for r in read]
    assert [explanation.accuracy_before, explanation.accuracy_after] == pytest.approx(accuracies)
    assert explanation.video_cosine == pytest.approx(float((domain.videos * output.video_embeds).sum(1).mean()))
    assert explanation.text_cosine == pytest.approx(float((domain.texts * output.text_embeds).sum(1).mean()), abs=1e-5)
    assert explanation.log_density_before == pytest.approx(float(mixture.log_density(domain.videos).mean()), rel=1e-4)
    assert explanation.log_density_after > explanation.log_density_before
    change = 0.5 * (before - after).abs().sum(1)
    expected = change.sort(descending=True).values[:KEPT].tolist()
    assert [clip.change for clip in explanation.clips] == pytest.approx(expected, abs=1e-5)
    first = explanation.clips[0]
    position = int(first.name.removeprefix("clip "))
    assert (first.before, first.after) == tuple(NAMES[int(r[position])] for r in read)
    assert first.confidence_after == pytest.approx(float(after[position].max()), abs=1e-5)
    assert first.label == NAMES[int(domain.labels[position])]
    assert first.strength == pytest.approx(float(output.strength[position]), abs=1e-5)


def test_classes_have_their_own_support_and_counts(domain, head, explanation):
    assert [c.support for c in explanation.classes] == sorted((c.support for c in explanation.classes), reverse=True)
    classes = by_name(explanation)
    for k, name in enumerate(NAMES):
        assert classes[name].support == pytest.approx(float(head.counts[k]))
        assert classes[name].strength == pytest.approx(float(head.class_strength[k]))
        assert classes[name].num_clips == int((domain.labels == k).sum())
    assert sum(c.read_before for c in explanation.classes) == sum(c.read_after for c in explanation.classes) == 150
    right = sum(c.num_clips * c.accuracy_after for c in explanation.classes)
    assert right / 150 == pytest.approx(explanation.accuracy_after)


def test_confusions_balance_with_the_accuracy(explanation):
    fewer = sum(c.before - c.after for c in explanation.resolved)
    more = sum(c.after - c.before for c in explanation.created)
    assert fewer - more == round(150 * (explanation.accuracy_after - explanation.accuracy_before))
    assert all(c.after < c.before and c.label != c.read_as for c in explanation.resolved)
    assert all(c.after > c.before and c.label != c.read_as for c in explanation.created)
    assert sum(c.num_clips for c in explanation.changes) == explanation.num_changed


def test_without_labels_changes_are_told_and_confusions_are_not(domain, head, explanation):
    blind = explain_domain(head, domain.videos, domain.texts, NAMES)
    assert (blind.accuracy_before, blind.resolved, blind.created) == (None, [], [])
    assert blind.changes == explanation.changes
    assert {clip.label for clip in blind.clips} == {None}
    text = report_text(blind)
    assert "changes of the predicted class" in text
    assert "confused" not in text
    explanation_figure(blind)
    part = explain_domain(head, domain.videos, domain.texts, NAMES, labels=domain.labels.where(domain.labels > 0, -1))
    assert by_name(part)["class 0"].accuracy_after is None
    assert by_name(part)["class 1"].num_clips == by_name(explanation)["class 1"].num_clips


def test_classes_that_do_not_occur_are_without_evidence():
    domain = toy_domain(num_videos=300, noise=0.5)
    kept = domain.labels < 3
    videos, labels = domain.videos[kept], domain.labels[kept]
    head = fitted(domain._replace(videos=videos))
    explained = explain_domain(head, videos, domain.texts, NAMES, labels=labels)
    assert explained.without_evidence == NAMES[3:]
    assert "no evidence in the domain (support below 1 sample): 3 classes: class 3; class 4" in report_text(explained)


def test_other_orders_and_new_classes_keep_their_own_figures(domain, head, explanation):
    new = torch.nn.functional.normalize(-domain.texts[:1], dim=-1)
    texts = torch.cat([domain.texts[[4, 1]], new])
    explained = by_name(explain_domain(head, domain.videos, texts, ["four", "one", "new"]))
    assert explained["four"].support == pytest.approx(by_name(explanation)["class 4"].support)
    assert explained["one"].strength == pytest.approx(by_name(explanation)["class 1"].strength)
    assert (explained["new"].support, explained["new"].share, explained["new"].strength) == (0, 0, 0)


def test_two_classes_with_one_text_keep_their_own_support(domain):
    texts = torch.cat([domain.texts, domain.texts[:1]])
    head = fitted(domain._replace(texts=texts), labels=torch.where(domain.labels == 0, 6, domain.labels))
    explained = by_name(explain_domain(head, domain.videos, texts, [*NAMES, "twin"]))
    assert explained["class 0"].support < 0.1 < explained["twin"].support


def test_frames_and_prompts_are_explained_as_the_head_reads_them(domain, head):
    noise = 0.02 * torch.randn(150, 3, 24, generator=torch.Generator().manual_seed(1))
    frames, prompts = domain.videos[:, None] + noise, domain.texts[:, None].repeat(1, 2, 1)
    explained = explain_domain(head, frames, prompts, NAMES, labels=domain.labels)
    assert explained.accuracy_before == pytest.approx(
        float(((pool(frames) @ domain.texts.T).argmax(1) == domain.labels).float().mean())
    )
    assert by_name(explained)["class 0"].support == pytest.approx(float(head.counts[0]))


def test_chunks_do_not_matter(domain, head, explanation, monkeypatch):
    monkeypatch.setattr("modeling_dkd.evaluation.explanation.CHUNK_SIZE", 7)
    again = explain_domain(head, domain.videos, domain.texts, NAMES, labels=domain.labels)
    assert again.changes == explanation.changes
    torch.testing.assert_close(again.log_densities, explanation.log_densities)


def test_names_are_printable_in_every_file(domain, head, explanation, tmp_path):
    names = ["$x_1$", "line\nbreak\x1b[31m", "\udcff", "over\u202eride", "\\frac{", "漢字"]
    clips = [f"{i}\r$\x07" for i in range(150)]
    explained = explain_domain(head, domain.videos, domain.texts, names, clips, domain.labels, title="$t\n")
    text, data, picture = write_explanation(tmp_path / "new", "name", explained)
    assert printable("line\nbreak\x1b[31m") == "line\\nbreak\\x1b[31m"
    assert all(line.isprintable() for line in text.read_text(encoding="utf-8").splitlines())
    written = json.loads(data.read_text(encoding="utf-8"))
    assert sorted(c["name"] for c in written["classes"]) == sorted(printable(name) for name in names)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    # The report, and no tensor.
    assert written["num_changed"] == explanation.num_changed
    assert len(written["clips"]) == KEPT
    assert "log_densities" not in written


def test_of_many_classes_and_clips_the_figure_shows_the_top():
    domain = toy_domain(num_videos=400, num_classes=101)
    explained = explain_domain(fitted(domain), domain.videos, domain.texts, [f"class {k}" for k in range(101)])
    figure = explanation_figure(explained)
    labels = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes[:3]]
    assert len(labels[0]) == MOST_CLASSES + 1
    assert labels[0][-1] == explained.classes[0].name
    assert (len(labels[1]), len(labels[2])) == (MOST_CHANGES, MOST_CLIPS)
    assert labels[2][-1] == explained.clips[0].name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": NAMES[:5]}, "class_names has 5 names for 6 embeddings"),
        ({"clip_names": ["a"]}, "clip_names has 1 names for 150 embeddings"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"shape \(150,\), got \(3,\)"),
        ({"labels": torch.full((150,), 6)}, "must be from -1 .unknown. to 5"),
    ],
)
def test_what_does_not_fit_is_refused(domain, head, changes, message):
    given = {"class_names": NAMES} | changes
    with pytest.raises(ValueError, match=message):
        explain_domain(head, domain.videos, domain.texts, **given)


def test_a_head_without_classes_is_refused(domain):
    head = DKDHead(DKDCLIPConfig(projection_dim=24))
    for unfit in (head, DKDHead(DKDCLIPConfig(projection_dim=24)).fit(domain.videos)):
        with pytest.raises(ValueError, match="only a head fitted with class texts"):
            explain_domain(unfit, domain.videos, domain.texts, NAMES)
