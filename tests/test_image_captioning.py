"""Captioning: tokens, the network and beam search written out, loss, measures."""

import dataclasses
import math

import matplotlib.pyplot as plt
import pytest
import torch
from torch.nn.functional import linear

from src.vision_tasks.shared.task import TaskRecipe
from src.vision_tasks.street.scenes import make_scenes
from src.vision_tasks.tasks import image_captioning
from src.vision_tasks.tasks.image_captioning import (
    END,
    LENGTH,
    PAD,
    START,
    TOKENS,
    UNKNOWN,
    Captioned,
    Captioner,
    ImageCaptioning,
    captions_of,
    decode,
    encode,
    lit,
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
    assert len(set(TOKENS)) == len(TOKENS) == 45
    assert TOKENS[:4] == ("<pad>", "<start>", "<end>", "<unk>")
    assert list(TOKENS[4:]) == sorted(TOKENS[4:])
    # From a model, which may go on after <end>, and need not end.
    said = torch.tensor([[START, 5, END, 6, END], [START, 5, PAD, UNKNOWN, 6]])
    assert decode(said) == [TOKENS[5], f"{TOKENS[5]} <unk> {TOKENS[6]}"]


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
    assert encode([" ".join(["car"] * 22)])[0, -1] == END
    with pytest.raises(ValueError, match="22 words, got 23: 'car car"):
        encode([" ".join(["car"] * 23)])


def test_mirroring_exchanges_left_and_right():
    text = "a red car on the left on a road curving right in fog"
    assert mirrored(text) == "a red car on the right on a road curving left in fog"
    assert mirrored(mirrored(text)) == text


def test_images_and_captions_are_mirrored_together(scenes):
    many = scenes[[0, 1, 2, 3, 4, 5] * 20]
    example = TASK.prepare(many, torch.Generator().manual_seed(0))
    (images, tokens), (wanted,) = example.inputs, example.targets
    assert torch.equal(tokens[:, 1:], wanted[:, :-1])
    flip = torch.rand(120, generator=torch.Generator().manual_seed(0)) < 0.5
    plain = many.images.float() / 255
    assert torch.equal(images[flip], plain[flip].flip(-1))
    assert torch.equal(images[~flip], plain[~flip])
    pairs = zip(many.captions, flip.tolist(), strict=True)
    captions = [mirrored(text) if flipped else text for text, flipped in pairs]
    assert decode(wanted) == captions != list(many.captions)


def test_targets_are_the_next_words(scenes):
    example = TASK.prepare(scenes)
    given, wanted = example.inputs[1], example.targets[0]
    assert given.shape == wanted.shape == (6, LENGTH - 1)
    assert (given[:, 0] == START).all()
    assert torch.equal(given[:, 1:], wanted[:, :-1])
    assert decode(wanted) == list(scenes.captions)
    assert torch.equal(example.inputs[0], scenes.images.float() / 255)
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


def attended(attend, x, places):
    """Attention with four heads, written out: [B, T, C], and the weights [B, T, P]."""
    query, key, value = (
        linear(each, weight, bias).unflatten(-1, (4, -1)).transpose(1, 2)
        for each, weight, bias in zip(
            (x, places, places),
            attend.in_proj_weight.chunk(3),
            attend.in_proj_bias.chunk(3),
            strict=True,
        )
    )  # [B, 4, T or P, C/4]
    size = query.shape[-1]
    weights = (query @ key.transpose(-1, -2) / math.sqrt(size)).softmax(dim=-1)
    found = (weights @ value).transpose(1, 2).flatten(2)
    found = linear(found, attend.out_proj.weight, attend.out_proj.bias)
    return found, weights.mean(dim=1)


def captioned(model, images, tokens, change=""):
    """The network written out after the encoder; `change` alters a part."""
    features = model.encoder(images)
    x = 0
    for name, level, times in (
        ("fine", features.eighth, 1),
        ("middle", features.sixteenth, 2),
        ("coarse", features.thirtysecond, 4),
    ):
        layer = getattr(model, name)
        y = linear(level.permute(0, 2, 3, 1), layer.weight[:, :, 0, 0], layer.bias)
        y = y.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)
        x = x + (0 if change == name else y)
    height, width = x.shape[1:3]
    down = torch.linspace(-1, 1, height).view(-1, 1).expand(height, width)
    right = torch.linspace(-1, 1, width).expand(height, width)
    if change != "place":
        x = x + linear(
            torch.stack([down, right], -1), model.place.weight, model.place.bias
        )
    x = x if change == "ReLU" else x.clamp(min=0)
    if change != "norm":
        x = (x - x.mean(-1, keepdim=True)) / (
            x.var(-1, keepdim=True, correction=0) + 1e-5
        ).sqrt()
        x = x * model.norm.weight + model.norm.bias
    state = torch.tanh(linear(x.mean(dim=(1, 2)), model.begin.weight, model.begin.bias))
    state = 0 * state if change == "first state" else state
    gru, outputs = model.gru, []
    for word in model.embed.weight[tokens].unbind(dim=1):
        reset, update, new = linear(word, gru.weight_ih_l0, gru.bias_ih_l0).chunk(3, -1)
        hidden = linear(state, gru.weight_hh_l0, gru.bias_hh_l0).chunk(3, -1)
        update = torch.sigmoid(update + hidden[1])
        new = torch.tanh(new + torch.sigmoid(reset + hidden[0]) * hidden[2])
        state = (1 - update) * new + update * state
        outputs.append(state)
    x, places = torch.stack(outputs, dim=1), x.flatten(1, 2)
    found, weights = attended(model.attend, x, places)
    found = 0 * found if change == "attention" else found
    x = 0 * x if change == "state" else x
    first, _, last = model.head
    x = linear(torch.cat([x, found], dim=-1), first.weight, first.bias).clamp(min=0)
    logits = linear(x, last.weight, last.bias)
    return Captioned(logits, weights.unflatten(-1, (height, width)))


@pytest.fixture
def double():
    """New numbers are float64, also those of which the network makes coordinates."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def lively():
    """A small network in float64 whose words depend much on image and words."""
    torch.manual_seed(0)
    model = Captioner(size=16).double().eval()
    for layer in (model.fine, model.middle, model.coarse, model.place):
        torch.nn.init.normal_(layer.weight, std=0.5)
    torch.nn.init.normal_(model.norm.bias)
    torch.nn.init.normal_(model.attend.in_proj_weight)
    torch.nn.init.normal_(model.attend.in_proj_bias)
    for layer in (model.begin, model.head[0], model.head[2]):
        torch.nn.init.normal_(layer.weight, std=0.7)
    return model


@torch.no_grad()
@pytest.mark.usefixtures("double")
def test_the_network_is_what_is_written_out_here(lively):
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    tokens = encode(["a red car ahead", "several buses on the left"])[:, :7]
    output = lively(images, tokens)
    expected = captioned(lively, images, tokens)
    for part, other in zip(output, expected, strict=True):
        torch.testing.assert_close(part, other, rtol=0, atol=1e-10)
    for change in (
        "fine",
        "middle",
        "coarse",
        "place",
        "ReLU",
        "norm",
        "first state",
        "attention",
        "state",
    ):
        other = captioned(lively, images, tokens, change)
        assert (output.logits - other.logits).abs().max() > 0.01, change


def test_size_and_recipe_are_those_of_the_page(model, monkeypatch):
    assert sum(p.numel() for p in model.parameters()) == 12_286_061
    assert (model.embed.weight[PAD] == 0).all()  # and training leaves it so
    model(
        torch.rand(1, 3, 32, 32), torch.tensor([[START, PAD]])
    ).logits.sum().backward()
    assert (model.embed.weight.grad[PAD] == 0).all()
    model.zero_grad()
    assert TASK.recipe == TaskRecipe(
        steps=700,
        batch_size=16,
        learning_rate=1e-3,
        weight_decay=0.01,
        pretrained=True,
        seed=13,
    )
    assert (TASK.metric, TASK.higher_is_better) == ("BLEU-4", True)
    assert TASK.baseline_name == "always the most frequent caption"
    assert TASK.test_split == "test"
    asked = []
    monkeypatch.setattr(
        image_captioning,
        "Encoder",
        lambda *, pretrained: asked.append(pretrained) or torch.nn.Identity(),
    )
    for pretrained in (True, False):
        TASK.build_model(pretrained=pretrained)
    assert asked == [True, False]


@torch.no_grad()
def test_no_position_sees_what_comes_after_it(model):
    images, tokens = torch.rand(1, 3, 64, 64), encode(["a red car ahead"])
    changed = tokens.clone()
    changed[0, 3] = tokens[0, 2]
    before, after = model(images, tokens).logits, model(images, changed).logits
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


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


class Babble(Captioner):
    """Its next words depend on the image and all words before, at random.

    The first value of an image is its number; the state holds a number that stands for
    the words so far, and their count. <pad> and <unk> are likely, <end> ever more so.
    """

    def __init__(self) -> None:
        super().__init__(size=4)
        self.table = 2 * torch.randn(997, len(TOKENS), generator=seeded())
        self.table[:, [PAD, UNKNOWN]] += 2

    def look(self, images):
        return images[:, :1, :1, :1]

    def first_state(self, seen):
        return torch.zeros(1, len(seen), 2).long()

    def speak(self, seen, tokens, state):
        number, count = state.unbind(dim=-1)
        logits = []
        for token in tokens.unbind(dim=1):
            number, count = (31 * number + 7 * token + 1) % 997, count + 1
            row = (number[0] + 101 * seen[:, 0, 0, 0].long()) % 997
            logits.append(
                self.table[row].index_add(
                    1, torch.tensor([END]), 0.5 * count[0, :, None].float() - 3
                )
            )
        logits = torch.stack(logits, dim=1)
        return Captioned(logits, None), torch.stack([number, count], dim=-1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def searched(
    model, image, beam, banned=(PAD, START, UNKNOWN), mean=True, ended_stay=True
):
    """Beam search with whole captions, one image, and no state that is handed on."""
    seen = model.look(image[None])
    beams = [([START], 0.0)]
    while len(beams[0][0]) < LENGTH and not all(END in words for words, _ in beams):
        longer = []
        for words, score in beams:
            if END in words and ended_stay:
                longer.append(([*words, PAD], score))
                continue
            state = model.first_state(seen)
            logits = model.speak(seen, torch.tensor([words]), state)[0].logits
            best = logits[0, -1].log_softmax(-1).topk(beam + 3)  # 3 may be banned
            for log_p, token in zip(*map(torch.Tensor.tolist, best), strict=True):
                if token not in banned:
                    longer.append(([*words, token], score + log_p))
        beams = sorted(longer, key=lambda pair: -pair[1])[:beam]
    words, _ = max(
        beams,
        key=lambda pair: pair[1] / (sum(t != PAD for t in pair[0]) if mean else 1),
    )
    return decode(torch.tensor([words]))[0]


@torch.no_grad()
def test_beam_search_is_what_is_written_out_here():
    model, results = Babble(), {}
    images = torch.arange(6.0).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    for beam in (1, 2, 3, 5):
        results[beam] = model.caption(images, beam)
        assert results[beam] == [searched(model, image, beam) for image in images]
    assert model.caption(images) == results[3]
    assert results[1] != results[2] != results[3] != results[5]
    assert len({len(caption.split()) for caption in results[3]}) > 2
    for change in (
        {"mean": False},
        {"ended_stay": False},
        {"banned": (START, UNKNOWN)},
        {"banned": (PAD, START)},
    ):
        others = [searched(model, image, 3, **change) for image in images]
        assert others != results[3], change
    # A caption that never ends stops at the last of its tokens.
    model.table[:, END] = -1e9
    assert {len(text.split()) for text in model.caption(images)} == {LENGTH - 1}


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


def test_loss_written_out():
    """The mean of -log p of the true tokens, of all captions together, but <pad>."""
    logits = 3 * torch.randn(3, 4, 45, dtype=torch.float64, generator=seeded())
    targets = torch.tensor([[5, 6, END, PAD], [7, END, PAD, PAD], [8, 9, UNKNOWN, END]])
    terms = [
        logits[row, t].exp().sum().log() - logits[row, t, targets[row, t]]
        for row, words in enumerate((3, 2, 4))
        for t in range(words)
    ]
    loss = TASK.loss(Captioned(logits, torch.zeros(3, 4, 1, 1)), (targets,))
    torch.testing.assert_close(loss, sum(terms) / 9)


# --- measures ---


class Speaker(torch.nn.Module):
    """Stands for a network: says of each image what the list has at its first value."""

    def __init__(self, beam: list[str], greedy: list[str]) -> None:
        super().__init__()
        self.said, self.batches = {3: beam, 1: greedy}, []

    def caption(self, images, beam=3):
        self.batches.append(len(images))
        return [
            self.said[beam][number]
            for number in (images[:, 0, 0, 0] * 255).round().int().tolist()
        ]


@pytest.fixture
def numbered(scenes):
    """Three scenes whose first value is their number, with short captions."""
    images = scenes.images[:3].clone()
    images[:, 0, 0, 0] = torch.arange(3)
    captions = ("a b c d e", "a b c d f", "g h i j k l")
    return dataclasses.replace(scenes[:3], images=images, captions=captions)


def test_measure_of_beam_and_greedy_captions(numbered):
    beam = ["a b c d e", "a b c d e", "g h i j k l"]
    greedy = ["", "a b c d f", "g h i j"]
    model = Speaker(beam, greedy)
    # 15 of 16 words, 11/13 pairs... each with one wrong; none too short
    whole = (15 / 16 * 12 / 13 * 9 / 10 * 6 / 7) ** 0.25
    # all that is said is right, but 9 words instead of 16
    short = math.exp(1 - 16 / 9)
    assert TASK.measure(model, numbered) == {
        "BLEU-4": pytest.approx(whole),
        "BLEU-4, greedy": pytest.approx(short),
        "exact match": pytest.approx(2 / 3),
        "exact match, greedy": pytest.approx(1 / 3),
    }
    silent = TASK.measure(Speaker([""] * 3, [""] * 3), numbered)
    assert set(silent.values()) == {0}
    perfect = TASK.measure(Speaker(numbered.captions, numbered.captions), numbered)
    assert set(perfect.values()) == {1}


def test_captions_of_many_scenes_are_in_order(numbered):
    model = Speaker(list("abc"), list("xyz"))
    many = numbered[[0, 1, 2] * 40]
    assert captions_of(model, many) == list("abc") * 40
    assert captions_of(model, many, beam=1) == list("xyz") * 40
    assert model.batches == [50, 50, 20] * 2


def test_baseline_says_the_most_frequent_caption(scenes):
    three = scenes[:3]
    train = dataclasses.replace(three, captions=("v w x", "a b c d e", "a b c d e"))
    test = dataclasses.replace(three, captions=("a b c d e", "k l m n o", "a b c d e"))
    # 10/15 words, 8/12 pairs, 6/9 triples and 4/6 runs of four are right
    expected = {"BLEU-4": pytest.approx(2 / 3), "exact match": pytest.approx(2 / 3)}
    assert TASK.baselines(train, test) == {TASK.baseline_name: expected}
    assert TASK.baseline(train, test) == pytest.approx(2 / 3)


def test_share_that_is_equal_word_for_word():
    assert share_equal(["a", "b", "c d"], ["a", "c", "c"]) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="zip"):
        share_equal(["a"], ["a", "b"])


# --- the figure ---


def test_attention_lights_an_image():
    """Grey from 0.3 to 1, times light from 0.25 to 1 with the root of attention."""
    image = torch.rand(3, 16, 24, generator=seeded())
    attention = torch.zeros(2, 3)
    attention[0, 1] = 0.25
    shown = lit(image, attention)
    assert shown.shape == (3, 16, 24)
    assert torch.equal(shown[0], shown[1]) and torch.equal(shown[0], shown[2])
    grey = 0.3 + 0.7 * image.mean(dim=0)
    torch.testing.assert_close(shown[0, 12:, 8:16], grey[12:, 8:16] * 0.25)
    torch.testing.assert_close(shown[0, :4, 11:13], grey[:4, 11:13])


class Pointer(torch.nn.Module):
    """Stands for a network whose attention to word t is at place t of a row."""

    def caption(self, images):
        return ["a red bus on the left and a car on a straight road"] * len(images)

    def forward(self, images, tokens):
        assert decode(tokens) == self.caption(images)
        looks = torch.eye(LENGTH)[:, None].expand(len(images), -1, -1, -1)
        return Captioned(torch.zeros(1), looks)


def test_figure(scenes):
    main = torch.tensor([2, 0, 2, 3, 1, 0])
    figure = TASK.figure(Pointer(), dataclasses.replace(scenes, main=main))
    assert len(figure.axes) == 3 * 4
    caption = "a red bus on the left and a car on a straight road"
    for row, index in enumerate((1, 4, 0)):  # the first of the kinds 0, 1 and 2
        axes = figure.axes[4 * row : 4 * row + 4]
        image = scenes.images[index].float() / 255
        assert [text.get_text() for text in axes[0].texts] == [
            f"truth: {scenes.captions[index]}\ngenerated: {caption}"
        ]
        pictures = [image]
        for axis, word in zip(axes[1:], ("bus", "left", "straight"), strict=True):
            assert [text.get_text() for text in axis.texts] == [f"“{word}”"]
            attention = torch.eye(LENGTH)[[caption.split().index(word)]]
            pictures.append(lit(image, attention))
        for axis, picture in zip(axes, pictures, strict=True):
            shown = torch.from_numpy(axis.images[0].get_array().data)
            torch.testing.assert_close(shown, picture.permute(1, 2, 0))
    plt.close(figure)


def test_figure_of_a_network_that_says_nothing(scenes, model, monkeypatch):
    for said in ("", " ".join(["car"] * (LENGTH - 1))):
        monkeypatch.setattr(model, "caption", lambda images, s=said: [s] * len(images))
        figure = TASK.figure(model, scenes)
        shown = [len(axis.images) for axis in figure.axes[:4]]
        assert shown == ([1, 1, 0, 0] if said else [1, 0, 0, 0])
        plt.close(figure)


def test_bad_input_is_refused(model):
    images, tokens = torch.rand(2, 3, 32, 32), encode(["a car", "a bus"])
    with pytest.raises(ValueError, match="multiples of 32"):
        model(images[..., :30], tokens)
    with pytest.raises(ValueError, match=r"expected tokens \[2, T\].*got \[1, 24\]"):
        model(images, tokens[:1])
    with pytest.raises(ValueError, match=r"got \[2, 0\]"):
        model(images, tokens[:, :0])
    for wrong, span in ((-1, "-1 to 44"), (45, "0 to 45")):
        some = tokens.clone()
        some[0, 1], some[1, 1] = wrong, 44
        with pytest.raises(ValueError, match=f"from 0 to 44, got {span}: use"):
            model(images, some)
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
