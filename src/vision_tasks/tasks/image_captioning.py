"""Image captioning: one sentence that says what an image shows."""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, relu

from src.vision_tasks.shared.bleu import bleu
from src.vision_tasks.shared.drawing import grid, show_image
from src.vision_tasks.shared.encoder import Encoder
from src.vision_tasks.shared.task import Batch, Task, TaskRecipe
from src.vision_tasks.street.scenes import Scenes
from src.vision_tasks.street.vocabulary import OBJECT_CLASSES

#: All words that captions of scenes are made of, in alphabetical order. Fixed, because
#: a trained model's tokens are positions in this list.
VOCABULARY = """
    a ahead and at black blue bus buses car cars curving day dusk fog green grey in left
    more night on one pedestrian pedestrians rain red right road several sky straight
    sunny the three truck trucks two under wet white yellow
"""
#: What each token stands for; the first four are no words.
TOKENS = ("<pad>", "<start>", "<end>", "<unk>", *VOCABULARY.split())
PAD, START, END, UNKNOWN = range(4)
INDEX = {word: token for token, word in enumerate(TOKENS)}
#: Tokens of a padded caption, <start> and <end> among them.
LENGTH = 24
#: The figure shows where the model looked for the first of each of these.
SHOWN_WORDS = (OBJECT_CLASSES, ("left", "right", "ahead"), ("straight", "curving"))


def encode(captions: Sequence[str]) -> Tensor:
    """Captions as tokens, int64 [B, LENGTH]: <start>, the words, <end>, <pad>...

    Words that are not in VOCABULARY become <unk>.
    """
    tokens = torch.full((len(captions), LENGTH), PAD)
    for row, caption in zip(tokens, captions, strict=True):
        words = [INDEX.get(word, UNKNOWN) for word in caption.split()]
        if len(words) > LENGTH - 2:
            raise ValueError(
                f"a caption may have {LENGTH - 2} words, got {len(words)}: {caption!r}"
            )
        row[: len(words) + 2] = torch.tensor([START, *words, END])
    return tokens


def decode(tokens: Tensor) -> list[str]:
    """Captions of tokens [B, T], each up to its first <end>."""
    captions = []
    for row in tokens.tolist():
        row = row[: row.index(END)] if END in row else row
        words = [TOKENS[token] for token in row if token not in (START, PAD)]
        captions.append(" ".join(words))
    return captions


def mirrored(caption: str) -> str:
    """The caption of the mirrored image: left and right change places."""
    swap = {"left": "right", "right": "left"}
    return " ".join(swap.get(word, word) for word in caption.split())


class Captioned(NamedTuple):
    logits: Tensor  # [B, T, V]: of the token after each given one
    attention: Tensor  # [B, T, H/8, W/8]: where it looked for it; each map sums to 1


class Captioner(nn.Module):
    """ResNet-18, and a GRU that looks at its features through attention.

    forward: images [B, 3, H, W] in [0, 1] and tokens [B, T], each caption from <start>
    on, to `Captioned`: after every token, the logits of the next.
    """

    def __init__(
        self, tokens: int = len(TOKENS), size: int = 256, *, pretrained: bool = False
    ) -> None:
        super().__init__()
        self.encoder = Encoder(pretrained=pretrained)
        self.fine = nn.Conv2d(128, size, 1)
        self.middle = nn.Conv2d(256, size, 1)
        self.coarse = nn.Conv2d(512, size, 1)
        self.place = nn.Linear(2, size)
        self.norm = nn.LayerNorm(size)
        self.begin = nn.Linear(size, size)
        self.embed = nn.Embedding(tokens, size, padding_idx=PAD)
        self.gru = nn.GRU(size, size, batch_first=True)
        self.attend = nn.MultiheadAttention(size, num_heads=4, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(2 * size, size), nn.ReLU(), nn.Linear(size, tokens)
        )

    def look(self, images: Tensor) -> Tensor:
        """What is seen at every place: [B, 3, H, W] to [B, H/8, W/8, size]."""
        features = self.encoder(images)
        fine = self.fine(features.eighth)  # [B, 256, H/8, W/8]
        middle = self.middle(features.sixteenth)  # [B, 256, H/16, W/16]
        coarse = self.coarse(features.thirtysecond)  # [B, 256, H/32, W/32]
        x = fine + interpolate(middle, scale_factor=2)
        x = x + interpolate(coarse, scale_factor=4)  # [B, 256, H/8, W/8]
        # Convolutions hardly know where they are, and captions say "left".
        height, width = x.shape[2:]
        places = torch.cartesian_prod(
            torch.linspace(-1, 1, height, device=x.device),
            torch.linspace(-1, 1, width, device=x.device),
        ).view(height, width, 2)
        x = x.permute(0, 2, 3, 1) + self.place(places)  # [B, H/8, W/8, 256]
        return self.norm(relu(x))

    def first_state(self, seen: Tensor) -> Tensor:
        """The GRU's state before the first token: [1, B, size]."""
        return self.begin(seen.mean(dim=(1, 2))).tanh()[None]

    def speak(
        self, seen: Tensor, tokens: Tensor, state: Tensor
    ) -> tuple[Captioned, Tensor]:
        """Go on with some tokens [B, T] from a state; returns the new one too."""
        height, width = seen.shape[1:3]
        places = seen.flatten(1, 2)  # [B, P, 256], P = H/8 * W/8 places
        x = self.embed(tokens)  # [B, T, 256]
        x, state = self.gru(x, state)  # [B, T, 256]: each word knows those before it
        found, weights = self.attend(x, places, places)  # [B, T, 256], [B, T, P]
        logits = self.head(torch.cat([x, found], dim=-1))  # [B, T, V]
        return Captioned(logits, weights.unflatten(-1, (height, width))), state

    def forward(self, images: Tensor, tokens: Tensor) -> Captioned:
        check_tokens(tokens, len(images), self.embed.num_embeddings)
        seen = self.look(images)  # [B, H/8, W/8, 256]
        return self.speak(seen, tokens, self.first_state(seen))[0]  # [B, T, V], ...

    @torch.no_grad()
    def caption(self, images: Tensor, beam: int = 3) -> list[str]:
        """A caption for each image, by beam search; with beam 1, greedily.

        At every step the `beam` best beginnings of a caption stay, by the sum of their
        tokens' log-probabilities; in the end the best mean over a caption's tokens
        wins, as the sum alone would favour short ones.
        """
        if beam < 1:
            raise ValueError(f"beam must be at least 1, got {beam}")
        count = len(images)
        seen = self.look(images)
        state = self.first_state(seen).repeat_interleave(beam, dim=1)  # [1, B*K, 256]
        seen = seen.repeat_interleave(beam, dim=0)  # K beams side by side: B*K rows
        tokens = torch.full((count * beam, 1), START, device=images.device)
        # All beams of an image begin alike: only the first may go on at first.
        scores = torch.full((count, beam), -torch.inf, device=images.device)
        scores[:, 0] = 0
        first_row = torch.arange(count, device=images.device)[:, None] * beam
        ended = torch.zeros(count * beam, dtype=torch.bool, device=images.device)
        while tokens.shape[1] < LENGTH and not ended.all():
            output, state = self.speak(seen, tokens[:, -1:], state)
            log_p = output.logits[:, -1].log_softmax(dim=-1)  # [B*K, V]
            log_p[:, [PAD, START, UNKNOWN]] = -torch.inf
            log_p[ended] = -torch.inf  # a caption that ended goes on with <pad>, free
            log_p[ended, PAD] = 0
            totals = scores[:, :, None] + log_p.unflatten(0, (count, beam))  # [B, K, V]
            scores, best = totals.flatten(1).topk(beam)  # [B, K]
            rows = (first_row + best // log_p.shape[1]).flatten()  # whom each goes on
            new = (best % log_p.shape[1]).view(-1, 1)  # [B*K, 1]
            tokens = torch.cat([tokens[rows], new], dim=1)
            state = state[:, rows]
            ended = ended[rows] | (new[:, 0] == END)
        lengths = (tokens != PAD).sum(dim=1).unflatten(0, (count, beam))
        winners = first_row[:, 0] + (scores / lengths).argmax(dim=1)
        return decode(tokens[winners])


def check_tokens(tokens: Tensor, images: int, vocabulary: int) -> None:
    """Raise ValueError unless `tokens` is [images, T] of numbers below `vocabulary`."""
    if tokens.ndim != 2 or len(tokens) != images or 0 in tokens.shape:
        raise ValueError(
            f"expected tokens [{images}, T], a row for each image, "
            f"got {list(tokens.shape)}"
        )
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        raise ValueError(
            f"tokens are numbers from 0 to {vocabulary - 1}, got "
            f"{tokens.min().item()} to {tokens.max().item()}: use `encode`"
        )


class ImageCaptioning(Task):
    name = "image_captioning"
    title = "Image captioning"
    hebrew = "תיאור תמונות במילים"
    metric = "BLEU-4"
    baseline_name = "always the most frequent caption"
    recipe: ClassVar[TaskRecipe] = TaskRecipe(steps=700, batch_size=16)

    def build_model(self, *, pretrained: bool = False) -> Captioner:
        return Captioner(pretrained=pretrained)

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        """Images of 224 x 224 pixels, and captions without their last token."""
        captions = ["a red car ahead on a straight road in the rain"] * batch
        return torch.rand(batch, 3, 224, 224), encode(captions)[:, :-1]

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        images, captions = scenes.images.float() / 255, scenes.captions
        if generator:
            flipped = torch.rand(len(captions), generator=generator) < 0.5
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)
            captions = [
                mirrored(caption) if flip else caption
                for caption, flip in zip(captions, flipped.tolist(), strict=True)
            ]
        tokens = encode(captions)
        return Batch((images, tokens[:, :-1]), (tokens[:, 1:],))

    def loss(self, output: Captioned, targets: tuple[Tensor, ...]) -> Tensor:
        logits = output.logits.flatten(0, 1)  # [B*T, V]
        return cross_entropy(logits, targets[0].flatten(), ignore_index=PAD)

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        truths = [[caption] for caption in scenes.captions]
        beam, greedy = captions_of(model, scenes), captions_of(model, scenes, beam=1)
        return {
            "BLEU-4": bleu(beam, truths),
            "BLEU-4, greedy": bleu(greedy, truths),
            "exact match": share_equal(beam, scenes.captions),
            "exact match, greedy": share_equal(greedy, scenes.captions),
        }

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        most_frequent = Counter(train.captions).most_common(1)[0][0]
        truths = [[caption] for caption in test.captions]
        guess = [most_frequent] * len(truths)
        return {
            self.baseline_name: {
                "BLEU-4": bleu(guess, truths),
                "exact match": share_equal(guess, test.captions),
            }
        }

    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        """The first scene of each kind of main object, three at most."""
        kinds = scenes.main.unique()[:3]
        firsts = [(scenes.main == kind).nonzero()[0, 0] for kind in kinds]
        shown = scenes[torch.stack(firsts)]
        images = shown.images.float() / 255
        # An untrained model may never say <end>.
        captions = [
            " ".join(caption.split()[: LENGTH - 2]) for caption in model.caption(images)
        ]
        with torch.no_grad():
            maps = model(images, encode(captions)).attention  # [B, T, H/8, W/8]
        figure, axes = grid(len(shown), [""] * 4, height=2.35)
        for row, image, truth, caption, looks in zip(
            axes, images, shown.captions, captions, maps, strict=True
        ):
            show_image(row[0], image)
            row[0].set_title(" \n \n ", fontsize=8)  # room for the two sentences
            row[0].annotate(
                f"truth: {truth}\ngenerated: {caption}",
                (0, 1.03),
                xycoords="axes fraction",
                fontsize=8,
            ).set_in_layout(False)
            words = caption.split()
            for axis, choice in zip(row[1:], SHOWN_WORDS, strict=True):
                found = [place for place, word in enumerate(words) if word in choice]
                if found:
                    show_image(axis, lit(image, looks[found[0]]))
                    axis.text(
                        *(0.5, 0.05, f"“{words[found[0]]}”"),
                        transform=axis.transAxes,
                        ha="center",
                        fontsize=9,
                        color="white",
                        bbox={"facecolor": "black", "alpha": 0.7, "linewidth": 0},
                    )
        return figure


def captions_of(model: Captioner, scenes: Scenes, beam: int = 3) -> list[str]:
    """The model's captions for all scenes, in batches."""
    batches = (scenes.images.float() / 255).split(50)
    return [caption for batch in batches for caption in model.caption(batch, beam)]


def lit(image: Tensor, attention: Tensor) -> Tensor:
    """The image [3, H, W] in grey, dark where the attention [h, w] is weak."""
    light = interpolate(attention[None, None], image.shape[1:], mode="bilinear")[0]
    light = 0.25 + 0.75 * (light / light.max()).sqrt()
    grey = 0.3 + 0.7 * image.mean(dim=0, keepdim=True)
    return (grey * light).expand(3, -1, -1)


def share_equal(candidates: Sequence[str], truths: Sequence[str]) -> float:
    """The part of the candidates that equal their truth word for word."""
    equal = [c == t for c, t in zip(candidates, truths, strict=True)]
    return sum(equal) / len(equal)
