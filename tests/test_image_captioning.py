"""Captioning: tokens, shapes, no look ahead, beam search, loss, and that it learns."""

import dataclasses
import math

import pytest
import torch

from src.vision_tasks.street.scenes import make_scenes
from src.vision_tasks.tasks.image_captioning import (
    END,
    LENGTH,
    PAD,
    START,
    TOKENS,
    UNKNOWN,
    Captioned,
    ImageCaptioning,
    decode,
    encode,
    mirrored,
    share_equal,
)

TASK = ImageCaptioning()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return TASK.build_model().eval()


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(6, seed=1, size=64)


def test_tokens_by_hand():
    tokens = encode(["a red car", "a purple bus"])
    words = [TOKENS[token] for token in tokens[0].tolist()]
    assert words[:6] == ["<start>", "a", "red", "car", "<end>", "<pad>"]
    assert tokens.shape == (2, LENGTH)
    assert tokens[1, 2] == UNKNOWN
    assert decode(tokens) == ["a red car", "a <unk> bus"]
    assert len(set(TOKENS)) == len(TOKENS)


def test_every_caption_of_the_scenes_can_be_said():
    """Also the rarest words, so straight from the grammar and not from scenes."""
    from src.vision_tasks.street import captions, world
    from src.vision_tasks.street.motion import Road

    sentences = []
    for name in captions._WEATHERS:
        for wet in (False, True):
            weather = world.Weather(name, (1, 1, 1), (1, 1, 1), (1, 1, 1), wet=wet)
            for curvature in (-0.01, 0.0, 0.01):
                road = Road(0.0, 0.0, curvature, 3.5, 0.35, 2.0)
                for coat, middle in zip(
                    world.COLOURS, (0, 0.2, 0.5, 0.5, 0.8, 1), strict=True
                ):
                    for kind in ("car", "truck", "bus", "pedestrian"):
                        for others in range(6):
                            kinds = ["pedestrian", *[kind] * others]
                            areas = [9, *[1] * others]
                            sentences.append(
                                captions.caption(
                                    kinds, areas, coat, middle, road, weather
                                )
                            )
    tokens = encode(sentences)
    assert UNKNOWN not in tokens
    assert decode(tokens) == sentences
    assert len(tokens.unique()) > len(TOKENS) - 4


def test_too_long_a_caption_is_refused():
    with pytest.raises(ValueError, match="22 words, got 23"):
        encode([" ".join(["car"] * 23)])


def test_mirroring_exchanges_left_and_right():
    text = "a red car on the left on a road curving right in fog"
    assert mirrored(text) == "a red car on the right on a road curving left in fog"
    assert mirrored(mirrored(text)) == text


def test_images_and_captions_are_mirrored_together(scenes):
    example = TASK.prepare(scenes, torch.Generator().manual_seed(0))
    plain = scenes.images.float() / 255
    flips = 0
    for image, tokens, original, caption in zip(
        example.inputs[0], example.inputs[1], plain, scenes.captions, strict=True
    ):
        flip = not torch.equal(image, original)
        flips += flip
        assert torch.equal(image, original.flip(-1) if flip else original)
        assert decode(tokens[None]) == [mirrored(caption) if flip else caption]
    assert 0 < flips < len(scenes)


def test_targets_are_the_next_words(scenes):
    example = TASK.prepare(scenes)
    given, wanted = example.inputs[1], example.targets[0]
    assert given.shape == wanted.shape == (6, LENGTH - 1)
    assert (given[:, 0] == START).all()
    assert torch.equal(given[:, 1:], wanted[:, :-1])
    assert decode(wanted) == list(scenes.captions)
    assert ((wanted == END).sum(dim=1) == 1).all()


@torch.no_grad()
def test_shapes(model):
    images, tokens = TASK.example_inputs(2)
    output = model(images, tokens)
    assert output.logits.shape == (2, LENGTH - 1, len(TOKENS))
    assert output.attention.shape == (2, LENGTH - 1, 28, 28)
    torch.testing.assert_close(
        output.attention.sum(dim=(2, 3)), torch.ones(2, LENGTH - 1)
    )
    small = model(torch.rand(1, 3, 64, 96), tokens[:1, :5])
    assert small.logits.shape == (1, 5, len(TOKENS))
    assert small.attention.shape == (1, 5, 8, 12)


@torch.no_grad()
def test_no_position_sees_what_comes_after_it(model):
    images, tokens = torch.rand(1, 3, 64, 64), encode(["a red car ahead"])
    changed = tokens.clone()
    changed[0, 3] = tokens[0, 2]
    before, after = model(images, tokens).logits, model(images, changed).logits
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


@torch.no_grad()
def test_logits_depend_on_the_image(model):
    _, tokens = TASK.example_inputs(1)
    dark, bright = (model(torch.full((1, 3, 64, 64), v), tokens) for v in (0.1, 0.9))
    assert not torch.allclose(dark.logits, bright.logits)


class Bigrams(torch.nn.Module):
    """Stands for `speak` with next-word probabilities that are written by hand."""

    def __init__(self, table: dict[str, dict[str, float]]) -> None:
        super().__init__()
        self.p = torch.zeros(len(TOKENS), len(TOKENS))
        for word, followers in table.items():
            for follower, p in followers.items():
                self.p[TOKENS.index(word), TOKENS.index(follower)] = p

    def forward(self, seen, tokens, state):
        return Captioned(self.p[tokens].log(), torch.zeros(len(tokens), 1, 1, 1)), state


def test_beam_search_finds_what_greedy_search_misses(model, monkeypatch):
    """ "a" looks best at first (0.6), but "the car" (0.4) beats "a car" (0.3)."""
    table = {
        "<start>": {"a": 0.6, "the": 0.4},
        "a": {"car": 0.5, "bus": 0.5},
        "the": {"car": 1.0},
        "car": {"<end>": 1.0},
        "bus": {"<end>": 1.0},
    }
    monkeypatch.setattr(model, "speak", Bigrams(table).forward)
    images = torch.rand(2, 3, 32, 32)
    assert model.caption(images, beam=1)[0] in ("a car", "a bus")
    assert model.caption(images, beam=3) == ["the car", "the car"]


def test_the_mean_over_tokens_decides(model, monkeypatch):
    """ "a" has probability 0.4; the long sentence has 0.6 * 0.5, but of six tokens."""
    table = {
        "<start>": {"a": 0.4, "the": 0.6},
        "a": {"<end>": 1.0},
        "the": {"red": 0.5},
        "red": {"car": 1.0},
        "car": {"ahead": 1.0},
        "ahead": {"<end>": 1.0},
    }
    monkeypatch.setattr(model, "speak", Bigrams(table).forward)
    assert model.caption(torch.rand(1, 3, 32, 32), beam=2) == ["the red car ahead"]


def test_a_caption_does_not_depend_on_its_batch(model):
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    together = model.caption(images, beam=3)
    assert together == [model.caption(image[None], beam=3)[0] for image in images]
    assert all(len(caption.split()) < LENGTH for caption in together)


def test_greedy_captions_are_the_most_probable_next_words(model):
    images = torch.rand(1, 3, 64, 64)
    caption = model.caption(images, beam=1)
    tokens = encode([" ".join(caption[0].split()[: LENGTH - 2])])
    with torch.no_grad():
        logits = model(images, tokens[:, :-1]).logits
    logits[..., [PAD, START, UNKNOWN]] = -math.inf
    count = min(len(caption[0].split()), LENGTH - 2)
    assert torch.equal(logits.argmax(-1)[0, :count], tokens[0, 1 : count + 1])


def test_loss_by_hand():
    """Two words count, with probabilities 1/2 and 1/4; the padding does not."""
    p = torch.full((1, 3, len(TOKENS)), 1e-9)
    targets = torch.tensor([[5, 6, PAD]])
    p[0, 0, 5], p[0, 0, 7] = 0.5, 0.5
    p[0, 1, 6], p[0, 1, 7] = 0.25, 0.75
    loss = TASK.loss(Captioned(p.log(), torch.zeros(1, 3, 1, 1)), (targets,))
    assert loss.item() == pytest.approx(math.log(8) / 2, abs=1e-4)
    p[0, 1, 6], p[0, 1, 7] = 0.75, 0.25
    better = TASK.loss(Captioned(p.log(), torch.zeros(1, 3, 1, 1)), (targets,))
    assert better < loss


def test_baseline_says_the_most_frequent_caption(scenes):
    three = scenes[:3]
    train = dataclasses.replace(three, captions=("a b c d e", "v w x", "a b c d e"))
    test = dataclasses.replace(three, captions=("a b c d e", "a b c d e", "k l m n o"))
    # 10/15 words, 8/12 pairs, 6/9 triples and 4/6 runs of four are right
    assert TASK.baseline(train, test) == pytest.approx(2 / 3)


def test_measures(scenes, model):
    values = TASK.measure(model, scenes)
    assert set(values) >= {"BLEU-4", "exact match"}
    assert all(0 <= value <= 1 for value in values.values())
    assert share_equal(["a", "b"], ["a", "c"]) == 0.5


def test_bad_input_is_refused(model):
    images, tokens = torch.rand(2, 3, 32, 32), encode(["a car", "a bus"])
    with pytest.raises(ValueError, match="multiples of 32"):
        model(images[..., :30], tokens)
    with pytest.raises(ValueError, match=r"expected tokens \[2, T\].*got \[1, 24\]"):
        model(images, tokens[:1])
    with pytest.raises(ValueError, match="got 0 to 999"):
        model(images, tokens.masked_fill(tokens == END, 999))
    with pytest.raises(ValueError, match="beam must be at least 1, got 0"):
        model.caption(images, beam=0)


def test_it_learns(overfit, scenes):
    torch.manual_seed(0)
    model = TASK.build_model()
    example = TASK.prepare(scenes)
    losses = overfit(TASK, model, example, steps=15, learning_rate=2e-3)
    assert losses[0] == pytest.approx(math.log(len(TOKENS)), abs=0.3)
    assert losses[-1] < 0.5 * losses[0]
